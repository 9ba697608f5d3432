"""The OpenAI SDK through the sealing transport, plain and streaming, while the server's keys rotate."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from openai import AsyncOpenAI, OpenAI

from server_keys import protect
from server_keys.client import AsyncSealedTransport, SealedTransport
from tests.helpers.servers import running

WORDS = ["Keys ", "come ", "and ", "go."]


def chunk(kind: str, **choice: Any) -> dict[str, Any]:
    """Return what the API calls a completion, or a chunk of one."""
    return {
        "id": "1",
        "object": kind,
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }


@pytest.fixture
def app() -> FastAPI:
    """An OpenAI-shaped app whose model always says the same."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def completions(request: dict[str, Any]) -> Response:
        if not request.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            return JSONResponse(chunk("chat.completion", message=message, finish_reason="stop"))

        async def events() -> AsyncIterator[str]:
            for word in WORDS:
                yield f"data: {json.dumps(chunk('chat.completion.chunk', delta={'content': word}))}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return protect(app, 300)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The API's base URL."""
    with running(app) as url:
        yield f"{url}/v1"


MESSAGES: Any = [{"role": "user", "content": "What do keys do?"}]


def test_a_chat_across_rotations(app: FastAPI, url: str) -> None:
    http_client = httpx2.Client(transport=SealedTransport())
    with OpenAI(base_url=url, api_key="none", http_client=http_client, max_retries=0) as client:
        for _ in range(3):
            answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
            assert answer.choices[0].message.content == "".join(WORDS)
            app.state.ephemeral_keys.refresh()
            app.state.ephemeral_keys.refresh()
            events = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            assert [event.choices[0].delta.content for event in events] == WORDS


def test_an_async_chat_across_rotations(app: FastAPI, url: str) -> None:
    async def chat() -> None:
        http_client = httpx2.AsyncClient(transport=AsyncSealedTransport())
        async with AsyncOpenAI(base_url=url, api_key="none", http_client=http_client, max_retries=0) as client:
            for _ in range(3):
                answer = await client.chat.completions.create(model="tiny", messages=MESSAGES)
                assert answer.choices[0].message.content == "".join(WORDS)
                app.state.ephemeral_keys.refresh()
                app.state.ephemeral_keys.refresh()
                events = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                assert [event.choices[0].delta.content async for event in events] == WORDS

    asyncio.run(chat())
