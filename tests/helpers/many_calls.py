"""Sealed calls, one after the other and each over a new connection, and a tally of what became of them."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import ehbp
import httpx
import httpx2

from server_keys._native import RequestSealer
from server_keys.client.httpx2 import AsyncSealedTransport, SealedTransport
from tests.helpers.sealed_requests import ClientV1

_NO_CONNECTION_TWICE = httpx2.Limits(max_keepalive_connections=0)
_ONE_CONNECTION = httpx2.Limits(max_connections=1)
_TIMEOUT_S = 30.0
_KEY_PATH = "/.well-known/hpke-keys"
_PUBLIC_KEY = slice(3, 35)
"""Where a key configuration has the public key (RFC 9458)."""


@dataclass
class Tally:
    """What became of calls."""

    calls: int = 0
    failed: list[str] = field(default_factory=list)
    """What went wrong with those that were not answered as they should be."""
    cut: int = 0
    """Calls that lost their connection: the worker died that had them."""
    statuses: Counter[int] = field(default_factory=Counter)
    """The responses on the wire, by their status."""

    @property
    def refusals(self) -> int:
        """How many responses on the wire were refusals of a key."""
        return self.statuses[422]

    def __str__(self) -> str:
        return f"{self.calls} calls, {len(self.failed)} failed, {self.cut} cut, {self.refusals} refusals of a key"


Ended = Callable[[], bool]
Client = Callable[[str, Tally, Ended, float], None]
"""Calls the server at a URL until it is to end, and keeps the tally."""


class _CountingTransport(httpx2.HTTPTransport):
    def __init__(self, tally: Tally, limits: httpx2.Limits) -> None:
        super().__init__(limits=limits)
        self._tally = tally

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        self._tally.statuses[response.status_code] += 1
        return response


class _AsyncCountingTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, tally: Tally, limits: httpx2.Limits) -> None:
        super().__init__(limits=limits)
        self._tally = tally

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        self._tally.statuses[response.status_code] += 1
        return response


def cached_key(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Call through one client of ours, which keeps the key for as long as the server says."""
    transport = SealedTransport(
        _CountingTransport(tally, _NO_CONNECTION_TWICE),
        one_connection=lambda: _CountingTransport(tally, _ONE_CONNECTION),
    )
    with httpx2.Client(transport=transport, timeout=_TIMEOUT_S) as client:
        while not ended():
            text = str(tally.calls)
            try:
                response = client.post(f"{url}/echo", content=text)
            except httpx2.TransportError:
                tally.cut += 1
            else:
                _count(tally, response, text)
            tally.calls += 1
            time.sleep(pause_s)


def async_cached_key(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Do the same through an async client."""

    async def call() -> None:
        transport = AsyncSealedTransport(
            _AsyncCountingTransport(tally, _NO_CONNECTION_TWICE),
            one_connection=lambda: _AsyncCountingTransport(tally, _ONE_CONNECTION),
        )
        async with httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT_S) as client:
            while not ended():
                text = str(tally.calls)
                try:
                    response = await client.post(f"{url}/echo", content=text)
                except httpx2.TransportError:
                    tally.cut += 1
                else:
                    _count(tally, response, text)
                tally.calls += 1
                await asyncio.sleep(pause_s)

    asyncio.run(call())


def new_clients(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Call through another tinfoil-ehbp client each time, which fetches the key and calls over one new connection."""
    while not ended():
        text = str(tally.calls)
        try:
            with ehbp.Client.discover(url) as client:
                response = client.request("POST", "/echo", body=text)
        except ehbp.KeyConfigMismatchError as error:
            tally.statuses[422] += 1
            tally.failed.append(repr(error))
        except httpx.TransportError:
            tally.cut += 1
        else:
            tally.statuses[response.status_code] += 1
            _count(tally, response, text)
        tally.calls += 1
        time.sleep(pause_s)


def without_second_try(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Fetch the key over one connection and call over another, and take a refusal for an answer."""
    with httpx2.Client(limits=_NO_CONNECTION_TWICE, timeout=_TIMEOUT_S) as client:
        while not ended():
            text = str(tally.calls)
            try:
                sealer = RequestSealer(client.get(f"{url}{_KEY_PATH}").content[_PUBLIC_KEY])
                headers = {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()}
                response = client.post(f"{url}/echo", content=sealer.seal(text.encode()), headers=headers)
            except httpx2.TransportError:
                tally.cut += 1
            else:
                tally.statuses[response.status_code] += 1
                if response.status_code == 200:
                    opener = sealer.response_opener(bytes.fromhex(response.headers["Ehbp-Response-Nonce"]))
                    assert json.loads(opener.feed(response.content)) == text
                else:
                    tally.failed.append(f"{response.status_code}: {response.content[:200]!r}")
            tally.calls += 1
            time.sleep(pause_s)


def by_version_1_without_second_try(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Do the same by version 1 of the wire, whose key every process must offer."""
    with httpx2.Client(limits=_NO_CONNECTION_TWICE, timeout=_TIMEOUT_S) as client:
        while not ended():
            text = str(tally.calls)
            try:
                sealing = ClientV1.of_answer(client.get(f"{url}{_KEY_PATH}").content, "POST", "/echo", has_body=True)
                content = b"".join(sealing.seal(text.encode()))
                response = client.post(f"{url}/echo", content=content, headers=dict(sealing.headers))
            except httpx2.TransportError:
                tally.cut += 1
            else:
                tally.statuses[response.status_code] += 1
                if response.status_code == 200:
                    opener = sealing.opener(200, response.headers["Ehbp-Response-Nonce"])
                    assert json.loads(opener.feed(response.content)) == text
                    opener.finish()
                else:
                    tally.failed.append(f"{response.status_code}: {response.content[:200]!r}")
            tally.calls += 1
            time.sleep(pause_s)


ALL_CLIENTS: tuple[Client, ...] = (
    cached_key,
    async_cached_key,
    new_clients,
    without_second_try,
    by_version_1_without_second_try,
)


class Calls:
    """Clients that call at the same time, each in a thread of its own."""

    def __init__(self, url: str, clients: Sequence[Client], pause_s: float) -> None:
        self._ends = threading.Event()
        self._errors: list[BaseException] = []
        self._tallies = [Tally() for _ in clients]
        self._threads = [
            threading.Thread(target=self._run, args=(client, url, tally, pause_s))
            for client, tally in zip(clients, self._tallies, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def tally(self) -> Tally:
        """What became of all calls until now."""
        return Tally(
            sum(tally.calls for tally in self._tallies),
            [failure for tally in self._tallies for failure in tally.failed],
            sum(tally.cut for tally in self._tallies),
            sum((tally.statuses for tally in self._tallies), Counter()),
        )

    def end(self) -> None:
        """Let the calls end that are under way, and make no others."""
        self._ends.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, client: Client, url: str, tally: Tally, pause_s: float) -> None:
        try:
            client(url, tally, self._ends.is_set, pause_s)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self._errors.append(error)


@contextmanager
def calls_meanwhile(url: str, clients: Sequence[Client] = ALL_CLIENTS, *, pause_s: float = 0.01) -> Iterator[Calls]:
    """Let clients call until the block ends, with a pause between calls."""
    calls = Calls(url, clients, pause_s)
    try:
        yield calls
    finally:
        calls.end()


def _count(tally: Tally, response: httpx2.Response | ehbp.client.Response, text: str) -> None:
    if response.status_code != 200 or response.json() != text:
        tally.failed.append(f"{response.status_code}: {response.content[:200]!r}")
