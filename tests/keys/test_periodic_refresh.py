"""`periodic_refresh` on an event loop whose time the test holds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from server_keys import EntropyError, KeyPair, KeyRing, periodic_refresh
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.key_source import Source


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    held = HeldTime()
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    return held


@asynccontextmanager
async def refreshing(app: FastAPI, period: float) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(periodic_refresh(app, period))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_alone_it_brings_the_ring_and_takes_it_away(held: HeldTime) -> None:
    app = FastAPI()

    async def main() -> KeyRing:
        async with refreshing(app, 10) as task:
            ring: KeyRing = app.state.ephemeral_keys
            assert (ring.period_s, ring.overlap_s) == (10.0, 10.0)
            assert ring.status.key_id is not None
        assert task.cancelled()
        return ring

    assert run_in_held_time(held, main).status.closed
    assert not hasattr(app.state, "ephemeral_keys")


def test_it_keeps_refreshing_the_ring_that_is_there(held: HeldTime) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = ring = KeyRing(10, generate=source)

    async def main() -> None:
        async with refreshing(app, 10):
            await asyncio.sleep(25)

    run_in_held_time(held, main)
    assert app.state.ephemeral_keys is ring
    assert not ring.status.closed
    assert source.usable == [1, 2]


@pytest.mark.parametrize(("period", "passed_s"), [(10, 1000), (0.25, 40), (3600, 43200), (1, 60)])
def test_one_refresh_each_period_to_the_second(held: HeldTime, period: float, passed_s: float) -> None:
    app = FastAPI()
    made_at: list[float] = []
    source = Source()

    def generate() -> KeyPair:
        made_at.append(held.boot() - 1000)
        return source()

    app.state.ephemeral_keys = KeyRing(period, generate=generate)

    async def main() -> None:
        async with refreshing(app, period):
            await asyncio.sleep(passed_s + period / 2)

    run_in_held_time(held, main)
    assert made_at == [period * number for number in range(int(passed_s / period) + 1)]


def test_nobody_needs_to_use_a_pair_for_it_to_be_erased(held: HeldTime) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = KeyRing(10, overlap_s=4, generate=source)

    async def main() -> None:
        async with refreshing(app, 10):
            await asyncio.sleep(13.75)
            assert source.usable == [0, 1]
            await asyncio.sleep(0.5)
            assert source.usable == [1]
            await asyncio.sleep(10)
            assert source.usable == [2]

    run_in_held_time(held, main)


@pytest.mark.parametrize(("period", "refreshes"), [(2.5, 4), (30, 1)])
def test_the_shorter_of_the_periods_counts(held: HeldTime, period: float, refreshes: int) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = KeyRing(10, generate=source)

    async def main() -> None:
        async with refreshing(app, period):
            await asyncio.sleep(11)

    run_in_held_time(held, main)
    assert len(source.pairs) == 1 + refreshes


@pytest.mark.parametrize("error", [EntropyError("no"), MemoryError("none left"), ValueError("a fault of its own")])
def test_it_outlives_refreshes_that_fail(held: HeldTime, error: Exception) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = ring = KeyRing(10, overlap_s=4, generate=source)

    async def main() -> None:
        async with refreshing(app, 10) as task:
            source.error = error
            await asyncio.sleep(13.75)
            assert source.usable == [0]
            assert ring.current is source.pairs[0]
            # The end of the pair's time is not put off by a long wait for the next try.
            await asyncio.sleep(0.5)
            assert source.usable == []
            await asyncio.sleep(1000)
            assert not task.done()
            # With at most 5 s between tries, and never in a row without a pause.
            assert 200 <= ring.status.failures <= 430
            source.error = None
            await asyncio.sleep(5.25)
            assert ring.accepted == (source.pairs[1],)
            await asyncio.sleep(10)
            assert len(source.pairs) == 3

    run_in_held_time(held, main)


@pytest.mark.parametrize("asleep_s", [14, 3600])
def test_the_sleep_of_the_machine_is_noticed_within_a_second(held: HeldTime, asleep_s: float) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = KeyRing(10, overlap_s=4, generate=source)

    async def main() -> None:
        async with refreshing(app, 10):
            await asyncio.sleep(2.5)
            held.sleep_s(asleep_s)
            await asyncio.sleep(1.25)
            assert source.usable == [1]

    run_in_held_time(held, main)


def test_a_blocked_loop_makes_one_refresh_late_not_many_at_once(held: HeldTime) -> None:
    app = FastAPI()
    source = Source()
    app.state.ephemeral_keys = KeyRing(10, overlap_s=4, generate=source)

    async def main() -> None:
        async with refreshing(app, 10):
            await asyncio.sleep(5)
            held.pass_s(100)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert source.usable == [1]
            await asyncio.sleep(9)
            assert len(source.pairs) == 2
            await asyncio.sleep(1.25)
            assert len(source.pairs) == 3

    run_in_held_time(held, main)


def test_it_ends_when_its_ring_is_closed(held: HeldTime) -> None:
    app = FastAPI()
    app.state.ephemeral_keys = ring = KeyRing(10)

    async def main() -> None:
        async with refreshing(app, 10) as task:
            await asyncio.sleep(1.25)
            ring.close()
            await asyncio.sleep(1.25)
            assert task.done()
            assert not task.cancelled()

    run_in_held_time(held, main)


def test_something_else_in_the_state_is_not_taken_for_a_ring(held: HeldTime) -> None:
    app = FastAPI()
    app.state.ephemeral_keys = "a leftover"

    async def main() -> None:
        async with refreshing(app, 10):
            assert isinstance(app.state.ephemeral_keys, KeyRing)

    run_in_held_time(held, main)
