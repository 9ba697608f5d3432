"""LangChain over sealed clients: `python examples/langchain/sealed_chat.py`, while `make demo` runs.

Both clients are needed. Without `http_async_client`, `ainvoke` and `astream` would make a client of their own, which
sends plaintext.
"""

import asyncio
import os

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from server_keys.client import async_sealed_client, sealed_client

model = ChatOpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=SecretStr("unused"),
    model="toy-rambler",
    http_client=sealed_client(),
    http_async_client=async_sealed_client(),
)

print(model.invoke("Hello").text)


async def stream() -> None:
    """Print the words of an answer as they come."""
    async for chunk in model.astream("What does the river keep?"):
        print(chunk.text, end="", flush=True)


asyncio.run(stream())
