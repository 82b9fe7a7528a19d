"""What Schemathesis does here beside its own checks."""

import random
import re

import schemathesis
import urllib3.util.connection

# Every request comes from an address of its own, as requests of strangers would: the limits on failures and sign-ins count by
# address, and behind one address the checks would see 429 and little else.
_connect = urllib3.util.connection.create_connection
_addresses = random.Random(20261122)


def _from_somewhere(address, *args, **kwargs):
    # All of 127.0.0.0/8 is this machine (RFC 6890).
    numbers = (_addresses.randint(1, 254) for _ in range(3))
    kwargs["source_address"] = (".".join(["127", *map(str, numbers)]), 0)
    return _connect(address, *args, **kwargs)


urllib3.util.connection.create_connection = _from_somewhere

# `what happened; the next action`, or what a field must be, which is the next action itself.
_NEXT_ACTION = re.compile(r"; |\b(must|expected|missing field|unknown field|at most|at least|use|send|ask|wait|write)\b")


@schemathesis.check
def refusals_say_the_next_action(ctx, response, case):
    """Holds every problem to its form: a code, the request's id, and a detail that leads on."""
    if response.status_code < 400 or "application/problem+json" not in str(response.headers.get("content-type")):
        return
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == "/v1/problems/" + problem["error"]
    assert problem["instance"].startswith("urn:uuid:")
    assert _NEXT_ACTION.search(problem["detail"]), f"this detail says no next action: {problem['detail']}"
