"""What unfinished requests hold together is bounded, and whose client is idle is given up first."""

import asyncio
import os
import re
import signal
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing, inject_middleware, protect
from server_keys._sealing import request as request_module
from server_keys._sealing.buffers import GivenUpError, Holding, buffers_of_process
from tests.helpers.arriving_upload import ArrivingUpload, settled
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.sealed_requests import Client, ClientV1, assert_never_whole, unreachable

MIB = 1024 * 1024
MAX_FRAME = MIB
BOUND = 6 * MAX_FRAME
HALF = MAX_FRAME // 2
# What servers read at once of a connection, and may hold of one that goes on.
READ = 256 * 1024
# What half of a frame takes: a quarter more than has arrived, in steps of 64 KiB. There is room for six of them.
HELD = 640 * 1024 + READ
FULL = 6 * HELD


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    with KeyRing(300) as ring:
        yield ring


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    held = HeldTime()
    monkeypatch.setattr("time.clock_gettime", held.clock_gettime)
    return held


async def counts_bytes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body, or fail as Starlette does if the client is gone."""
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RuntimeError("the client is gone")
        length += len(message["body"])
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % length})


Wire = Callable[[KeyRing], Client | ClientV1]
WIRES: list[Wire] = [lambda ring: Client(ring.current), ClientV1]
both_wires = pytest.mark.parametrize("wire", WIRES, ids=["ehbp", "v1"])


def sealed(client: Client | ClientV1, length: int = MAX_FRAME - 16) -> list[bytes]:
    """Return a body of one long frame: its two halves, and whatever ends it."""
    frame, *end = client.seal(bytes(length))
    return [frame[:HALF], frame[HALF:] + b"".join(end)]


class Siege:
    """Uploads to one app whose bound is small."""

    def __init__(self, ring: KeyRing, app: ASGIApp = counts_bytes) -> None:
        self.ring = ring
        self.app = EncryptedBodyMiddleware(app, key_ring=ring, max_frame_bytes=MAX_FRAME, max_buffered_bytes=BOUND)
        self.uploads: list[ArrivingUpload] = []
        self.rests: dict[int, bytes] = {}

    async def half(self, wire: Wire = WIRES[0]) -> ArrivingUpload:
        """Start an upload, and let half of its frame arrive."""
        upload = ArrivingUpload(wire(self.ring))
        first, rest = sealed(upload.client)
        self.uploads.append(upload)
        self.rests[id(upload)] = rest
        upload.start(self.app)
        await upload.arrives(first)
        return upload

    async def ends(self, upload: ArrivingUpload) -> int | None:
        """Let the rest of an upload arrive, and return its status."""
        await upload.arrives(self.rests[id(upload)], more_body=False)
        assert upload.task is not None
        await upload.task
        return upload.status

    @property
    def held_bytes(self) -> int:
        buffers = self.ring.status.buffers
        assert buffers is not None
        assert buffers.most_bytes == BOUND
        assert buffers.held_bytes <= BOUND
        return buffers.held_bytes


@asynccontextmanager
async def siege(ring: KeyRing, app: ASGIApp = counts_bytes) -> AsyncIterator[Siege]:
    """Yield a siege. In the end nothing is held any more."""
    siege = Siege(ring, app)
    yield siege
    for upload in siege.uploads:
        await upload.disconnects()
        assert upload.task is not None
        await upload.task
    assert siege.held_bytes == 0


def in_held_time(held: HeldTime, main: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await main()

    run_in_held_time(held, run)


@both_wires
def test_at_the_bound_the_upload_that_is_idle_longest_is_given_up(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            uploads = []
            for _ in range(6):
                uploads.append(await besieged.half(wire))
                held.pass_s(1)
            # The first one's client goes on, so the second one has been idle longest.
            await uploads[0].arrives(b"")
            assert besieged.held_bytes == FULL
            newest = await besieged.half(wire)
            assert uploads[1].status == 408
            # It is answered at once: nobody waits for the rest of an idle client.
            assert uploads[1].response.headers["connection"] == "close"
            assert besieged.held_bytes == FULL
            assert ring.status.refusals == {"given_up": 1}
            others = (newest, uploads[0], *uploads[2:])
            for upload in others:
                await upload.arrives(b"")
            assert [await besieged.ends(upload) for upload in others] == [200] * 6

    in_held_time(held, main)


@both_wires
def test_where_no_client_is_idle_for_a_second_the_new_upload_is_refused(
    ring: KeyRing, held: HeldTime, wire: Wire
) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            uploads = [await besieged.half(wire) for _ in range(6)]
            held.pass_s(0.75)
            refused = await besieged.half(wire)
            # What it held is free at once, while the rest of its body is read.
            assert besieged.held_bytes == FULL
            assert await besieged.ends(refused) == 503
            assert refused.response.headers["retry-after"] == "1"
            assert "seal smaller frames" in refused.response.body.decode()
            assert ring.status.refusals == {"buffers_full": 1}
            assert [await besieged.ends(upload) for upload in uploads] == [200] * 6

    in_held_time(held, main)


@both_wires
def test_what_its_server_may_read_of_a_client_that_goes_on_counts(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            upload = ArrivingUpload(wire(ring))
            first, rest = sealed(upload.client)
            besieged.uploads.append(upload)
            upload.start(besieged.app)
            for start in range(0, HALF, 64 * 1024):
                await upload.arrives(first[start : start + 64 * 1024])
            # No more than came at once until now.
            assert besieged.held_bytes == HALF + 64 * 1024
            await upload.arrives(rest, more_body=False)
            assert upload.status == 200

    in_held_time(held, main)


class _Message(dict[str, Any]):
    """A message that can be referred to weakly."""


@both_wires
def test_what_has_been_taken_of_the_server_is_not_kept_until_more_comes(
    ring: KeyRing, held: HeldTime, wire: Wire
) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            for pieces in ([b"the beginning", bytes(HALF)], [bytes(HALF)]):
                upload = ArrivingUpload(wire(ring))
                besieged.uploads.append(upload)
                upload.start(besieged.app)
                for frame in upload.client.seal(*pieces)[: len(pieces)]:
                    message = _Message(type="http.request", body=frame[: len(frame) // 2], more_body=True)
                    taken = weakref.ref(message)
                    upload.incoming.put_nowait(message)
                    del message
                    await settled()
                    assert taken() is None
                    await upload.arrives(frame[len(frame) // 2 :])

    in_held_time(held, main)


@both_wires
def test_an_app_that_takes_its_time_costs_no_client_whose_frames_are_of_64_kib(
    ring: KeyRing, held: HeldTime, wire: Wire
) -> None:
    goes_on = asyncio.Event()

    async def waits_first(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        await counts_bytes(scope, receive, send)

    async def main() -> None:
        async with siege(ring, waits_first) as besieged:
            small = ArrivingUpload(wire(ring))
            besieged.uploads.append(small)
            pieces = small.client.seal(*[bytes(64 * 1024)] * 8)
            small.start(besieged.app)
            # A server hands over what it has read, which is more than one frame.
            await small.arrives(b"".join(pieces[:4]) + pieces[4][:50_000])
            assert besieged.held_bytes == 4 * 64 * 1024
            held.pass_s(60)
            for _ in range(10):
                await besieged.half()
            assert not small.is_over
            goes_on.set()
            await small.arrives(pieces[4][50_000:] + b"".join(pieces[5:]), more_body=False)
            assert small.status == 200
            assert b"".join(small.client.open(small.response)) == b"%d" % (8 * 64 * 1024)

    in_held_time(held, main)


@both_wires
def test_of_many_that_are_refused_not_all_are_read_on(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            uploads = [await besieged.half(wire) for _ in range(6)]
            refused = [await besieged.half(wire) for _ in range(70)]
            # The others have their answer at once. Their connections end a second later, unread.
            answered = [upload for upload in refused if upload.status is not None]
            assert [upload.status for upload in answered] == [503] * 6
            assert [upload.response.headers["connection"] for upload in answered] == ["close"] * 6
            for upload in answered:
                await upload.arrives(besieged.rests[id(upload)])
                assert upload.incoming.qsize() == 1
                assert not upload.is_over
            await asyncio.sleep(1)
            await settled()
            assert all(upload.is_over for upload in answered)
            read_on = [upload for upload in refused if upload not in answered]
            assert [await besieged.ends(upload) for upload in read_on] == [503] * 64
            assert not any(upload.is_over for upload in uploads)

    in_held_time(held, main)


@both_wires
def test_an_upload_that_trickles_is_not_given_up_while_there_is_room(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            slow = await besieged.half(wire)
            others = [await besieged.half(wire) for _ in range(3)]
            rest = besieged.rests[id(slow)]
            for start in range(0, 10_000, 1000):
                held.pass_s(3600)
                await slow.arrives(rest[start : start + 1000])
            besieged.rests[id(slow)] = rest[10_000:]
            assert [await besieged.ends(upload) for upload in (slow, *others)] == [200] * 4
            assert ring.status.refusals == {}

    in_held_time(held, main)


@both_wires
def test_no_siege_refuses_frames_of_64_kib(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            uploads = [await besieged.half(wire) for _ in range(6)]
            small = ArrivingUpload(wire(ring))
            pieces = small.client.seal(bytes(64 * 1024), bytes(64 * 1024), bytes(1000))
            small.start(besieged.app)
            for piece in pieces[:-1]:
                await small.arrives(piece[:60_000])
                await small.arrives(piece[60_000:])
            assert besieged.held_bytes == FULL
            await small.arrives(pieces[-1], more_body=False)
            assert small.task is not None
            await small.task
            assert small.status == 200
            assert b"".join(small.client.open(small.response)) == b"132072"
            assert ring.status.refusals == {}
            assert not any(upload.is_over for upload in uploads)

    in_held_time(held, main)


@dataclass
class Witness:
    """An app that notes what it receives, and answers first if it is told to."""

    answers_first: bool = False
    received: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.answers_first:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"beginning", "more_body": True})
        while (message := await receive())["type"] == "http.request":
            self.received.append(f"{len(message['body'])} bytes")
            if not message["more_body"]:
                break
        self.received.append(message["type"])
        if not self.answers_first:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"end"})


async def begun(besieged: Siege, wire: Wire) -> ArrivingUpload:
    """Start an upload whose first frame is opened, and let half of the second one arrive."""
    upload = ArrivingUpload(wire(besieged.ring))
    first, second, *_ = upload.client.seal(b"the beginning", bytes(MAX_FRAME - 16))
    besieged.uploads.append(upload)
    upload.start(besieged.app)
    await upload.arrives(first)
    await upload.arrives(second[:HALF])
    return upload


@both_wires
def test_the_app_of_an_upload_that_is_given_up_sees_a_client_that_is_gone(
    ring: KeyRing, held: HeldTime, wire: Wire
) -> None:
    async def main() -> None:
        witness = Witness()
        async with siege(ring, witness) as besieged:
            upload = await begun(besieged, wire)
            held.pass_s(1)
            for _ in range(6):
                await besieged.half(wire)
            assert witness.received == ["13 bytes", "http.disconnect"]
            # What the app answered is dropped: it saw only part of the request.
            assert upload.status == 408
            assert "ehbp-response-nonce" not in upload.response.headers

    in_held_time(held, main)


@both_wires
def test_a_response_that_has_begun_never_becomes_whole(ring: KeyRing, held: HeldTime, wire: Wire) -> None:
    async def main() -> None:
        witness = Witness(answers_first=True)
        async with siege(ring, witness) as besieged:
            upload = await begun(besieged, wire)
            held.pass_s(1)
            for _ in range(6):
                await besieged.half(wire)
            assert witness.received == ["13 bytes", "http.disconnect"]
            assert upload.is_over
            assert upload.status == 200
            assert_never_whole(upload.client, upload.response)

    in_held_time(held, main)


@both_wires
def test_an_upload_that_grows_where_there_is_no_room_ends_for_its_app_too(
    ring: KeyRing, held: HeldTime, wire: Wire
) -> None:
    async def main() -> None:
        witness = Witness()
        async with siege(ring, witness) as besieged:
            upload = ArrivingUpload(wire(ring))
            first, second, *end = upload.client.seal(b"the beginning", bytes(MAX_FRAME - 16))
            besieged.uploads.append(upload)
            upload.start(besieged.app)
            await upload.arrives(first)
            uploads = [await besieged.half(wire) for _ in range(6)]
            await upload.arrives(second[:HALF])
            assert witness.received == ["13 bytes", "http.disconnect"]
            assert besieged.held_bytes == FULL
            await upload.arrives(second[HALF:] + b"".join(end), more_body=False)
            assert upload.status == 503
            assert "ehbp-response-nonce" not in upload.response.headers
            assert not any(other.is_over for other in uploads)

    in_held_time(held, main)


def test_a_body_that_is_all_there_is_not_given_up(ring: KeyRing, held: HeldTime) -> None:
    goes_on = asyncio.Event()

    async def waits_first(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        await counts_bytes(scope, receive, send)

    async def main() -> None:
        async with siege(ring, waits_first) as besieged:
            whole = await besieged.half()
            await whole.arrives(besieged.rests[id(whole)], more_body=False)
            assert besieged.held_bytes == MAX_FRAME - 16
            held.pass_s(60)
            for _ in range(7):
                held.pass_s(1)
                await besieged.half()
            assert ring.status.refusals == {"given_up": 2}
            goes_on.set()
            await settled()
            assert whole.status == 200

    in_held_time(held, main)


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError("the app failed")


async def answers_without_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"enough"})


async def ends_well(besieged: Siege, upload: ArrivingUpload) -> None:
    await besieged.ends(upload)


async def is_malformed(besieged: Siege, upload: ArrivingUpload) -> None:
    await upload.arrives(bytes(len(besieged.rests[id(upload)])), more_body=False)


async def is_cut_off(besieged: Siege, upload: ArrivingUpload) -> None:
    await upload.arrives(b"", more_body=False)


async def client_goes(besieged: Siege, upload: ArrivingUpload) -> None:
    await upload.disconnects()


async def is_cancelled(besieged: Siege, upload: ArrivingUpload) -> None:
    assert upload.task is not None
    upload.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload.task
    besieged.uploads.remove(upload)


@both_wires
@pytest.mark.parametrize("app", [counts_bytes, fails, answers_without_reading])
@pytest.mark.parametrize("end", [ends_well, is_malformed, is_cut_off, client_goes, is_cancelled])
def test_whatever_ends_an_upload_frees_what_it_held(
    ring: KeyRing,
    held: HeldTime,
    wire: Wire,
    app: ASGIApp,
    end: Callable[[Siege, ArrivingUpload], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with siege(ring, app) as besieged:
            upload = await besieged.half(wire)
            assert besieged.held_bytes == HELD
            await end(besieged, upload)
            await settled()
            assert besieged.held_bytes == 0

    in_held_time(held, main)


def test_a_frame_that_is_too_long_after_one_that_is_not_frees_what_is_held(ring: KeyRing, held: HeldTime) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            upload = await besieged.half()
            await upload.arrives(besieged.rests[id(upload)] + b"\xff" * 4)
            assert besieged.held_bytes == 0

    in_held_time(held, main)


def test_frames_that_are_opened_by_another_thread_count_twice_meanwhile(
    ring: KeyRing, held: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_module, "_OFF_LOOP_BYTES", MAX_FRAME)

    async def main() -> None:
        async with siege(ring) as besieged:
            uploads = [await besieged.half() for _ in range(6)]
            # What arrived and what is to be opened do not have room together.
            assert [await besieged.ends(upload) for upload in uploads] == [503, 200, 200, 200, 200, 200]

    in_held_time(held, main)


def test_an_upload_that_is_cancelled_when_it_is_given_up_is_cancelled(ring: KeyRing, held: HeldTime) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            upload = await besieged.half()
            held.pass_s(1)
            others = [await besieged.half() for _ in range(5)]
            assert upload.task is not None
            newest = ArrivingUpload(Client(ring.current))
            newest.incoming.put_nowait({"type": "http.request", "body": sealed(newest.client)[0], "more_body": True})
            newest.start(besieged.app)
            besieged.uploads.append(newest)
            # This runs when the newest upload has given up the first one, and before that is woken.
            await asyncio.sleep(0)
            assert besieged.held_bytes == FULL
            upload.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upload.task
            assert ring.status.refusals == {}
            assert not any(other.is_over for other in (newest, *others))
            besieged.uploads.remove(upload)

    in_held_time(held, main)


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (4 * MAX_FRAME - 1, ValueError),
        (0, ValueError),
        (-1, ValueError),
        (1e9, TypeError),
        (True, TypeError),
        ("1000000000", TypeError),
        (None, TypeError),
    ],
)
def test_a_bound_that_cannot_be_is_refused_with_its_value(limit: object, error: type[Exception]) -> None:
    for make in (
        lambda: EncryptedBodyMiddleware(unreachable, max_frame_bytes=MAX_FRAME, max_buffered_bytes=limit),  # type: ignore[arg-type]
        lambda: protect(FastAPI(), max_frame_bytes=MAX_FRAME, max_buffered_bytes=limit),  # type: ignore[arg-type]
        lambda: inject_middleware(FastAPI, max_frame_bytes=MAX_FRAME, max_buffered_bytes=limit),  # type: ignore[arg-type]
    ):
        with pytest.raises(error, match=f"max_buffered_bytes must be .*{re.escape(str(limit))}"):
            make()


def test_the_default_is_right_for_a_gibibyte_and_for_the_longest_frames() -> None:
    EncryptedBodyMiddleware(unreachable, max_frame_bytes=64 * MIB)
    protect(FastAPI(), max_buffered_bytes=256 * MIB, max_frame_bytes=64 * MIB)


def test_a_second_call_with_another_bound_is_refused() -> None:
    app = protect(FastAPI(), max_buffered_bytes=100 * MIB)
    assert protect(app, max_buffered_bytes=100 * MIB) is app
    with pytest.raises(RuntimeError, match="max_buffered_bytes=104857600, and cannot have max_buffered_bytes="):
        protect(app)


def test_a_shared_ring_keeps_no_more_than_the_bytes_of_a_first_frame(
    ring: KeyRing, held: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def has_news(_ring: KeyRing) -> bool:
        return True

    monkeypatch.setattr(KeyRing, "is_shared", True)
    monkeypatch.setattr(KeyRing, "has_news", has_news)

    async def main() -> None:
        async with siege(ring) as besieged:
            upload = await besieged.half()
            # What arrived is there twice: for the opener, and for a second try.
            assert besieged.held_bytes == HELD + HALF
            rest = besieged.rests[id(upload)]
            tracemalloc.start()
            for start in range(10_000):
                upload.incoming.put_nowait({"type": "http.request", "body": rest[start : start + 1], "more_body": True})
                await asyncio.sleep(0)
            await settled()
            kept_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # A message of one byte would take hundreds of bytes.
            assert kept_bytes < 1_000_000
            besieged.rests[id(upload)] = rest[10_000:]
            assert await besieged.ends(upload) == 200
            stranger = ArrivingUpload(Client(KeyPair.generate()))
            besieged.uploads.append(stranger)
            stranger.start(besieged.app)
            for piece in sealed(stranger.client):
                await stranger.arrives(piece)
            # Two tries failed, and nothing is held while the rest is read.
            assert besieged.held_bytes == 0
            assert ring.status.refusals == {"key_mismatch": 1}
            await stranger.arrives(b"", more_body=False)
            assert stranger.status == 422

    in_held_time(held, main)


def test_no_siege_refuses_frames_of_64_kib_where_a_ring_is_shared(
    ring: KeyRing, held: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyRing, "is_shared", True)

    async def main() -> None:
        async with siege(ring) as besieged:
            small = ArrivingUpload(Client(ring.current))
            besieged.uploads.append(small)
            frame, *rest = small.client.seal(bytes(64 * 1024), b"the end")
            small.start(besieged.app)
            await small.arrives(frame[:60_000])
            assert besieged.held_bytes == 0
            held.pass_s(60)
            for _ in range(8):
                await besieged.half()
            await small.arrives(frame[60_000:])
            await small.arrives(b"".join(rest), more_body=False)
            assert small.status == 200

    in_held_time(held, main)


def test_an_upload_that_is_given_up_while_another_thread_counts_it_counts_no_more(
    ring: KeyRing, held: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_and_wake, seen = Holding.free_and_wake, list[str]()

    def counts_at_this_moment(holding: Holding) -> None:
        try:
            holding.hold(HALF, piece_bytes=HALF, waits=True, give_up=lambda: None)
        except GivenUpError as error:
            seen.append(type(error).__name__)
        free_and_wake(holding)

    monkeypatch.setattr(Holding, "free_and_wake", counts_at_this_moment)

    async def main() -> None:
        async with siege(ring) as besieged:
            first = await besieged.half()
            held.pass_s(1)
            for _ in range(6):
                await besieged.half()
            assert seen == ["GivenUpError"]
            assert first.status == 408
            assert besieged.held_bytes == FULL

    in_held_time(held, main)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")
def test_a_forked_child_counts_anew(ring: KeyRing) -> None:
    async def main() -> None:
        async with siege(ring) as besieged:
            await besieged.half()
            pid = os.fork()
            if pid == 0:
                os._exit(0 if besieged.held_bytes == 0 else 1)
            _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
            assert os.waitstatus_to_exitcode(status) == 0
            assert besieged.held_bytes == HELD

    asyncio.run(main())


def test_a_ring_that_opens_nothing_tells_of_no_memory() -> None:
    with KeyRing(300) as ring:
        assert ring.status.buffers is None
        assert KeyPair.generate().public_key


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")
def test_a_forked_child_waits_for_no_lock_of_its_parent(ring: KeyRing) -> None:
    async def main() -> None:
        holding = Holding(BOUND)
        holding.hold(HALF, piece_bytes=HALF, waits=True, give_up=lambda: None)
        with buffers_of_process()._lock:  # as another thread may at this moment
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                holding.release()
                os._exit(0)
            _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
        assert os.waitstatus_to_exitcode(status) == 0
        holding.release()
        assert buffers_of_process().status(BOUND).held_bytes == 0

    asyncio.run(main())


def test_servers_in_several_threads_share_the_bound(ring: KeyRing) -> None:
    """Each thread has an event loop; what one gives up for another is woken in its own."""
    together = threading.Barrier(4)

    async def main() -> tuple[int, list[int | None]]:
        most, statuses = 0, list[int | None]()
        async with siege(ring) as besieged:
            for turn in range(6):
                together.wait(60)
                uploads = [await besieged.half(WIRES[turn % 2]) for _ in range(4)]
                assert ring.status.buffers is not None
                most = max(most, ring.status.buffers.held_bytes)
                together.wait(60)
                await asyncio.sleep(0.01)
                for upload in uploads[turn % 3 :]:
                    await upload.disconnects()
                await settled()
                statuses += [upload.status for upload in uploads]
            for upload in besieged.uploads:
                await upload.disconnects()
                assert upload.task is not None
                await upload.task
            besieged.uploads.clear()
            together.wait(60)
        return most, statuses

    with ThreadPoolExecutor(4) as pool:
        results = [run.result() for run in [pool.submit(asyncio.run, main()) for _ in range(4)]]
    assert max(most for most, _ in results) <= BOUND
    assert {status for _, statuses in results for status in statuses} <= {None, 408, 503}
    assert sum(ring.status.refusals.values()) > 0
