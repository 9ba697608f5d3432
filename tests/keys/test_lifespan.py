"""`ephemeral_key_lifespan_factory`: what wrapped lifespans see, yield and raise, and what becomes of the keys."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient

from server_keys import (
    KeyPair,
    KeyRing,
    Lifespan,
    ephemeral_key_lifespan_factory,
    inject_key_lifespan,
    periodic_refresh,
    protect,
)
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.servers import running


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    held = HeldTime()
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    return held


def ring_of(app: FastAPI) -> KeyRing:
    ring = app.state.ephemeral_keys
    assert isinstance(ring, KeyRing)
    return ring


def tasks_besides_this() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Recorder:
    """A lifespan that keeps what it saw at its start-up and at its shutdown."""

    def __init__(self) -> None:
        self.rings: list[KeyRing] = []
        self.pairs: list[KeyPair] = []
        self.shut_down = False

    @asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncIterator[dict[str, str]]:
        self.rings.append(ring_of(app))
        self.pairs.extend(ring_of(app).accepted)
        yield {"name": "of the wrapped lifespan"}
        assert not ring_of(app).current.erased
        self.pairs.extend(ring_of(app).accepted)
        self.shut_down = True


def test_keys_exist_before_the_start_up_and_until_after_the_shutdown(held: HeldTime) -> None:
    mine = Recorder()
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(mine))
    assert not hasattr(app.state, "ephemeral_keys")

    async def main() -> None:
        async with app.router.lifespan_context(app):
            assert ring_of(app) is mine.rings[0]
            assert (ring_of(app).period_s, ring_of(app).overlap_s) == (300.0, 300.0)
            assert tasks_besides_this() == ["server_keys refresh"]
        assert tasks_besides_this() == []

    run_in_held_time(held, main)
    assert mine.shut_down
    assert mine.rings[0].status.closed
    assert all(pair.erased for pair in mine.pairs)
    assert not hasattr(app.state, "ephemeral_keys")


def test_keys_are_refreshed_and_erased_on_time_while_the_app_runs(held: HeldTime) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(10, overlap=4)(None))

    async def main() -> None:
        async with app.router.lifespan_context(app):
            first = ring_of(app).current
            await asyncio.sleep(10.5)
            assert ring_of(app).status.refreshes == 1
            assert not first.erased
            await asyncio.sleep(4)
            assert first.erased
            await asyncio.sleep(86)
            assert ring_of(app).status.refreshes == 10

    run_in_held_time(held, main)


def test_keys_are_refreshed_also_during_a_long_start_up_and_shutdown(held: HeldTime) -> None:
    # A model takes minutes to load.
    refreshes: list[int] = []

    async def take_time(app: FastAPI) -> None:
        pair = ring_of(app).current
        await asyncio.sleep(1000)
        assert pair.erased
        refreshes.append(ring_of(app).status.refreshes)

    @asynccontextmanager
    async def slow(app: FastAPI) -> AsyncIterator[None]:
        await take_time(app)
        yield
        await take_time(app)

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(slow))

    async def main() -> None:
        async with app.router.lifespan_context(app):
            pass

    run_in_held_time(held, main)
    assert refreshes == [3, 6]


def test_what_the_wrapped_lifespan_yields_reaches_the_requests() -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(Recorder()))

    @app.get("/")
    async def name(request: Request) -> str:
        return str(request.state.name)

    with TestClient(app) as client:
        assert client.get("/").json() == "of the wrapped lifespan"


async def bare_async_generator(app: FastAPI) -> AsyncIterator[dict[str, bool]]:
    yield {"had_keys": not ring_of(app).status.closed}
    assert not ring_of(app).status.closed


def bare_generator(app: FastAPI) -> Iterator[dict[str, bool]]:
    yield {"had_keys": not ring_of(app).status.closed}
    assert not ring_of(app).status.closed


class Manager(AbstractAsyncContextManager[dict[str, bool]]):
    """A lifespan that is a class."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __aenter__(self) -> dict[str, bool]:
        return {"had_keys": not ring_of(self.app).status.closed}

    async def __aexit__(self, *_: object) -> None:
        assert not ring_of(self.app).status.closed


@pytest.mark.parametrize("form", [bare_async_generator, bare_generator, Manager])
def test_every_form_of_lifespan_that_fastapi_takes_is_taken(held: HeldTime, form: Any) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(form))

    async def main() -> None:
        async with app.router.lifespan_context(app) as state:
            assert state == {"had_keys": True}

    run_in_held_time(held, main)


