"""Calls Stripe by requests, as the environment tells it to."""

import requests

with requests.Session() as session:
    for _ in range(2):
        answer = session.get("https://api.stripe.com/v1/balance", timeout=30)
        answer.raise_for_status()
        assert answer.json()["ok"] is True
print("requests: ok")
