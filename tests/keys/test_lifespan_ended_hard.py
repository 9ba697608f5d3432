"""Ends of a lifespan that are no orderly shutdown: keys are erased, no task is left, and what ended it gets out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from server_keys import KeyRing, ephemeral_key_lifespan_factory
from tests.helpers.held_time import HeldTime, run_in_held_time

HARD_ENDS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("by the app"), GeneratorExit()]
hard_ends = pytest.mark.parametrize("end", HARD_ENDS, ids=lambda end: type(end).__name__)


class Lifespan:
    """A lifespan that raises where it is told to, and keeps the ring that it saw."""

    def __init__(self, *, at_start_up: BaseException | None = None, at_shutdown: BaseException | None = None) -> None:
        self.at_start_up = at_start_up
        self.at_shutdown = at_shutdown
        self.rings: list[KeyRing] = []
        self.app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(self.lifespan))

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.rings.append(app.state.ephemeral_keys)
        await asyncio.sleep(1)
        if self.at_start_up is not None:
            raise self.at_start_up
        yield
        await asyncio.sleep(1)
        if self.at_shutdown is not None:
            raise self.at_shutdown

    async def run(self) -> None:
        async with self.app.router.lifespan_context(self.app):
            await asyncio.sleep(1000)

    def assert_over(self) -> None:
        (ring,) = self.rings
        assert ring.status.closed
        assert not hasattr(self.app.state, "ephemeral_keys")


@hard_ends
@pytest.mark.parametrize("where", ["at_start_up", "at_shutdown"])
def test_what_the_wrapped_lifespan_ends_with_gets_out(end: BaseException, where: str) -> None:
    lifespan = Lifespan(**{where: end})

    async def main() -> None:
        with pytest.raises(type(end)) as caught:
            await lifespan.run()
        assert caught.value is end

    run_in_held_time(HeldTime(), main)
    lifespan.assert_over()


@pytest.mark.parametrize("end", HARD_ENDS[:3], ids=lambda end: type(end).__name__)
def test_what_the_server_ends_with_gets_out(end: BaseException) -> None:
    lifespan = Lifespan()

    async def serve() -> None:
        async with lifespan.app.router.lifespan_context(lifespan.app):
            raise end

    async def main() -> None:
        with pytest.raises(type(end)) as caught:
            await serve()
        assert caught.value is end

    run_in_held_time(HeldTime(), main)
    lifespan.assert_over()


def test_what_the_wrapped_lifespan_handles_goes_no_further() -> None:
    handled: list[LookupError] = []

    @asynccontextmanager
    async def handling(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        except LookupError as error:
            handled.append(error)

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(handling))
    error = LookupError()

    async def main() -> None:
        async with app.router.lifespan_context(app):
            raise error

    run_in_held_time(HeldTime(), main)
    assert handled == [error]


@pytest.mark.parametrize("after_s", [0.5, 10, 1000.5], ids=["start-up", "serving", "shutdown"])
def test_a_server_that_has_lost_its_patience_cancels_again_and_again(after_s: float) -> None:
    lifespan = Lifespan()

    async def main() -> None:
        task = asyncio.create_task(lifespan.run())
        await asyncio.sleep(after_s)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        await asyncio.sleep(0)  # the step in which the refreshing task ends

    run_in_held_time(HeldTime(), main)
    lifespan.assert_over()
