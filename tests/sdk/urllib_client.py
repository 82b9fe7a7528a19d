"""Calls Stripe by the standard library."""

import json
import urllib.request

with urllib.request.urlopen("https://api.stripe.com/v1/balance", timeout=30) as answer:
    assert json.load(answer)["ok"] is True
print("urllib: ok")
