"""An app whose processes share their keys as the environment says: `uvicorn server:app --workers 2`."""

import os

from fastapi import FastAPI

from server_keys import protect

app = FastAPI()


@app.post("/hello")
async def hello(person: dict[str, str]) -> str:
    """Greet a person."""
    return f"Hello, {person['name']}"


protect(app, refresh_time=300, share=os.environ.get("SERVER_KEYS_SHARE", "auto"))
