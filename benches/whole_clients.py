"""The clients that are measured whole: each sends bodies to an app of `whole_server` and reads what comes back."""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import ehbp
import httpx
from hpke_http.middleware.httpx import DiscoveredEndpoint, HPKEAsyncClient

from benches.whole_server import HPKE_HTTP_LIMITS, HPKE_HTTP_PATH, HPKE_HTTP_SECRET, HPKE_HTTP_SECRET_NAME
from server_keys.client.httpx import async_sealed_client, sealed_client

# A request of 16 MiB may wait for long where others use the processors.
_TIMEOUT_S: Final = 60.0


class Caller(ABC):
    """A connected client."""

    @abstractmethod
    def echo(self, body: bytes, calls: int) -> list[float]:
        """Send `body` so often, one call after the other. Return how long each took, in seconds."""

    @abstractmethod
    def read_events(self, count: int) -> int:
        """Ask for a stream of events, and return how many bytes they were."""


def _timed(call: Callable[[], bytes], body: bytes) -> float:
    began = time.perf_counter()
    answer = call()
    took_s = time.perf_counter() - began
    assert answer == body
    return took_s


async def _timed_calls(call: Callable[[], Awaitable[httpx.Response]], body: bytes, calls: int) -> list[float]:
    times_s = []
    for _ in range(calls):
        began = time.perf_counter()
        answer = (await call()).content
        times_s.append(time.perf_counter() - began)
        assert answer == body
    return times_s


class _SyncCaller(Caller):
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def echo(self, body: bytes, calls: int) -> list[float]:
        return [_timed(lambda: self._client.post("/echo", content=body).content, body) for _ in range(calls)]

    def read_events(self, count: int) -> int:
        with self._client.stream("POST", f"/events/{count}", content=b"{}") as response:
            return sum(map(len, response.iter_bytes()))


class _TinfoilCaller(Caller):
    def __init__(self, client: ehbp.Client) -> None:
        self._client = client

    def echo(self, body: bytes, calls: int) -> list[float]:
        return [_timed(lambda: self._client.post("/echo", body=body).content, body) for _ in range(calls)]

    def read_events(self, count: int) -> int:
        with self._client.stream("POST", f"/events/{count}", body=b"{}") as response:
            return sum(map(len, response.iter_bytes()))


class _AsyncCaller(Caller):
    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def echo(self, body: bytes, calls: int) -> list[float]:
        return self._runner.run(_timed_calls(lambda: self._client.post("/echo", content=body), body, calls))

    def read_events(self, count: int) -> int:
        async def read() -> int:
            async with self._client.stream("POST", f"/events/{count}", content=b"{}") as response:
                return sum([len(piece) async for piece in response.aiter_bytes()])

        return self._runner.run(read())


class _HpkeHttpCaller(Caller):
    def __init__(self, runner: asyncio.Runner, client: HPKEAsyncClient, url: str) -> None:
        self._runner = runner
        self._client = client
        self._url = url

    def echo(self, body: bytes, calls: int) -> list[float]:
        url = f"{self._url}/echo"
        return self._runner.run(_timed_calls(lambda: self._client.post(url, content=body), body, calls))

    def read_events(self, count: int) -> int:
        async def read() -> int:
            async with self._client.stream("POST", f"{self._url}/events/{count}", content=b"{}") as response:
                return sum([len(block) async for block in response.iter_sse()])

        return self._runner.run(read())


class _WithoutTls(httpx.AsyncBaseTransport):
    """Sends by HTTP what a client insists on sending by HTTPS: TLS is no part of what is compared."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http")
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@contextlib.contextmanager
def _plain(url: str) -> Iterator[Caller]:
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
        yield _SyncCaller(client)


def _accepted(_key: bytes) -> None:
    """Accept a server's X25519 key. A client that checks that key alone seals to no other: it speaks plain EHBP."""


@contextlib.contextmanager
def _server_keys(url: str) -> Iterator[Caller]:
    with sealed_client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
        yield _SyncCaller(client)


@contextlib.contextmanager
def _server_keys_by_x25519(url: str) -> Iterator[Caller]:
    with sealed_client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, verify_key=_accepted) as client:
        yield _SyncCaller(client)


@contextlib.contextmanager
def _tinfoil(url: str) -> Iterator[Caller]:
    http_client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False)
    with ehbp.Client.discover(url, http_client=http_client) as client:
        yield _TinfoilCaller(client)


@contextlib.contextmanager
def _plain_async(url: str) -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        yield _AsyncCaller(runner, client)
        runner.run(client.aclose())


@contextlib.contextmanager
def _server_keys_async(url: str) -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        client = async_sealed_client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        yield _AsyncCaller(runner, client)
        runner.run(client.aclose())


@contextlib.contextmanager
def _server_keys_by_x25519_async(url: str) -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        client = async_sealed_client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, verify_key=_accepted)
        yield _AsyncCaller(runner, client)
        runner.run(client.aclose())


@contextlib.contextmanager
def _hpke_http(url: str) -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        logical_url = url.replace("http:", "https:", 1)

        async def connected() -> tuple[DiscoveredEndpoint, HPKEAsyncClient]:
            source = DiscoveredEndpoint(f"{logical_url}{HPKE_HTTP_PATH}", transport=_WithoutTls())
            client = HPKEAsyncClient(
                source, HPKE_HTTP_SECRET, HPKE_HTTP_SECRET_NAME, limits=HPKE_HTTP_LIMITS, timeout=_TIMEOUT_S
            )
            return source, client

        source, client = runner.run(connected())
        yield _HpkeHttpCaller(runner, client, logical_url)
        runner.run(client.aclose())
        runner.run(source.aclose())


@dataclass(frozen=True)
class Contestant:
    """A client, and the app that it talks to."""

    name: str
    protection: str
    """The app's, as `whole_server` calls it."""
    connected: Callable[[str], contextlib.AbstractContextManager[Caller]]
    """Takes the server's URL."""


PLAIN: Final = Contestant("unprotected", "plain", _plain)
OURS: Final = Contestant("server_keys", "server_keys", _server_keys)
OURS_BY_X25519: Final = Contestant("server_keys, X25519 alone", "server_keys", _server_keys_by_x25519)
TINFOIL: Final = Contestant("tinfoil-ehbp", "server_keys", _tinfoil)
PLAIN_ASYNC: Final = Contestant("unprotected, asyncio", "plain", _plain_async)
OURS_ASYNC: Final = Contestant("server_keys, asyncio", "server_keys", _server_keys_async)
OURS_BY_X25519_ASYNC: Final = Contestant(
    "server_keys, X25519 alone, asyncio", "server_keys", _server_keys_by_x25519_async
)
HPKE_HTTP: Final = Contestant("hpke-http, asyncio", "hpke_http", _hpke_http)
CONTESTANTS: Final = (
    OURS,
    OURS_BY_X25519,
    TINFOIL,
    PLAIN,
    OURS_ASYNC,
    OURS_BY_X25519_ASYNC,
    HPKE_HTTP,
    PLAIN_ASYNC,
)