def test_none_stands_for_no_lifespan(held: HeldTime) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))

    async def main() -> KeyRing:
        async with app.router.lifespan_context(app) as state:
            assert state is None
            return ring_of(app)

    assert run_in_held_time(held, main).status.closed


@pytest.mark.parametrize("no_lifespan", ["lifespan", 300, {"startup": None}])
def test_what_cannot_be_called_is_no_lifespan(no_lifespan: Any) -> None:
    with pytest.raises(TypeError, match="the lifespan must be a function that takes the app, or None, not ") as raised:
        ephemeral_key_lifespan_factory(300)(no_lifespan)
    assert repr(no_lifespan) in str(raised.value)


def test_an_app_is_no_lifespan() -> None:
    with pytest.raises(TypeError, match=r"not the app itself: write FastAPI\(lifespan=ephemeral_key_lifespan_factory"):
        ephemeral_key_lifespan_factory(300)(FastAPI())  # type: ignore[arg-type]
    # The second call forgotten.
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not the app itself"), TestClient(app):
        pass


async def coroutine_function(_app: FastAPI) -> None:
    """Prepare the app, without a `yield`."""


def plain_function(_app: FastAPI) -> None:
    """Prepare the app, without a `yield`."""


class CoroutineObject:
    async def __call__(self, _app: FastAPI) -> None:
        """Prepare the app, without a `yield`."""

    def __repr__(self) -> str:
        return "coroutine object"


WRITE_A_CONTEXT_MANAGER = "makes no async context manager: write `@contextlib.asynccontextmanager` above"


def test_a_coroutine_function_is_no_lifespan() -> None:
    said = f"the lifespan coroutine_function {WRITE_A_CONTEXT_MANAGER}"
    with pytest.raises(TypeError, match=said):
        ephemeral_key_lifespan_factory(300)(coroutine_function)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=said):
        protect(FastAPI(lifespan=coroutine_function))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=said):
        inject_key_lifespan(lambda: FastAPI(lifespan=coroutine_function), 300)()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (plain_function, "plain_function"),
        (CoroutineObject(), "coroutine object"),
        (functools.partial(lambda app: coroutine_function(app)), "functools.partial"),
    ],
)
def test_a_function_that_makes_no_context_manager_fails_at_the_start(held: HeldTime, form: Any, name: str) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(form))

    async def main() -> None:
        with pytest.raises(TypeError, match=f"the lifespan .*{name}.*{WRITE_A_CONTEXT_MANAGER}"):
            async with app.router.lifespan_context(app):
                pass

    run_in_held_time(held, main)
    assert not hasattr(app.state, "ephemeral_keys")


def test_the_factory_uncalled_is_no_lifespan() -> None:
    said = r"write FastAPI\(lifespan=ephemeral_key_lifespan_factory\(300\)\(your_lifespan\)\), with None for"
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=said) as raised, TestClient(app):
        pass
    assert str(raised.value).startswith("refresh_time must be a number of seconds, not <fastapi.applications.FastAPI")
    with pytest.raises(TypeError, match=said):
        ephemeral_key_lifespan_factory(Recorder())  # type: ignore[arg-type]


def test_the_wrapped_lifespan_keeps_its_name_and_docstring() -> None:
    @asynccontextmanager
    async def named(_app: FastAPI) -> AsyncIterator[None]:
        """Explain itself."""
        yield

    wrapped = ephemeral_key_lifespan_factory(300)(named)
    assert (wrapped.__name__, wrapped.__doc__) == ("named", "Explain itself.")


class CustomError(Exception):
    """An error of the user's own."""


def raising(error: BaseException, seen: list[KeyRing], *, at_start: bool) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append(ring_of(app))
        if at_start:
            raise error
        yield
        raise error

    return lifespan


@pytest.mark.parametrize("at_start", [True, False], ids=["start-up", "shutdown"])
@pytest.mark.parametrize(
    "error", [CustomError("mine"), RuntimeError("x"), ExceptionGroup("two", [ValueError("a")]), TimeoutError()]
)
def test_that_very_exception_comes_through_and_leaves_nothing(held: HeldTime, error: Exception, at_start: bool) -> None:
    seen: list[KeyRing] = []
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(raising(error, seen, at_start=at_start)))

    async def main() -> None:
        with pytest.raises(type(error)) as raised:
            async with app.router.lifespan_context(app):
                assert not at_start
        assert raised.value is error
        assert raised.value.__cause__ is None
        assert tasks_besides_this() == []

    run_in_held_time(held, main)
    assert seen[0].status.closed
    assert not hasattr(app.state, "ephemeral_keys")


