"""Signs each request on stdin with the real key at the date of the request: what the injector should have sent.

A body's hash that the request declares is taken as it stands; whether it is the body's is for the test to see."""

import base64
import datetime
import json
import sys

import botocore.auth
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class DeclaredS3Auth(S3SigV4Auth):
    def payload(self, request):
        return declared


authorizations = []
for call in json.load(sys.stdin):
    moment = datetime.datetime.strptime(call["date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: moment.replace(tzinfo=None) if remove_tzinfo else moment
    body = base64.b64decode(call["body"])
    request = AWSRequest(method=call["method"], url=call["url"], headers=call["headers"], data=body)
    declared = call["headers"].get("x-amz-content-sha256")
    auth = DeclaredS3Auth if call["service"] == "s3" else SigV4Auth
    auth(Credentials(call["key_id"], call["secret"], call["session"]), call["service"], call["region"]).add_auth(request)
    authorizations.append(request.headers["Authorization"])
json.dump(authorizations, sys.stdout)
