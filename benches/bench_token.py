"""What a streamed token costs at least, and where the rest goes: the path of a token without a server."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from starlette.types import Message, Send

from benches.comparison import Comparison
from benches.measure import Measure
from benches.stream_app import EVENT
from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer, ResponseSealer
from server_keys._sealing.recorder import Measured
from server_keys._sealing.response import SealedResponse
from server_keys._sealing.wires import PlainResponse

TOKENS: Final = 10_000
NOTHING: Final = "a server that does nothing"
WRAPPED: Final = "one coroutine around it"
SEALED: Final = "that seals each token: the floor"
OURS: Final = "server_keys"

TOKEN: Final = Comparison(
    title="A token without a server",
    description=(
        f"An app sends tokens of {len(EVENT)} bytes to a `send` that does nothing, in a loop that does nothing else; "
        "times are for one token. Whatever an ASGI middleware does to a token, it costs one coroutine more. The floor "
        "of protection is that coroutine and one native call in it: AES-256-GCM and the framing, and a copy of the "
        "app's message around it. What is above the floor keeps tasks in turn that send at the same time. In a server "
        "each token is 20 bytes longer, too, and the same steps run between system calls: there, protection adds about "
        "twice as much as here."
    ),
    reference=OURS,
    speedup_title=f"speed against {OURS}",
)
COMPARISONS: Final = (TOKEN,)


async def _nothing(_message: Message) -> None: ...


def _sealer() -> ResponseSealer:
    pair = KeyPair.generate()
    client = RequestSealer(pair.public_key)
    server = RequestOpener(client.encapsulated_key, [pair])
    server.feed(client.seal(b"{}"))
    return server.response_sealer()


def _wrapped() -> Send:
    async def send(message: Message) -> None:
        await _nothing(message)

    return send


def _sealed() -> Send:
    seal_message = _sealer().seal_message

    async def send(message: Message) -> None:
        await _nothing(seal_message(message) or message)

    return send


def _ours() -> Send:
    return SealedResponse(PlainResponse(_sealer()), _nothing, Measured(), lambda: None).send_for_app()


CONTESTANTS: Final[dict[str, Callable[[], Send]]] = {
    NOTHING: lambda: _nothing,
    WRAPPED: _wrapped,
    SEALED: _sealed,
    OURS: _ours,
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("contestant", CONTESTANTS)
def bench_token(measure: Measure, runner: asyncio.Runner, contestant: str) -> None:
    send = CONTESTANTS[contestant]()

    async def start() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def stream() -> None:
        for _ in range(TOKENS):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})

    runner.run(start())
    measure(TOKEN, contestant, lambda: runner.run(stream()), operations=TOKENS, rounds=10)
