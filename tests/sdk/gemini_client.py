"""Asks for content, whole and streamed, synchronously and not, with whatever key the environment holds."""

import asyncio

from google import genai

question = {"model": "gemini-test", "contents": "hello?"}


async def asynchronously(client: genai.Client) -> str:
    return (await client.aio.models.generate_content(**question)).text


with genai.Client() as client:
    print("whole:", client.models.generate_content(**question).text)
    words = [part.text for part in client.models.generate_content_stream(**question)]
    print("streamed:", "".join(words))
    print("awaited:", asyncio.run(asynchronously(client)))
