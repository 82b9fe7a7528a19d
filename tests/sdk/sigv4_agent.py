"""An agent that signs with the placeholder keys of its environment and sends through the environment's proxy."""

import json
import os
import sys

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

service = os.environ["AGENT_SERVICE"]
credentials = Credentials(
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    os.environ.get("AWS_SESSION_TOKEN"),
)
statuses = []
for call in json.load(sys.stdin):
    request = AWSRequest(
        method=call["method"], url=call["url"], headers=call["headers"], data=call["body"].encode()
    )
    if call["headers"].get("x-amz-content-sha256") == "UNSIGNED-PAYLOAD":
        request.context["payload_signing_enabled"] = False
    auth = S3SigV4Auth if service == "s3" else SigV4Auth
    auth(credentials, service, "us-east-1").add_auth(request)
    session = URLLib3Session(
        proxies=get_environ_proxies(call["url"]), verify=os.environ["AWS_CA_BUNDLE"], timeout=30
    )
    statuses.append(session.send(request.prepare()).status_code)
json.dump(statuses, sys.stdout)
