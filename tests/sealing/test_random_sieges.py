"""Whatever happens to uploads, what they hold is counted, and nothing is counted that nobody holds any more."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._native import KeyErasedError
from server_keys._sealing import admission
from server_keys._sealing import request as request_module
from server_keys._sealing.buffers import FREE_BYTES, Holding
from server_keys._sealing.request import SealedRequest
from tests.helpers.arriving_upload import ArrivingUpload, settled
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.sealed_requests import Client, ClientV1

STEPS = 400
MAX_FRAME = 1024 * 1024
BOUND = 6 * MAX_FRAME


class RandomApp:
    """An app that does with each request what chance says, and goes on when chance says so."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._standing: list[asyncio.Event] = []
        self.left_behind: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_answered = False
        while True:
            match self._chance.choice(["receive", "receive", "receive", "stand", "answer", "leave", "end", "fail"]):
                case "receive":
                    message = await receive()
                    if message["type"] != "http.request":
                        raise RuntimeError("the client is gone")
                case "stand":
                    self._standing.append(goes_on := asyncio.Event())
                    await goes_on.wait()
                case "answer" if not has_answered:
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    has_answered = True
                case "leave":  # a task that outlives the request, or competes for what arrives of it
                    task = asyncio.ensure_future(receive())
                    self.left_behind.add(task)
                case "end":
                    if not has_answered:
                        await send({"type": "http.response.start", "status": 200, "headers": []})
                    return await send({"type": "http.response.body", "body": b"end"})
                case "fail":
                    raise RuntimeError("the app failed")

    def goes_on(self, *, everywhere: bool = False) -> None:
        """Let one request go on that stands, or all of them."""
        while self._standing:
            self._standing.pop(self._chance.randrange(len(self._standing))).set()
            if not everywhere:
                return


class Ledger:
    """All requests that were made, to be compared with what is counted."""

    def __init__(self, ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ring = ring
        self._holdings: list[Holding] = []
        # A second try has the holding of the first one.
        self._requests: dict[Holding, SealedRequest] = {}

        class Noted(SealedRequest):
            def __init__(noted, *arguments: object) -> None:  # noqa: N805 - `self` is the ledger
                super().__init__(*arguments)  # type: ignore[arg-type]
                holding = arguments[-1]
                assert isinstance(holding, Holding)
                self._requests[holding] = noted

        def holding(most_bytes: int) -> Holding:
            self._holdings.append(Holding(most_bytes))
            return self._holdings[-1]

        monkeypatch.setattr(admission, "Holding", holding)
        monkeypatch.setattr(admission, "SealedRequest", Noted)

    def check(self) -> int:
        """Compare both, and return what is counted."""
        assert self._ring.status.buffers is not None
        counted = self._ring.status.buffers.held_bytes
        assert counted == sum(holding.counted_bytes for holding in self._holdings)
        assert all(holding.counted_bytes >= 0 for holding in self._holdings)
        for holding, request in self._requests.items():
            # No more is held than is counted or free: a frame, what is opened and what is kept.
            assert _held_bytes(request) <= holding.counted_bytes + 2 * FREE_BYTES
            if request._over:
                assert holding.counted_bytes <= holding._kept_bytes
        return counted


def _held_bytes(request: SealedRequest) -> int:
    try:
        return request._opener.held_bytes + len(request._opened)
    except KeyErasedError:
        return len(request._opened)


class RandomSiege:
    """Uploads to which chance happens."""

    def __init__(self, ring: KeyRing, seed: int) -> None:
        self.ring = ring
        self.chance = random.Random(seed)
        self.app = RandomApp(self.chance)
        self.protected = EncryptedBodyMiddleware(
            self.app, key_ring=ring, max_frame_bytes=MAX_FRAME, max_buffered_bytes=BOUND
        )
        self.open: dict[int, tuple[ArrivingUpload, bytearray]] = {}
        self.all: list[ArrivingUpload] = []

    async def step(self, held: HeldTime) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [*[self.begins] * 6, *[self.goes_on] * 20, *[self.app_goes_on] * 2]
        await self.chance.choice([*ways, self.ends, self.breaks, self.is_malformed])()
        if self.chance.random() < 0.2:
            held.pass_s(self.chance.choice([0.25, 1.0]))
        self.open = {key: both for key, both in self.open.items() if not both[0].is_over}

    async def begins(self) -> None:
        client = ClientV1(self.ring) if self.chance.random() < 0.5 else Client(self.ring.current)
        lengths = [
            self.chance.choice([10, 64 * 1024, MAX_FRAME - 16, MAX_FRAME - 16])
            for _ in range(self.chance.randint(1, 4))
        ]
        upload = ArrivingUpload(client)
        self.open[id(upload)] = upload, bytearray(b"".join(client.seal(*map(bytes, lengths))))
        self.all.append(upload)
        upload.start(self.protected)
        await settled()

    async def goes_on(self) -> None:
        for upload, rest in self._any():
            length = self.chance.choice([1, 1000, 60_000, 256 * 1024, 700_000])
            piece = bytes(rest[:length])
            del rest[:length]
            await upload.arrives(piece)

    async def ends(self) -> None:
        for upload, rest in self._any():
            await upload.arrives(bytes(rest), more_body=False)

    async def is_malformed(self) -> None:
        for upload, _ in self._any():
            await upload.arrives(b"\xff\xff\xff", more_body=self.chance.random() < 0.5)

    async def breaks(self) -> None:
        for upload, _ in self._any():
            if self.chance.random() < 0.5:
                await upload.disconnects()
            else:
                assert upload.task is not None
                upload.task.cancel()
                await settled()

    async def app_goes_on(self) -> None:
        self.app.goes_on()
        await settled()

    def _any(self) -> Iterator[tuple[ArrivingUpload, bytearray]]:
        if self.open:
            yield self.open[self.chance.choice(list(self.open))]

    async def is_over(self) -> None:
        """Let every client go, and every app go on."""
        while any(not upload.is_over for upload in self.all):
            for upload in self.all:
                if not upload.is_over:
                    await upload.disconnects()
            self.app.goes_on(everywhere=True)
            await asyncio.sleep(1)
        for upload in self.all:
            assert upload.task is not None
            with contextlib.suppress(asyncio.CancelledError):
                await upload.task
        for task in self.app.left_behind:
            task.cancel()
        await asyncio.wait(self.app.left_behind)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("off_loop", [False, True], ids=["on the loop", "off the loop"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_count_is_what_is_held(
    seed: int, off_loop: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldTime()
    monkeypatch.setattr("time.clock_gettime", held.clock_gettime)

    async def has_news(_ring: KeyRing) -> bool:
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(KeyRing, "is_shared", shared)
    monkeypatch.setattr(KeyRing, "has_news", has_news)
    if off_loop:
        monkeypatch.setattr(request_module, "_OFF_LOOP_BYTES", 300_000)

    async def main() -> None:
        with KeyRing(300) as ring:
            ledger = Ledger(ring, monkeypatch)
            siege = RandomSiege(ring, seed)
            most = 0
            await siege.begins()
            for _ in range(STEPS):
                await siege.step(held)
                most = max(most, ledger.check())
            assert most > BOUND / 2
            assert most <= BOUND + 10 * 700_000
            print(f"{len(siege.all)} uploads held {most} bytes at most; {dict(ring.status.refusals)}")
            await siege.is_over()
            assert ledger.check() == 0

    run_in_held_time(held, main)
