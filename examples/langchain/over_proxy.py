"""LangChain over `server-keys seal`, as any class that takes a base URL and no HTTP client.

Run `server-keys seal --to http://127.0.0.1:8000` first. It seals what leaves this machine.
"""

import os

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

model = ChatOpenAI(
    base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8011/v1"), api_key=SecretStr("unused"), model="toy-rambler"
)

for chunk in model.stream("What does the river keep?"):
    print(chunk.text, end="", flush=True)