def test_an_exception_of_the_app_passes_through_the_wrapped_lifespan(held: HeldTime) -> None:
    error = CustomError("while it ran")
    caught: list[BaseException] = []

    @asynccontextmanager
    async def mine(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        except CustomError as seen:
            caught.append(seen)
            raise

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(mine))

    rings: list[KeyRing] = []

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            rings.append(ring_of(app))
            raise error

    async def main() -> None:
        with pytest.raises(CustomError) as raised:
            await serve()
        assert raised.value is error

    run_in_held_time(held, main)
    assert caught == [error]
    assert rings[0].status.closed


@pytest.mark.parametrize("when", ["start-up", "running", "shutdown"])
def test_a_cancelled_lifespan_leaves_neither_keys_nor_tasks(held: HeldTime, when: str) -> None:
    rings: list[KeyRing] = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        rings.append(ring_of(app))
        await asyncio.sleep(1000 if when == "start-up" else 0)
        yield
        await asyncio.sleep(1000 if when == "shutdown" else 0)

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(mine))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(1000 if when == "running" else 0)

    async def main() -> None:
        serving = asyncio.create_task(serve())
        await asyncio.sleep(500)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert tasks_besides_this() == []

    run_in_held_time(held, main)
    assert rings[0].status.closed


def deletes_state(app: FastAPI) -> None:
    del app.state


def clears_state(app: FastAPI) -> None:
    del app.state.ephemeral_keys


def puts_another(app: FastAPI) -> None:
    app.state.ephemeral_keys = "something else"


@pytest.mark.parametrize("meddle", [deletes_state, clears_state, puts_another])
def test_a_lifespan_that_meddles_with_the_state_on_its_way_out(
    held: HeldTime, meddle: Callable[[FastAPI], None]
) -> None:
    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        yield
        meddle(app)

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(mine))

    async def main() -> KeyRing:
        async with app.router.lifespan_context(app):
            return ring_of(app)

    assert run_in_held_time(held, main).status.closed
    assert getattr(getattr(app, "state", None), "ephemeral_keys", None) in (None, "something else")


def test_wrapping_twice_makes_one_ring(held: HeldTime) -> None:
    once = ephemeral_key_lifespan_factory(300)(Recorder())
    twice = ephemeral_key_lifespan_factory(300, overlap=300)(once)
    assert twice is once
    app = FastAPI(lifespan=twice)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            assert ring_of(app).period_s == 300.0
            assert tasks_besides_this() == ["server_keys refresh"]

    run_in_held_time(held, main)


def test_a_lifespan_that_only_borrows_a_wrapped_ones_name_gets_keys(held: HeldTime) -> None:
    wrapped = ephemeral_key_lifespan_factory(300)(Recorder())

    @functools.wraps(wrapped)
    @asynccontextmanager
    async def instead(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(60)(instead))

    async def main() -> None:
        async with app.router.lifespan_context(app):
            assert ring_of(app).period_s == 60.0

    run_in_held_time(held, main)


def test_a_lifespan_around_a_wrapped_one_is_wrapped_itself(held: HeldTime) -> None:
    inner = ephemeral_key_lifespan_factory(300)(Recorder())

    @asynccontextmanager
    async def outer(app: FastAPI) -> AsyncIterator[None]:
        ring = ring_of(app)
        async with inner(app):
            assert ring_of(app) is ring
            yield
        assert not ring.status.closed

    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(outer))

    async def main() -> None:
        async with app.router.lifespan_context(app):
            assert tasks_besides_this() == ["server_keys refresh"]

    run_in_held_time(held, main)


