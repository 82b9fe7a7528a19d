"""Calls Stripe by urllib3, which reads no proxy variables: it is given the one of the environment."""

import os

import urllib3

with urllib3.ProxyManager(os.environ["HTTPS_PROXY"]) as pool:
    for _ in range(2):
        answer = pool.request("GET", "https://api.stripe.com/v1/balance", timeout=30, retries=False)
        assert answer.status == 200, answer.data
        assert answer.json()["ok"] is True
print("urllib3: ok")
