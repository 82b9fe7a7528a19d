"""Calls Stripe in the gateway form, by clients that cannot be led through a proxy from outside.

Arguments: the gateway's address, and a lease where the key would be.
"""

import asyncio
import sys

import aiohttp
import stripe
import urllib3

gateway, lease = sys.argv[1:]
url, fields = f"{gateway}/v1/balance", {"Authorization": f"Bearer {lease}"}


async def asynchronously() -> None:
    async with aiohttp.ClientSession() as session, session.get(url, headers=fields) as answer:
        assert answer.status == 200, await answer.text()


answer = urllib3.request("GET", url, headers=fields, timeout=30, retries=False)
assert answer.status == 200, answer.data
asyncio.run(asynchronously())
print("urllib3 and aiohttp: ok")

client = stripe.StripeClient(lease, base_addresses={"api": gateway}, max_network_retries=0)
charge = client.v1.charges.create({"amount": 4200, "currency": "usd", "source": "tok_visa"})
print("charge:", charge.id, charge.amount)
