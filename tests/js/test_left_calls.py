"""Calls that their caller leaves: what the caller is told, and what the server sees."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from starlette.responses import StreamingResponse

from server_keys import protect
from tests.helpers.servers import running
from tests.js.engines import Engine
from tests.js.servers import KEY_PATH, run

# Resolves to whether the server has seen within five seconds that somebody left its endless answer.
HAS_SEEN = """
    const serverHasSeen = async () => {
      for (let tries = 0; tries < 50; tries += 1) {
        if (await (await fetch(`${url}/left`)).json()) return true;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return false;
    };
"""


class Endless:
    """Answers that have no end."""

    def __init__(self) -> None:
        self.left = False

    def response(self, *, status: int = 200, media_type: str = "text/plain") -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0.01)
            finally:
                self.left = True

        return StreamingResponse(pieces(), status, media_type=media_type)


def app_with(endless: Endless) -> FastAPI:
    app = FastAPI()

    @app.post("/late")
    async def late(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @app.post("/endless")
    async def answer(request: Request) -> StreamingResponse:
        await request.body()
        return endless.response()

    @app.get("/left")
    async def left() -> bool:
        return endless.left

    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    return app


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a protected server whose answers are late, or have no end."""
    with running(protect(app_with(Endless()), refresh_time=300)) as url:
        yield url


@pytest.mark.parametrize("path", ["/late", "/endless"])
def test_a_call_that_is_aborted_ends_with_the_callers_reason(engine: Engine, url: str, path: str) -> None:
    calls = """
        const abortedSoon = (...reason) => {
          const controller = new AbortController();
          setTimeout(() => controller.abort(...reason), 200);
          return controller.signal;
        };
        const told = (signal) => {
          const called = client.post(inputs.path, "a", { signal }).then(read);
          return called.catch((error) => error === signal.reason || String(error));
        };
        await client.post("/left", "its key is known then");
        return {
          timeout: await told(AbortSignal.timeout(200)),
          error: await told(abortedSoon(new TypeError("too slow"))),
          nothing: await told(abortedSoon(null)),
          engine: await told(abortedSoon()),
        };
    """
    assert run(engine, calls, url, path=path) == {"timeout": True, "error": True, "nothing": True, "engine": True}


@pytest.mark.parametrize(
    "leaves",
    [
        "await pieces.return()",
        "for await (const piece of pieces) break",
        "await pieces.next(); await pieces.return()",
        "await pieces.throw(new Error()).catch(() => {})",
    ],
)
def test_a_response_is_closed_when_its_pieces_are_left(engine: Engine, url: str, leaves: str) -> None:
    call = f"const {{ pieces }} = await client.post('/endless', 'a'); {leaves}; return serverHasSeen();"
    assert run(engine, HAS_SEEN + call, url) is True


@pytest.mark.parametrize(("status", "media_type"), [(404, "application/ohttp-keys"), (200, "text/html")])
def test_an_answer_that_is_no_key_is_closed(engine: Engine, status: int, media_type: str) -> None:
    endless = Endless()
    app = app_with(endless)

    @app.get(KEY_PATH)
    async def no_key() -> StreamingResponse:
        return endless.response(status=status, media_type=media_type)

    call = "const told = await client.post('/', 'a').catch(messageOf); return [told, await serverHasSeen()];"
    with running(app) as url:
        told, was_seen = run(engine, HAS_SEEN + call, url)
    assert told.startswith("KeyConfigurationError: GET ")
    assert was_seen is True