def test_lifespans_of_routers_run_with_the_apps_keys(held: HeldTime) -> None:
    of_app, of_plain_router, of_wrapped_router = Recorder(), Recorder(), Recorder()
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(of_app))
    app.include_router(APIRouter(lifespan=of_plain_router))
    app.include_router(APIRouter(lifespan=ephemeral_key_lifespan_factory(300)(of_wrapped_router)))

    async def main() -> None:
        async with app.router.lifespan_context(app) as state:
            assert state == {"name": "of the wrapped lifespan"}
            assert of_app.rings == of_plain_router.rings == of_wrapped_router.rings == [ring_of(app)]
            assert ring_of(app).period_s == 300.0
            assert tasks_besides_this() == ["server_keys refresh"]

    run_in_held_time(held, main)
    assert of_app.shut_down
    assert of_plain_router.shut_down
    assert of_wrapped_router.shut_down
    assert of_app.rings[0].status.closed


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_of_two_servers_of_one_app_the_one_that_is_left_has_keys(held: HeldTime, first_to_end: int) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(10)(None))

    async def main() -> None:
        servers = AsyncExitStack(), AsyncExitStack()
        for server in servers:
            await server.enter_async_context(app.router.lifespan_context(app))
        ring = ring_of(app)
        await servers[first_to_end].aclose()
        assert tasks_besides_this() == ["server_keys refresh"]
        first = ring_of(app).current
        await asyncio.sleep(25)
        assert ring_of(app) is ring
        assert ring.status.refreshes == 2
        assert first.erased
        await servers[1 - first_to_end].aclose()
        assert ring.status.closed
        assert not hasattr(app.state, "ephemeral_keys")
        assert tasks_besides_this() == []

    run_in_held_time(held, main)


def test_of_two_servers_in_two_threads_the_one_that_is_left_refreshes() -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(0.05)(None))
    first, second = ExitStack(), ExitStack()
    with second:
        with first:
            first.enter_context(running(app))
            ring = ring_of(app)
            second.enter_context(running(app))
            assert ring_of(app) is ring
        assert not ring.status.closed
        refreshes = ring.status.refreshes
        # Reading the status refreshes nothing.
        assert eventually(lambda: ring.status.refreshes > refreshes + 1)
    assert ring.status.closed


def test_a_ring_that_somebody_put_there_is_refreshed_and_left_to_them(held: HeldTime) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))

    async def main() -> None:
        with KeyRing(10) as ring:
            app.state.ephemeral_keys = ring
            async with app.router.lifespan_context(app):
                first = ring.current
                await asyncio.sleep(25)
                assert first.erased
            assert ring_of(app) is ring
            assert not ring.status.closed

    run_in_held_time(held, main)


def test_an_app_can_be_started_again_with_new_keys(held: HeldTime) -> None:
    mine = Recorder()
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(mine))

    async def main() -> None:
        for _ in range(3):
            async with app.router.lifespan_context(app):
                await asyncio.sleep(1)

    run_in_held_time(held, main)
    assert all(ring.status.closed for ring in mine.rings)
    assert len(mine.rings) == len(set(map(id, mine.rings))) == 3
    assert len(set(mine.pairs)) == 3


def test_a_closed_ring_that_somebody_left_there_is_replaced(held: HeldTime) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))
    app.state.ephemeral_keys = left_there = KeyRing(300)
    left_there.close()

    async def main() -> None:
        async with app.router.lifespan_context(app):
            assert not ring_of(app).current.erased

    run_in_held_time(held, main)


def test_one_wrapped_lifespan_serves_many_apps(held: HeldTime) -> None:
    lifespan = ephemeral_key_lifespan_factory(300)(None)
    apps = FastAPI(lifespan=lifespan), FastAPI(lifespan=lifespan)

    async def main() -> None:
        async with apps[0].router.lifespan_context(apps[0]):
            async with apps[1].router.lifespan_context(apps[1]):
                assert ring_of(apps[0]).current != ring_of(apps[1]).current
            assert not ring_of(apps[0]).status.closed

    run_in_held_time(held, main)


@pytest.mark.parametrize(
    "started",
    [
        lambda app: ephemeral_key_lifespan_factory(300)(None)(app).__aenter__(),
        lambda app: ephemeral_key_lifespan_factory(300, share=None)(None)(app).__aenter__(),
        lambda app: periodic_refresh(app, 300),
        lambda app: periodic_refresh(app, 300, share=None),
    ],
    ids=["lifespan", "lifespan that shares nothing", "task", "task that shares nothing"],
)
def test_a_server_that_runs_on_something_else_than_asyncio_is_told_so(
    started: Callable[[FastAPI], Coroutine[Any, Any, object]],
) -> None:
    app = FastAPI()
    # As trio steps through coroutines: no event loop of asyncio knows of it.
    with pytest.raises(
        RuntimeError, match=r"no event loop of asyncio runs here.*hypercorn without `--worker-class trio`"
    ):
        started(app).send(None)
    assert not hasattr(app.state, "ephemeral_keys")
