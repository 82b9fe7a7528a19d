"""An agent that uses OpenAI without holding a key.

    claviger set put openai/dev/me OPENAI_API_KEY=-
    claviger agent create me
    claviger grant create --agent me --set openai/dev/me --actions proxy_use,mint_workflow_lease
    claviger run --set openai/dev/me -- python examples/python_openai.py

Nothing here knows of Claviger: `run` sets HTTPS_PROXY, SSL_CERT_FILE and a placeholder in OPENAI_API_KEY, which the SDK
reads by itself. The real key is put in on the way to api.openai.com, and nowhere else.
"""

from openai import OpenAI

client = OpenAI()
answer = client.responses.create(model="gpt-4.1-mini", input="In one sentence: what does a claviger do?")
print(answer.output_text)
