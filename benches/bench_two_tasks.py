"""What protection costs a stream into which a second task of the app sends, as sse-starlette sends its pings."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benches.comparison import Comparison, Target
from benches.measure import Measure
from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._native import RequestSealer

PLAIN: Final = "unprotected"
PROTECTED: Final = "server_keys, protected"
_TOKENS: Final = 200
_CLIENT_TAKES_S: Final = 0.001
_PING_EVERY_S: Final = 0.02

STREAM: Final = Comparison(
    title="Streaming beside pings",
    description=(
        f"An app sends {_TOKENS} tokens while its second task sends a ping every {_PING_EVERY_S * 1000:.0f} ms, to a "
        f"client that takes {_CLIENT_TAKES_S * 1000:.0f} ms for each message; time is that of the whole stream, "
        "divided by the tokens. Sealed frames are numbered, so protected tasks take turns; unprotected ones need not."
    ),
    reference=PLAIN,
    speedup_title="rate against unprotected",
    targets=(
        Target(
            "Protected stream beside pings: at least 0.9 of the unprotected rate",
            lambda measured: measured.speedup(PROTECTED, PLAIN),
            at_least=0.9,
        ),
    ),
)
PINGS: Final = Comparison(
    title="Waiting of a ping",
    description="How long a ping of the same streams waits in `send`.",
    reference=PLAIN,
    speedup_title="unprotected against this",
)
COMPARISONS: Final = (STREAM, PINGS)


class _StreamBesidePings:
    """An ASGI app, and a server whose client is slow."""

    def __init__(self) -> None:
        self.ping_waits_s: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        pings = asyncio.create_task(self._ping(send))
        for _ in range(_TOKENS):
            await send({"type": "http.response.body", "body": b"token", "more_body": True})
        pings.cancel()
        await asyncio.wait([pings])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(_PING_EVERY_S)
            began = time.perf_counter()
            await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            self.ping_waits_s.append(time.perf_counter() - began)


async def _slow_send(message: Message) -> None:
    if message["type"] == "http.response.body":
        await asyncio.sleep(_CLIENT_TAKES_S)


def _served(app: ASGIApp, ring: KeyRing) -> Callable[[], Awaitable[None]]:
    """Return what serves one request, sealed where the app is protected."""
    sealer = RequestSealer(ring.current.public_key)
    body = sealer.seal(b"{}")
    headers = [(b"ehbp-encapsulated-key", sealer.encapsulated_key.hex().encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return lambda: app(scope, receive, _slow_send)


def _contestant(contestant: str, ring: KeyRing) -> tuple[Callable[[], None], _StreamBesidePings]:
    stream = _StreamBesidePings()
    app = EncryptedBodyMiddleware(stream, key_ring=ring) if contestant == PROTECTED else stream
    serve = _served(app, ring)

    async def serve_once() -> None:
        await serve()

    return lambda: asyncio.run(serve_once()), stream


@pytest.mark.parametrize("contestant", [PLAIN, PROTECTED])
def bench_stream_beside_pings(measure: Measure, contestant: str) -> None:
    with KeyRing(300) as ring:
        run, _ = _contestant(contestant, ring)
        measure(STREAM, contestant, run, operations=_TOKENS, rounds=2)


@pytest.mark.parametrize("contestant", [PLAIN, PROTECTED])
def bench_waiting_of_a_ping(measure: Measure, contestant: str) -> None:
    with KeyRing(300) as ring:
        run, stream = _contestant(contestant, ring)

        def waits_s() -> list[float]:
            run()
            return stream.ping_waits_s

        measure.samples(PINGS, contestant, waits_s)
