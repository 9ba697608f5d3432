"""A request that is sealed and then waits for a free connection until its key is too old."""

import asyncio
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request

from server_keys import KeyPair, protect
from server_keys.client import AsyncSealedTransport
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL, Server
from tests.helpers.servers import running

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def waiting_inner(flavour: Flavour, server: Server, held: HeldTime, waits_s: list[float]) -> Any:
    """Return an inner transport in which sealed requests wait, and the server changes its key meanwhile."""

    def handle(request: Any) -> Any:
        if request.method == "POST" and waits_s:
            held.pass_s(waits_s.pop(0))
            server.key_pair = KeyPair.generate()
        return server.handle(request)

    return flavour.scripted(handle)


@every_flavour
def test_a_refusal_after_a_long_wait_is_no_final_word(flavour: Flavour, server: Server) -> None:
    held = HeldTime()
    with flavour.client(waiting_inner(flavour, server, held, [60, 60, 60]), clock=held.boot) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert [request.method for request in server.requests] == ["GET", "POST"] * 4


@every_flavour
def test_the_wait_for_the_key_counts_too(flavour: Flavour, server: Server) -> None:
    held = HeldTime()
    server.key_headers["Cache-Control"] = "max-age=1"
    waits_s = [0.7, 0.7, 0.7]

    def answer_key() -> Any:
        published = server.published()
        held.pass_s(0.7)
        return published

    server.answer_key = answer_key
    with flavour.client(waiting_inner(flavour, server, held, waits_s), clock=held.boot) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert [request.method for request in server.requests] == ["GET", "POST"] * 4


@every_flavour
@pytest.mark.parametrize(("cache_control", "wait_s"), [("max-age=60", 59), ("no-store", 0.5)])
def test_refusals_after_short_waits_are(flavour: Flavour, server: Server, cache_control: str, wait_s: float) -> None:
    held = HeldTime()
    server.key_headers["Cache-Control"] = cache_control
    with flavour.client(waiting_inner(flavour, server, held, [wait_s] * 9), clock=held.boot) as client:
        assert client.post(URL, "x").status_code == 422
    assert [request.method for request in server.requests] == ["GET", "POST"] * 3 + ["POST"] * 2


@every_flavour
def test_a_server_that_lets_each_request_wait_and_refuses_it_does_not_keep_the_client(
    flavour: Flavour, server: Server
) -> None:
    held = HeldTime()
    with flavour.client(waiting_inner(flavour, server, held, [60] * 99), clock=held.boot) as client:
        assert client.post(URL, "x").status_code == 422
    assert [request.method for request in server.requests] == ["GET", "POST"] * 10


def test_many_calls_over_few_connections_outlive_their_keys() -> None:
    app = FastAPI()

    @app.post("/slow")
    async def slow(request: Request) -> dict[str, str]:
        await asyncio.sleep(0.25)
        return {"body": (await request.body()).decode()}

    protect(app, 1, overlap=1)

    async def calls(url: str) -> list[int]:
        inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=4))
        async with httpx2.AsyncClient(transport=AsyncSealedTransport(inner), timeout=30) as client:
            responses = await asyncio.gather(*(client.post(url, content="x") for _ in range(80)))
        return [response.status_code for response in responses]

    with running(app) as url:
        assert asyncio.run(calls(f"{url}/slow")) == [200] * 80
