"""The OpenAI SDK through the sealing transport, plain and streaming, while the server's keys rotate."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from openai import AsyncOpenAI, OpenAI

from server_keys import protect
from server_keys.client import UnsealedResponseError, async_sealed_client, sealed_client
from tests.helpers.recording_proxy import recording_proxy
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
    with OpenAI(base_url=url, api_key="none", http_client=sealed_client(), max_retries=0) as client:
        for _ in range(3):
            answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
            assert answer.choices[0].message.content == "".join(WORDS)
            app.state.ephemeral_keys.refresh()
            app.state.ephemeral_keys.refresh()
            events = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            assert [event.choices[0].delta.content for event in events] == WORDS


def test_an_async_chat_across_rotations(app: FastAPI, url: str) -> None:
    async def chat() -> None:
        http_client = async_sealed_client()
        async with AsyncOpenAI(base_url=url, api_key="none", http_client=http_client, max_retries=0) as client:
            for _ in range(3):
                answer = await client.chat.completions.create(model="tiny", messages=MESSAGES)
                assert answer.choices[0].message.content == "".join(WORDS)
                app.state.ephemeral_keys.refresh()
                app.state.ephemeral_keys.refresh()
                events = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                assert [event.choices[0].delta.content async for event in events] == WORDS

    asyncio.run(chat())


def test_a_proxy_of_the_environment_reads_no_chat(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with recording_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with OpenAI(base_url=url, api_key="none", http_client=sealed_client(), max_retries=0) as client:
            answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
            assert answer.choices[0].message.content == "".join(WORDS)
            events = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            assert [event.choices[0].delta.content for event in events] == WORDS
    assert [request.method for request in proxy.requests] == ["GET", "POST", "POST"]
    assert not [word for word in (b"What do keys do", b"Keys ") if word in proxy.read]


def test_an_unsealed_answer_is_neither_retried_nor_hidden_by_the_sdk() -> None:
    asked = 0
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def completions() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return chunk("chat.completion", message={"role": "assistant", "content": "hello"}, finish_reason="stop")

    async def beside(scope: Any, receive: Any, send: Any) -> None:
        """Let the keys be found, but the chat be answered by an app that does not seal."""
        is_chat = scope["type"] == "http" and scope["method"] == "POST"
        await (app if is_chat else protected)(scope, receive, send)

    protected = protect(FastAPI())
    with (
        running(beside) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", http_client=sealed_client()) as client,
        pytest.raises(UnsealedResponseError, match="was sealed, but answered with status 200"),
    ):
        client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert asked == 1
