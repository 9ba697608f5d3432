"""Both ends of version 1 of the wire together: a server that takes nothing else, and clients that take nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from openai import AsyncOpenAI, OpenAI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import protect
from server_keys.client import (
    MissingEndError,
    StatusMismatchError,
    UnsealedResponseError,
    async_sealed_client,
    sealed_client,
)
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.servers import PLAIN, STANDARD, Stack, running
from tests.helpers.uploads import BODY, PIECES, Streamed
from tests.helpers.wire_tap import tapped

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

WORDS = ["Keys ", "come ", "and ", "go."]
MESSAGES: Any = [{"role": "user", "content": "attack at dawn"}]


def chunk(kind: str, **choice: Any) -> dict[str, Any]:
    """Return what the API calls a completion, or a chunk of one."""
    choices = [{"index": 0, "finish_reason": None, **choice}]
    return {"id": "1", "object": kind, "created": 0, "model": "tiny", "choices": choices}


def build_app() -> FastAPI:
    """Return an OpenAI-shaped app that is unprotected yet."""
    app = FastAPI()

    @app.api_route("/seen/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
    async def seen(request: Request, path: str) -> Response:
        body = (await request.body()).decode()
        return JSONResponse({"method": request.method, "path": path, "query": request.url.query, "body": body})

    @app.api_route("/status/{status}", methods=["GET", "POST"])
    async def status(status: int) -> Response:
        return Response(None if status in (204, 304) else b"content", status)

    @app.get("/moved")
    async def moved() -> Response:
        return RedirectResponse("/seen/there")

    @app.get("/words")
    async def words() -> Response:
        async def stream() -> AsyncIterator[str]:
            for word in WORDS:
                yield word

        return StreamingResponse(stream())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "nobody"}]}

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

    return app


@pytest.fixture
def app() -> FastAPI:
    """The app, which takes version 1 alone."""
    return protect(build_app(), 300, required="v1")


@pytest.fixture(params=[PLAIN, STANDARD], ids=str)
def url(app: FastAPI, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the app is."""
    stack: Stack = request.param
    with running(app, stack) as url:
        yield url


@every_flavour
def test_every_kind_of_request(flavour: Flavour, url: str) -> None:
    with flavour.client(require_v1=True) as client:
        for method, content in [("GET", ""), ("DELETE", ""), ("POST", ""), ("POST", "x"), ("PUT", "x"), ("GET", "x")]:
            response = client.request(method, f"{url}/seen/a%20b/%C3%AB?q=1%2F2&r=%7E", content=content)
            assert response.json() == {"method": method, "path": "a b/ë", "query": "q=1%2F2&r=%7E", "body": content}
            assert response.headers["Ehbp-Response-Nonce"].startswith("1.")
        head = client.request("HEAD", f"{url}/seen/x")
        assert (head.status_code, head.content) == (200, b"")


@every_flavour
@pytest.mark.parametrize("status", [200, 204, 304, 404, 409, 500])
def test_every_kind_of_status(flavour: Flavour, url: str, status: int) -> None:
    with flavour.client(require_v1=True) as client:
        for method in ("GET", "POST"):
            response = client.request(method, f"{url}/status/{status}")
            assert response.status_code == status
            assert response.content == (b"" if status in (204, 304) else b"content")


@every_flavour
def test_a_redirect_is_followed(flavour: Flavour, url: str) -> None:
    with flavour.client(require_v1=True) as client:
        response = client.request("GET", f"{url}/moved", follow_redirects=True)
    assert response.json()["path"] == "there"


@every_flavour
def test_a_long_target_and_a_long_body(flavour: Flavour, url: str) -> None:
    query = "q=" + "a" * 20_000
    with flavour.client(require_v1=True) as client:
        for content in (BODY, Streamed(PIECES).of(flavour)):
            response = client.request("POST", f"{url}/seen/x?{query}", content=content)
            assert response.json() == {"method": "POST", "path": "x", "query": query, "body": BODY.decode()}


@every_flavour
def test_rotations_go_unnoticed(flavour: Flavour, app: FastAPI, url: str) -> None:
    ring = app.state.ephemeral_keys
    with flavour.client(require_v1=True) as client:
        for rotations in (0, 1, 2, 3):
            for _ in range(rotations):
                ring.refresh()
            for method in ("GET", "HEAD", "POST"):
                assert client.request(method, f"{url}/seen/x").status_code == 200


@every_flavour
def test_the_wire_carries_neither_prompt_nor_answer(flavour: Flavour, url: str) -> None:
    with tapped(int(url.rpartition(":")[2])) as tap, flavour.client(require_v1=True) as client:
        assert client.post(f"{tap.url}/seen/x", "attack at dawn").json()["body"] == "attack at dawn"
        assert client.request("GET", f"{tap.url}/v1/models").json()["data"][0]["id"] == "tiny"
        heard = tap.heard
    assert b"POST /seen/x" in heard
    assert b"dawn" not in heard
    assert b"tiny" not in heard


