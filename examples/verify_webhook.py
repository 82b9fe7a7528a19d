import base64, hashlib, hmac, time


def verify(secret, headers, body, tolerance=300):
    """Whether `body` (bytes, as they came) is a delivery signed with `secret` (whsec_...) within the last five minutes."""
    sent = headers["webhook-timestamp"]
    if abs(time.time() - int(sent)) > tolerance:
        return False
    signed = f"{headers['webhook-id']}.{sent}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split())
