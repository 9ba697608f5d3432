"""Sealed calls that meet another host than the one whose key they use, and calls over kept connections."""

import contextlib
import http.client
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx2

from server_keys._clock import boot_time
from server_keys._native import RequestSealer
from server_keys._sealing.protocol import public_key_of
from server_keys.client.httpx2 import SealedTransport
from tests.helpers.many_calls import Client, Ended, Tally

_TIMEOUT_S = 30.0


def crossing(urls: Callable[[], Sequence[str]]) -> Client:
    """Return a client that fetches a host's key and sends a request sealed to it to another host, without a retry."""

    def client(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
        turn = 0
        while not ended():
            hosts = urls()
            if hosts:
                turn += 1
                tally.calls += 1
                try:
                    # Each pair of hosts has its turn.
                    _call(hosts[turn % len(hosts)], hosts[(turn + 1 + turn // len(hosts)) % len(hosts)], tally)
                except (OSError, http.client.HTTPException):
                    tally.cut += 1
            time.sleep(pause_s)

    return client


def _call(key_url: str, url: str, tally: Tally) -> None:
    status, configuration, _ = _ask(key_url, "GET", "/.well-known/hpke-keys")
    if status != 200:
        tally.failed.append(f"no key: {status} {configuration[:200]!r}")
        return
    sealer = RequestSealer(public_key_of(configuration))
    headers = {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()}
    status, body, answered = _ask(url, "POST", "/echo", sealer.seal(b"hello"), headers)
    tally.statuses[status] += 1
    if status != 200:
        tally.failed.append(f"{status} at {boot_time():.3f} from {url}: {body[:200]!r}")
        return
    opener = sealer.response_opener(bytes.fromhex(answered["Ehbp-Response-Nonce"]))
    opened = opener.feed(body)
    opener.finish()
    if opened != b'"hello"':
        tally.failed.append(repr(opened))


def _ask(
    url: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def kept_connection(url: str, tally: Tally, ended: Ended, pause_s: float) -> None:
    """Call through one client of ours that keeps its connection."""

    class Counting(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response = super().handle_request(request)
            tally.statuses[response.status_code] += 1
            return response

    with httpx2.Client(transport=SealedTransport(Counting(), one_connection=Counting), timeout=_TIMEOUT_S) as client:
        while not ended():
            text = str(tally.calls)
            try:
                response = client.post(f"{url}/echo", content=text)
            except httpx2.TransportError:
                tally.cut += 1
            else:
                if response.status_code != 200 or response.json() != text:
                    tally.failed.append(f"{response.status_code}: {response.text[:200]}")
            tally.calls += 1
            time.sleep(pause_s)