def test_a_chat_through_the_sdk_across_rotations(app: FastAPI, url: str) -> None:
    http_client = sealed_client(require_v1=True)
    with OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http_client, max_retries=0) as client:
        for _ in range(3):
            assert [model.id for model in client.models.list()] == ["tiny"]
            answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
            assert answer.choices[0].message.content == "".join(WORDS)
            for _ in range(2):
                app.state.ephemeral_keys.refresh()
            events = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            assert [event.choices[0].delta.content for event in events] == WORDS


def test_an_async_chat_through_the_sdk(url: str) -> None:
    async def chat() -> None:
        http_client = async_sealed_client(require_v1=True)
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http_client, max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == ["tiny"]
            events = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            assert [event.choices[0].delta.content async for event in events] == WORDS

    asyncio.run(chat())


Change = dict[str, Any]


def changing(app: ASGIApp, change: Change) -> ASGIApp:
    """Return an app that stands between its clients and `app`, and does to their messages what `change` says now."""

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "path" in change and scope["path"].startswith("/seen"):
            scope = {**scope, "path": change["path"], "raw_path": change["path"].encode()}
        if scope["type"] == "http" and "method" in change and scope["path"].startswith("/seen"):
            scope = {**scope, "method": change["method"]}
        sent = 0

        async def send_changed(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start" and "status" in change:
                message = {**message, "status": change["status"]}
            if message["type"] == "http.response.body" and "most_bytes" in change:
                body = message.get("body", b"")[: max(change["most_bytes"] - sent, 0)]
                sent += len(body)
                message = {**message, "body": body}
            await send(message)

        await app(scope, receive, send_changed)

    return between


@every_flavour
def test_what_somebody_on_the_way_changes_is_noticed(flavour: Flavour, app: FastAPI) -> None:
    change: Change = {}
    with running(changing(app, change)) as url, flavour.client(require_v1=True) as client:
        seen = f"{url}/seen/meant"
        assert client.request("GET", seen).status_code == 200
        for placed in ({"path": "/seen/other"}, {"method": "DELETE"}):
            change.update(placed)
            for content in ("", "x"):
                # The server's own answer: sealed, and with what was meant.
                refused = client.request("POST", seen, content=content)
                assert refused.status_code == 400
                assert "/seen/meant" in refused.text
                assert refused.headers["Ehbp-Response-Nonce"].startswith("1.")
            change.clear()
        change["status"] = 201
        with pytest.raises(StatusMismatchError, match="status 200, but it arrived with status 201"):
            client.request("GET", seen)
        change.clear()
        assert client.request("GET", f"{url}/words").text == "".join(WORDS)
        # The transfer ends properly, and where a frame ends: before the last words, and before the end frame alone.
        for words in (2, len(WORDS)):
            change["most_bytes"] = sum(len(word) + 20 for word in WORDS[:words])
            with pytest.raises(MissingEndError):
                client.request("GET", f"{url}/words")


@every_flavour
def test_headers_that_somebody_on_the_way_changes_arrive_as_the_security_page_says(flavour: Flavour) -> None:
    app = build_app()
    kept: dict[str, bytes] = {}

    @app.post("/kept")
    async def keep(request: Request) -> None:
        kept[request.headers["Authorization"]] = await request.body()

    protect(app, 300, required="v1")

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"set-cookie", b"theirs=1")]}
            await send(message)

        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] != b"authorization"]
            scope = {**scope, "headers": [*headers, (b"authorization", b"Bearer theirs")]}
        await app(scope, receive, send_changed)

    with running(between) as url, flavour.client(require_v1=True) as client:
        answer = client.request("POST", f"{url}/kept", content="x", headers={"Authorization": "Bearer ours"})
        assert answer.status_code == 200
        assert answer.headers["Set-Cookie"] == "theirs=1"
    assert kept == {"Bearer theirs": b"x"}


@every_flavour
def test_a_page_beside_the_protected_app_is_refused(flavour: Flavour, app: FastAPI) -> None:
    async def beside(scope: Scope, receive: Receive, send: Send) -> None:
        is_other = scope["type"] == "http" and scope["path"] == "/v1/models"
        await (unprotected if is_other else app)(scope, receive, send)

    unprotected = build_app()
    with (
        running(beside) as url,
        flavour.client() as client,
        pytest.raises(UnsealedResponseError, match="does not protect this path"),
    ):
        client.request("GET", f"{url}/v1/models")


@every_flavour
def test_behind_a_gateway_that_strips_a_prefix(flavour: Flavour, app: FastAPI) -> None:
    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            stripped = scope["path"].removeprefix("/team-a")
            scope = {**scope, "path": stripped, "raw_path": stripped.encode()}
        await app(scope, receive, send)

    key_url = "/team-a/.well-known/hpke-keys"
    with running(gateway) as url, flavour.client(require_v1=True, key_url=key_url) as client:
        assert client.request("GET", f"{url}/team-a/seen/x").json()["path"] == "x"
        assert client.post(f"{url}/team-a/seen/x?a=b", "x").json()["body"] == "x"
