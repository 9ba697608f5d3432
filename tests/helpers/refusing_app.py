"""An app that takes sealed bodies only, for servers in processes of their own: `tests.helpers.refusing_app:app`."""

from fastapi import FastAPI, Request

from server_keys import protect

app = FastAPI()


@app.post("/length")
async def length(request: Request) -> int:
    """Tell how long the body is."""
    return len(await request.body())


protect(app, 300, required=True)
