"""Keys for as long as an app runs: the lifespan factory, the periodic refresh, the wrapper for build functions."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI

from server_keys import middleware
from server_keys.durations import overlap_seconds, positive_seconds
from server_keys.key_ring import KeyRing
from server_keys.middleware import BuildAppFunc
from server_keys.shared_ring import shared_ring
from server_keys.state import held_ring

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""A FastAPI lifespan, which yields None or a mapping of state: what `FastAPI(lifespan=...)` takes."""

# asyncio's clock stands still while the machine sleeps. So that a key whose time ran out meanwhile is wiped soon after
# the machine wakes, the refreshing task never sleeps longer than this.
_LONGEST_SLEEP_S = 1.0

_APPLIED = "_server_keys_applied"


def ephemeral_key_lifespan_factory(
    refresh_time: float, *, overlap: float | None = None
) -> Callable[[Lifespan | None], Lifespan]:
    """Return a function that wraps a FastAPI lifespan so that the app also has keys, refreshed periodically.

    `FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(my_lifespan))`. While the wrapped lifespan runs, from before
    its start-up until after its shutdown, `app.state.ephemeral_keys` is a `KeyRing`; then its keys are erased. What the
    wrapped lifespan yields and raises passes through unchanged. None stands for an app that has no lifespan. Wrapping
    twice has no effect: the first refresh time counts. Where several wrapped lifespans run for one app, such as its
    routers' or those of two servers, the one that starts first brings the keys for all, and the one that ends last
    takes them away. For servers on asyncio.

    Args:
        refresh_time: seconds between refreshes.
        overlap: seconds for which a replaced key is still accepted, from 0 to `refresh_time`; `refresh_time` by
            default.

    Raises:
        TypeError: a duration is not a number.
        ValueError: a duration is not finite or out of its range.
    """
    refresh_time = positive_seconds("refresh_time", refresh_time)
    overlap = overlap_seconds("overlap", overlap, refresh_time)

    def with_ephemeral_keys(lifespan: Lifespan | None) -> Lifespan:
        inner = _context_manager_of(lifespan)
        if _has_keys(inner):
            return inner

        @functools.wraps(inner, updated=())
        @asynccontextmanager
        async def lifespan_with_keys(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
            with shared_ring(app, refresh_time, overlap) as ring:
                async with _refreshed(ring), inner(app) as state:
                    yield state

        # Itself, not True: functools.wraps copies attributes to functions that need not call this one.
        setattr(lifespan_with_keys, _APPLIED, lifespan_with_keys)
        return lifespan_with_keys

    return with_ephemeral_keys


def inject_key_lifespan(
    build_app_func: BuildAppFunc, key_refresh_time_s: float, *, overlap_s: float | None = None
) -> middleware.BuildAppFunc:
    """Return a function like `build_app_func` whose app also has keys, refreshed periodically.

    For vLLM's `build_app`, or any function that returns a FastAPI app. The new function has the same name, docstring
    and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        key_refresh_time_s: seconds between refreshes.
        overlap_s: seconds for which a replaced key is still accepted, from 0 to `key_refresh_time_s`, which is the
            default.

    Raises:
        TypeError: `build_app_func` is no function, a duration is not a number; from the new function: `build_app_func`
            returned something else than a FastAPI app.
        ValueError: a duration is not finite or out of its range.
    """
    middleware.require_build_app_func(build_app_func)
    key_refresh_time_s = positive_seconds("key_refresh_time_s", key_refresh_time_s)
    overlap_s = overlap_seconds("overlap_s", overlap_s, key_refresh_time_s)
    with_ephemeral_keys = ephemeral_key_lifespan_factory(key_refresh_time_s, overlap=overlap_s)

    @functools.wraps(build_app_func)
    def build_app_with_keys(*args: Any, **kwargs: Any) -> FastAPI:
        app = middleware.built_app(build_app_func, *args, **kwargs)
        app.router.lifespan_context = with_ephemeral_keys(app.router.lifespan_context)
        return app

    return build_app_with_keys


async def periodic_refresh(app: FastAPI, period: float) -> None:
    """Refresh the key that the app's state holds, every `period` seconds, until cancelled or the ring is closed.

    A lifespan of `ephemeral_key_lifespan_factory` does this by itself. Started alone, as a task of your own lifespan,
    it also puts the `KeyRing` into `app.state.ephemeral_keys`, and takes it away and erases its keys when it is
    cancelled. Another one for the same app shares that ring, and ends with it.

    Args:
        app: the app.
        period: seconds between refreshes. A ring that is there already may refresh sooner by its own period; if this
            one is shorter than the ring's overlap, it also ends the time for which a replaced key is accepted.

    Raises:
        TypeError: `period` is not a number.
        ValueError: `period` is not finite and above zero.
    """
    period = positive_seconds("period", period)
    ring = held_ring(app)
    if ring is not None:
        await _keep_fresh(ring, period)
    else:
        with shared_ring(app, period, period) as ring:
            await _keep_fresh(ring, period)


async def _keep_fresh(ring: KeyRing, period_s: float) -> None:
    while (wait_s := ring.next_event_in_s(period_s)) is not None:
        await asyncio.sleep(min(wait_s, _LONGEST_SLEEP_S))
        ring.refresh_if_due(period_s)


@dataclass
class _Refresher:
    task: asyncio.Task[None]
    users: int = 0


# One for all lifespans that share a ring on one event loop.
_refreshers: dict[tuple[KeyRing, asyncio.AbstractEventLoop], _Refresher] = {}


@asynccontextmanager
async def _refreshed(ring: KeyRing) -> AsyncIterator[None]:
    key = ring, asyncio.get_running_loop()
    if key not in _refreshers:
        # Not a TaskGroup: it would wrap the exceptions of the wrapped lifespan into groups.
        task = asyncio.create_task(_keep_fresh(ring, ring.period_s), name="server_keys refresh")
        _refreshers[key] = _Refresher(task)
    refresher = _refreshers[key]
    refresher.users += 1
    try:
        yield
    finally:
        refresher.users -= 1
        if not refresher.users:
            del _refreshers[key]
            refresher.task.cancel()
            await asyncio.wait([refresher.task])


def _has_keys(lifespan: Lifespan) -> bool:
    return getattr(lifespan, _APPLIED, None) is lifespan


def _context_manager_of(lifespan: Lifespan | None) -> Lifespan:
    """Return `lifespan` in the one form that FastAPI's router itself uses; it takes bare generator functions, too."""
    if isinstance(lifespan, FastAPI):
        raise TypeError(
            "the lifespan must be a function that takes the app, not the app itself: write "
            "FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan)), with None for no lifespan of yours"
        )
    if lifespan is not None and not callable(lifespan):
        raise TypeError(f"the lifespan must be a function that takes the app, or None, not {lifespan!r}")
    context: Lifespan = APIRouter(lifespan=lifespan).lifespan_context
    return context
