"""Calls Stripe by httpx: HTTP/1.1 and HTTP/2, synchronous and not."""

import asyncio

import httpx

URL = "https://api.stripe.com/v1/balance"


def check(answer: httpx.Response, version: str) -> None:
    answer.raise_for_status()
    assert answer.json()["ok"] is True
    assert answer.http_version == version, answer.http_version


async def asynchronously() -> None:
    async with httpx.AsyncClient(http2=True, timeout=30) as client:
        for answer in await asyncio.gather(*(client.get(URL) for _ in range(4))):
            check(answer, "HTTP/2")


check(httpx.get(URL, timeout=30), "HTTP/1.1")
with httpx.Client(http2=True, timeout=30) as session:
    check(session.get(URL), "HTTP/2")
asyncio.run(asynchronously())
print("httpx: ok")
