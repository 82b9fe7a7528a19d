"""An agent that signs its requests, or proves that it holds its token's key, by the `cryptography` package."""

import base64
import hashlib
import json
import sys
import time
import urllib.error
import urllib.request
import uuid

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

LEASES = "/v1/vault/leases"


def call(url, path, method="GET", body=b"", headers=()):
    """The status and the JSON of an answer."""
    request = urllib.request.Request(url + path, method=method, data=body or None)
    request.add_header("Content-Type", "application/json")
    for name, value in dict(headers).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def public_key(file):
    """Makes a key, keeps it in a file, and prints its public half."""
    key = ed25519.Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    with open(file, "wb") as kept:
        kept.write(key.private_bytes(*raw))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    print(base64.b64encode(public).decode())


def signed(url, agent, file, secret_set):
    with open(file, "rb") as kept:
        key = ed25519.Ed25519PrivateKey.from_private_bytes(kept.read())

    def sign(method, path, body=b"", said=None):
        now, nonce = str(int(time.time() * 1000)), str(uuid.uuid4())
        digest = hashlib.sha256(said if said is not None else body).hexdigest()
        lines = "\n".join([method, path, now, nonce, digest])
        return {
            "X-Clawb-Agent-Id": agent,
            "X-Clawb-Timestamp": now,
            "X-Clawb-Nonce": nonce,
            "X-Clawb-Signature": base64.b64encode(key.sign(lines.encode())).decode(),
        }

    body = json.dumps({"secret_set": secret_set}).encode()
    headers = sign("POST", LEASES, body)
    status, minted = call(url, LEASES, "POST", body, headers)
    assert status == 201, minted
    status, again = call(url, LEASES, "POST", body, headers)
    assert (status, again["error"]) == (401, "replay_detected"), again
    status, other = call(url, LEASES, "POST", body, sign("POST", LEASES, body, b"{}"))
    assert (status, other["error"]) == (401, "unauthenticated"), other
    status, listed = call(url, LEASES + "?limit=1", headers=sign("GET", LEASES))
    assert status == 200 and listed["leases"][0]["lease_id"] == minted["lease_id"], listed
    print(minted["token"])


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def proven(url, file, secret_set):
    """As the seeds' SDK does: a key of P-256, `Authorization: Bearer`, and proofs without `ath`."""
    with open(file, encoding="ascii") as kept:
        api_key = kept.read().strip()
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y = (b64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "key_ops": ["verify"], "ext": True}

    def proof(method, path):
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}
        claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": url + path, "iat": int(time.time())}
        message = ".".join(b64url(json.dumps(part).encode()) for part in (head, claims))
        r, s = utils.decode_dss_signature(key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return message + "." + b64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    body = json.dumps({"api_key": api_key, "dpop_jwk": jwk}).encode()
    status, token = call(url, "/v1/auth/agent-token", "POST", body)
    assert (status, token["token_type"]) == (200, "DPoP"), status
    bearer = {"Authorization": "Bearer " + token["access_token"]}
    body = json.dumps({"secret_set": secret_set}).encode()
    status, alone = call(url, LEASES, "POST", body, bearer)
    assert (status, alone["error"]) == (401, "invalid_dpop_proof"), alone
    once = {**bearer, "DPoP": proof("POST", LEASES)}
    status, minted = call(url, LEASES, "POST", body, once)
    assert status == 201, minted
    status, again = call(url, LEASES, "POST", body, once)
    assert (status, again["error"]) == (401, "invalid_dpop_proof"), again
    print(token["access_token"])
    print(minted["token"])


if __name__ == "__main__":
    {"key": public_key, "signed": signed, "proven": proven}[sys.argv[1]](*sys.argv[2:])
