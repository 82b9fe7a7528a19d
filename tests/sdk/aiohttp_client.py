"""Calls Stripe by aiohttp, whose sessions heed the environment's proxy when they are asked to trust it."""

import asyncio

import aiohttp


async def main() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        for _ in range(2):
            async with session.get("https://api.stripe.com/v1/balance") as answer:
                answer.raise_for_status()
                assert (await answer.json())["ok"] is True
    print("aiohttp: ok")


asyncio.run(main())
