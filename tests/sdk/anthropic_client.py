"""Asks for a message, whole and streamed, with whatever key the environment holds."""

from anthropic import Anthropic

question = {"model": "claude-test", "max_tokens": 64, "messages": [{"role": "user", "content": "hello?"}]}
with Anthropic(max_retries=0, timeout=30) as client:
    whole = client.messages.create(**question)
    print("whole:", whole.content[0].text)
    with client.messages.stream(**question) as stream:
        print("streamed:", "".join(stream.text_stream))
