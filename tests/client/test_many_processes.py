"""Servers of several processes behind one address, each with keys of its own."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server_keys import KeyPair
from server_keys.client import KeyRejectedError
from tests.helpers.chat_app import build_app
from tests.helpers.client_flavours import FLAVOURS, Client, Flavour
from tests.helpers.recording_proxy import recording_proxy
from tests.helpers.scripted_server import URL, Server
from tests.helpers.servers import running
from tests.helpers.wire_tap import WireTap, tapped

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """The ports of three servers of one app."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(running(build_app())) for _ in range(3)]
        yield [int(url.rpartition(":")[2]) for url in urls]


@pytest.fixture
def address(ports: list[int]) -> Iterator[WireTap]:
    """One address for all of them: each connection leads to the next."""
    with tapped(*ports) as address:
        yield address


def assert_no_connection_stays(address: WireTap) -> None:
    until = time.monotonic() + 5
    while address.connections:
        assert time.monotonic() < until, f"{address.connections} connections stay open"
        time.sleep(0.01)


def http_transport(flavour: Flavour, **limits: int) -> Any:
    kind = flavour.http.AsyncHTTPTransport if flavour.is_async else flavour.http.HTTPTransport
    return kind(limits=flavour.http.Limits(**limits))


@contextlib.contextmanager
def factorys_client(flavour: Flavour, **options: Any) -> Iterator[Client]:
    """Yield a client that never uses a connection twice."""
    limits = flavour.http.Limits(max_keepalive_connections=0)
    with flavour.driving(flavour.sealed_client(limits=limits, **options)) as client:
        yield client


@contextlib.contextmanager
def client_over_own_inner(flavour: Flavour, **options: Any) -> Iterator[Client]:
    """Yield a client that never uses a connection twice, over a transport of the user's."""
    inner = http_transport(flavour, max_keepalive_connections=0)
    options["one_connection"] = lambda: http_transport(flavour, max_connections=1)
    with flavour.client(inner, **options) as client:
        yield client


no_connection_twice = pytest.mark.parametrize("client_of", [factorys_client, client_over_own_inner])
ClientOf = Callable[..., contextlib.AbstractContextManager[Client]]


@every_flavour
@no_connection_twice
def test_a_call_whose_every_connection_leads_elsewhere(flavour: Flavour, address: WireTap, client_of: ClientOf) -> None:
    with client_of(flavour) as client:
        for number in range(4):
            assert client.post(f"{address.url}/echo", str(number)).json() == {"body": str(number)}
        assert_no_connection_stays(address)


@every_flavour
@no_connection_twice
def test_an_answer_that_is_left_early(flavour: Flavour, address: WireTap, client_of: ClientOf) -> None:
    with client_of(flavour) as client:
        pieces = client.pieces(f"{address.url}/events", "a b c")
        assert b"data: a" in next(pieces)
        pieces.close()
        assert_no_connection_stays(address)


@every_flavour
@no_connection_twice
def test_a_key_that_is_not_trusted(flavour: Flavour, address: WireTap, client_of: ClientOf) -> None:
    seen: list[bytes] = []

    def trust_two(public_key: bytes) -> bool:
        seen.append(public_key)
        return len(seen) < 3

    with client_of(flavour, verify_key=trust_two) as client:
        with pytest.raises(KeyRejectedError):
            client.post(f"{address.url}/echo", "x")
        assert_no_connection_stays(address)
    assert len(set(seen)) == 3


@every_flavour
def test_many_calls_at_once_over_connections_that_stay(flavour: Flavour, address: WireTap) -> None:
    with flavour.client() as client:
        for _ in range(5):
            responses = client.post_at_once(f"{address.url}/echo", ["x"] * 8)
            assert [response.json() for response in responses] == [{"body": "x"}] * 8


@every_flavour
def test_a_proxy_reads_the_last_tries_too(flavour: Flavour, address: WireTap) -> None:
    # This proxy makes a connection for each request.
    with recording_proxy() as proxy, flavour.driving(flavour.sealed_client(proxy=proxy.url)) as client:
        assert client.post(f"{address.url}/echo", "attack at dawn").json() == {"body": "attack at dawn"}
    assert [request.method for request in proxy.requests] == ["GET", "POST"] * 3 + ["POST"] * 2
    assert b"dawn" not in proxy.read


@every_flavour
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_proxy_that_sends_each_request_to_the_next_process(flavour: Flavour, server: Server, processes: int) -> None:
    key_pairs = itertools.cycle([KeyPair.generate() for _ in range(processes)])

    def handle(request: Any) -> Any:
        server.key_pair = next(key_pairs)
        return server.handle(request)

    with flavour.client(flavour.scripted(handle)) as client:
        for _ in range(5):
            assert client.post(URL, "x").content == b"sealed answer"


@every_flavour
def test_a_refusal_stands_if_the_server_is_too_busy_to_tell_its_key_again(flavour: Flavour, server: Server) -> None:
    server.answer = lambda _: server.mismatch()

    def answer_key() -> Any:
        return server.response(503, [b"busy"], {}) if len(server.key_requests) == 3 else server.published()

    server.answer_key = answer_key
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.status_code, response.json()["title"]) == (422, "stale")
    assert [request.method for request in server.requests] == ["GET", "POST"] * 2 + ["GET"]
