"""Signs the request on stdin with the real key at the date of the request: what the injector should have sent."""

import datetime
import json
import sys

import botocore.auth
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

call = json.load(sys.stdin)
moment = datetime.datetime.strptime(call["date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
botocore.auth.get_current_datetime = lambda remove_tzinfo=True: moment.replace(tzinfo=None) if remove_tzinfo else moment

request = AWSRequest(method=call["method"], url=call["url"], headers=call["headers"], data=call["body"].encode())
if call["headers"].get("x-amz-content-sha256") == "UNSIGNED-PAYLOAD":
    request.context["payload_signing_enabled"] = False
auth = S3SigV4Auth if call["service"] == "s3" else SigV4Auth
auth(Credentials(call["key_id"], call["secret"], call["session"]), call["service"], call["region"]).add_auth(request)
json.dump({"authorization": request.headers["Authorization"]}, sys.stdout)
