"""Asks for a chat completion, whole and streamed, with whatever key the environment holds."""

from openai import OpenAI

question = {"model": "gpt-5", "messages": [{"role": "user", "content": "hello?"}]}
with OpenAI(max_retries=0, timeout=30) as client:
    whole = client.chat.completions.create(**question)
    print("whole:", whole.choices[0].message.content)
    words = [event.choices[0].delta.content or "" for event in client.chat.completions.create(stream=True, **question)]
    print("streamed:", "".join(words))
