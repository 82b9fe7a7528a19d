"""Says what the injector should have sent: each request on stdin is signed with the real key at its own date.

A body's hash that the request declares is taken as it stands; whether it is the body's is for the test to see. Signatures
of version 4A are no two times the same, so those are verified: the answer is the request's own, or what is wrong."""

import base64
import datetime
import hashlib
import hmac
import json
import sys

import botocore.auth
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

V4A = "AWS4-ECDSA-P256-SHA256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class DeclaredS3Auth(S3SigV4Auth):
    def payload(self, request):
        return declared


def derived(key_id, secret):
    """The P-256 key of version 4A (NIST SP 800-108 in counter mode)."""
    for counter in range(1, 255):
        context = b"\x00\x00\x00\x01" + V4A.encode() + b"\x00" + key_id.encode() + bytes([counter]) + b"\x00\x00\x01\x00"
        candidate = int.from_bytes(hmac.new(b"AWS4A" + secret.encode(), context, hashlib.sha256).digest(), "big")
        if candidate <= ORDER - 2:
            return ec.derive_private_key(candidate + 1, ec.SECP256R1()).public_key()


def verified(auth, request, call):
    """The authorization itself, if its signature is this key's over this request."""
    request.headers["X-Amz-Date"] = call["date"]
    if call["session"]:
        request.headers["X-Amz-Security-Token"] = call["session"]
    canonical = hashlib.sha256(auth.canonical_request(request).encode()).hexdigest()
    text = "\n".join([V4A, call["date"], f"{call['date'][:8]}/{call['service']}/aws4_request", canonical])
    signature = bytes.fromhex(call["authorization"].rpartition("Signature=")[2])
    try:
        derived(call["key_id"], call["secret"]).verify(signature, text.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return f"not over {text!r}"
    return call["authorization"]


authorizations = []
for call in json.load(sys.stdin):
    moment = datetime.datetime.strptime(call["date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: moment.replace(tzinfo=None) if remove_tzinfo else moment
    body = base64.b64decode(call["body"])
    request = AWSRequest(method=call["method"], url=call["url"], headers=call["headers"], data=body)
    declared = call["headers"].get("x-amz-content-sha256")
    kind = DeclaredS3Auth if call["service"] == "s3" else SigV4Auth
    auth = kind(Credentials(call["key_id"], call["secret"], call["session"]), call["service"], call["region"])
    if call["authorization"].startswith(V4A):
        authorizations.append(verified(auth, request, call))
        continue
    auth.add_auth(request)
    authorizations.append(request.headers["Authorization"])
json.dump(authorizations, sys.stdout)
