"""Many requests at once fetch a key once, whoever is cancelled or fails meanwhile."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from server_keys import KeyPair
from server_keys._sealing.key_entries import PublishedKeys
from server_keys.client import AsyncSealedTransport, SealedTransportError
from server_keys.client.key_cache import KeyCache, Lead
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL, Server

MANY = 20
# Long enough for requests that started at once to arrive where they wait.
A_WHILE_S = 0.3

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
asynchronous = pytest.mark.parametrize("flavour", [flavour for flavour in FLAVOURS if flavour.is_async], ids=str)


def slow_inner(flavour: Flavour, server: Server, seconds: float = A_WHILE_S) -> Any:
    """Return an inner transport that takes `seconds` to tell the key."""

    def handle(request: Any) -> Any:
        if request.method == "GET":
            time.sleep(seconds)
        return server.handle(request)

    async def handle_async(request: Any) -> Any:
        if request.method == "GET":
            await asyncio.sleep(seconds)
        return server.handle(request)

    return flavour.scripted(handle_async if flavour.is_async else handle)


@every_flavour
@pytest.mark.parametrize(("cache_control", "seconds"), [("max-age=60", A_WHILE_S), ("no-store", 1.5)])
def test_a_burst_fetches_and_verifies_the_key_once(
    flavour: Flavour, server: Server, cache_control: str, seconds: float
) -> None:
    verified: list[bytes] = []
    server.key_headers["Cache-Control"] = cache_control
    with flavour.client(slow_inner(flavour, server, seconds), verify_key=verified.append) as client:
        responses = client.post_at_once(URL, ["x"] * MANY)
    assert [response.content for response in responses] == [b"sealed answer"] * MANY
    assert len(server.key_requests) == 1
    assert verified == [server.key_pair.public_key]


@every_flavour
def test_a_burst_behind_a_slow_answer_does_not_fetch_for_each_request(
    flavour: Flavour, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_keys.client.key_steps._PATIENCE_S", 0.4)
    verified: list[bytes] = []
    with flavour.client(slow_inner(flavour, server, 0.9), verify_key=verified.append) as client:
        began = time.monotonic()
        responses = client.post_at_once(URL, ["x"] * MANY)
        took_s = time.monotonic() - began
    assert [response.content for response in responses] == [b"sealed answer"] * MANY
    assert len(verified) == len(server.key_requests) <= 3
    assert took_s < 5


def test_a_key_that_comes_late_lets_those_go_on_who_wait_for_a_later_fetch() -> None:
    cache = KeyCache(HeldTime().boot)
    slow = cache.ask("server")
    assert isinstance(slow, Lead)
    later = cache.take_over("server", slow.fetch)
    assert later is not None
    assert cache.take_over("server", slow.fetch) is None, "two requests took over"
    key = cache.put("server", slow.fetch, PublishedKeys(bytes(32), None), 60)
    cache.end("server", slow.fetch, key)
    assert asyncio.run(later.wait_async(60)) == later.wait(60) == key


@every_flavour
def test_a_verify_key_that_sends_through_its_own_client_is_told_so(flavour: Flavour, server: Server) -> None:
    def verify(_: bytes) -> None:
        client.post(URL, "a question on the key")

    async def verify_async(_: bytes) -> None:
        await sending.post(URL, content="a question on the key")

    verify_key = verify_async if flavour.is_async else verify
    client_type = flavour.http.AsyncClient if flavour.is_async else flavour.http.Client
    inner = flavour.scripted(server.handle)
    sending = client_type(transport=flavour.transport(inner, verify_key=verify_key))
    with flavour.driving(sending) as client:
        with pytest.raises(SealedTransportError, match="use another client in verify_key"):
            client.post(URL, "x")
        assert [request.method for request in server.requests] == ["GET"]


@every_flavour
def test_a_burst_at_the_keys_end_fetches_it_once(flavour: Flavour, server: Server) -> None:
    held = HeldTime()
    with flavour.client(slow_inner(flavour, server), clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(61)
        client.post_at_once(URL, ["x"] * MANY)
    assert len(server.key_requests) == 2


@asynchronous
def test_a_burst_just_before_the_keys_end_waits_for_nothing(flavour: Flavour, server: Server) -> None:
    held = HeldTime()
    with flavour.client(slow_inner(flavour, server), clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(55)
        client.post_at_once(URL, ["x"] * MANY)
    methods = [request.method for request in server.requests]
    assert methods == ["GET", "POST"] + ["POST"] * (MANY - 1) + ["GET", "POST"]


@every_flavour
def test_a_burst_of_refusals_fetches_once(flavour: Flavour, server: Server) -> None:
    with flavour.client(slow_inner(flavour, server)) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        responses = client.post_at_once(URL, ["x"] * MANY)
    assert [response.status_code for response in responses] == [200] * MANY
    assert len(server.key_requests) == 2


@every_flavour
@pytest.mark.parametrize("failure", ["raises", "is answered with 503", "is answered with 404", "is refused"])
def test_a_failure_is_nobody_elses(flavour: Flavour, server: Server, failure: str) -> None:
    asked = 0

    def fail_the_first() -> Any:
        nonlocal asked
        asked += 1
        if asked > 1 or failure == "is refused":
            return server.published()
        if failure == "raises":
            server.closed.append("no response")
            raise flavour.http.ConnectError("nobody is there")
        return server.response(int(failure[-3:]), [b""], {})

    server.answer_key = fail_the_first
    verdicts = iter([failure != "is refused"] + [True] * MANY)
    with flavour.client(slow_inner(flavour, server), verify_key=lambda _: next(verdicts)) as client:
        results = client.post_at_once(URL, ["x"] * MANY)
    opened = [result for result in results if getattr(result, "content", None) == b"sealed answer"]
    assert len(opened) == MANY - 1
    assert len(server.key_requests) == 2


@asynchronous
def test_when_the_one_that_fetches_is_cancelled_another_takes_over(flavour: Flavour, server: Server) -> None:
    async def burst() -> None:
        transport = flavour.transport(slow_inner(flavour, server))
        async with flavour.http.AsyncClient(transport=transport) as client:
            tasks = [asyncio.create_task(client.post(URL, content="x")) for _ in range(MANY)]
            await asyncio.sleep(A_WHILE_S / 2)
            for task in tasks[:5]:
                task.cancel()
            results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:5])
        assert [result.content for result in results[5:]] == [b"sealed answer"] * (MANY - 5)

    asyncio.run(burst())
    assert len(server.key_requests) == 1


@asynchronous
def test_event_loops_in_several_threads_fetch_once(flavour: Flavour, server: Server) -> None:
    transport = flavour.transport(slow_inner(flavour, server))
    together = threading.Barrier(5)

    async def burst() -> list[bytes]:
        client = flavour.http.AsyncClient(transport=transport)
        together.wait(10)
        responses = await asyncio.gather(*(client.post(URL, content="x") for _ in range(10)))
        return [response.content for response in responses]

    with ThreadPoolExecutor(5) as pool:
        bursts = list(pool.map(lambda _: asyncio.run(burst()), range(5)))
    assert bursts == [[b"sealed answer"] * 10] * 5
    assert len(server.key_requests) == 1


def test_an_event_loop_that_ends_while_it_fetches_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_keys.client.key_steps._PATIENCE_S", 1.0)
    flavour = FLAVOURS[-1]
    server = Server(flavour)
    stuck: Callable[[], Awaitable[None]] = asyncio.Event().wait  # type: ignore[assignment]
    is_first = True

    async def handle(request: httpx2.Request) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            await stuck()
        return server.handle(request)

    transport = AsyncSealedTransport(httpx2.MockTransport(handle))
    left_alone = asyncio.new_event_loop()
    request = httpx2.Request("POST", URL, content=b"x")
    task = left_alone.create_task(transport.handle_async_request(request))
    left_alone.run_until_complete(asyncio.sleep(0.01))

    async def burst() -> list[int]:
        client = httpx2.AsyncClient(transport=transport)
        responses = await asyncio.gather(*(client.post(URL, content="x") for _ in range(5)))
        return [response.status_code for response in responses]

    assert asyncio.run(asyncio.wait_for(burst(), 10)) == [200] * 5
    assert asyncio.run(asyncio.wait_for(burst(), 0.9)) == [200] * 5, "a request that comes later waits again"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        left_alone.run_until_complete(task)
    left_alone.close()
