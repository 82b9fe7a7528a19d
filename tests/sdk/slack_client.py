"""Finds a channel and posts to it, synchronously and not, with whatever token the environment holds."""

import asyncio
import os

from slack_sdk import WebClient
from slack_sdk.web.async_client import AsyncWebClient

token = os.environ["SLACK_BOT_TOKEN"]


async def asynchronously(channel: str) -> str:
    posted = await AsyncWebClient(token=token).chat_postMessage(channel=channel, text="hello & again")
    return posted["message"]["text"]


client = WebClient(token=token)
general = client.conversations_list()["channels"][0]["id"]
posted = client.chat_postMessage(channel=general, text="hello & welcome")
print("posted:", posted["channel"], posted["message"]["text"])
print("awaited:", asyncio.run(asynchronously(general)))
