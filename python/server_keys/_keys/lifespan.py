"""Keys for as long as an app runs: the lifespan factory, and the task that refreshes a ring."""

import asyncio
import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

# OpenTelemetry replaces `fastapi.FastAPI` by a subclass. Apps that were made before are no instances of that.
from fastapi.applications import FastAPI

from server_keys._checks import overlap_seconds, period_seconds
from server_keys._keys.app_ring import app_ring, held_ring, serving, watch_ring
from server_keys._keys.ring import KeyRing
from server_keys._keys.schedule import Schedule
from server_keys._sharing.key_plan import KeyPlan

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""A FastAPI lifespan, which yields None or a mapping of state: what `FastAPI(lifespan=...)` takes."""

# asyncio's clock stands still while the machine sleeps. The refreshing task never waits longer than this, so that a key
# whose time ran out meanwhile is wiped soon after the machine wakes.
_LONGEST_SLEEP_S = 1.0

_HOW_TO_USE_THE_FACTORY = (
    "write FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan)), with None for no lifespan of yours"
)

# An attribute of a lifespan that gives keys: the lifespan itself, and the plan of its keys.
_APPLIED = "_server_keys_applied"


def ephemeral_key_lifespan_factory(
    refresh_time: float,
    *,
    overlap: float | None = None,
    share: str | None = "auto",
    group_secret_file: str | os.PathLike[str] | None = None,
) -> Callable[[Lifespan | None], Lifespan]:
    """Return a function that wraps a FastAPI lifespan so that the app also has keys, refreshed periodically.

    `FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(my_lifespan))`. `app.state.ephemeral_keys` is a `KeyRing` from
    before the wrapped start-up until after the wrapped shutdown; then its keys are erased. All that the wrapped
    lifespan yields and raises passes through unchanged. None stands for an app that has no lifespan. Wrapping twice
    with the same durations has no effect. Several wrapped lifespans of one app, such as its routers' or those of two
    servers, share one ring: the first to start makes it, and the last to end erases it. If their arguments differ, the
    second one's start-up raises RuntimeError. The server must run on asyncio.

    The workers of one server have one ring together, and so have all servers that use one Valkey: see `share`. Each
    keeps the keys of the others' making, and whichever comes first makes the next.

    Args:
        refresh_time: seconds between refreshes, from 0.01 to 31622400 (366 days).
        overlap: seconds for which a replaced key is still accepted, from 0 to `refresh_time`; `refresh_time` by
            default.
        share: the processes that have the same keys. `"auto"`: the workers of one server, on this host. None: each
            process has its own. `"file:///a/folder"`: all that use this folder, on this host. `"valkey://host"` or
            `"valkeys://host"` (TLS): all that use this Valkey or Redis with the same secret, on any host. Other values
            than None need a refresh time and an overlap of 0.5 s at least.
        group_secret_file: for Valkey, the file with the secret: 64 or more hex digits (`openssl rand -hex 32`), or two
            such secrets while one replaces the other. By default the environment variable
            SERVER_KEYS_GROUP_SECRET_FILE names it, or SERVER_KEYS_GROUP_SECRET holds the secret.

    Returns:
        A function that takes a lifespan, or None, and returns one that also gives the app its keys.

    Raises:
        TypeError: a duration is not a number, `share` is neither a str nor None; from the returned function: its
            argument is no lifespan.
        ValueError: a duration is out of its range, `share` has no known form or lacks its secret; from the lifespan:
            the folder or the secret cannot be used.
        RuntimeError: from the returned function: the lifespan is wrapped already, with other arguments; from the
            lifespan: the server does not run on asyncio.
    """
    if callable(refresh_time):
        given = f"{refresh_time!r} ({type(refresh_time).__name__})"
        raise TypeError(f"refresh_time must be a number of seconds, not {given}: {_HOW_TO_USE_THE_FACTORY}")
    refresh_time = period_seconds("refresh_time", refresh_time)
    schedule = Schedule(refresh_time, overlap_seconds("overlap", overlap, refresh_time))
    plan = KeyPlan.checked(schedule, share, group_secret_file)

    def with_ephemeral_keys(lifespan: Lifespan | None) -> Lifespan:
        inner = _context_manager_of(lifespan)
        applied = applied_plan(inner)
        if applied is not None:
            applied.require_same(plan)
            return inner

        @functools.wraps(inner, updated=())
        @asynccontextmanager
        async def lifespan_with_keys(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
            _require_asyncio()
            with app_ring(app, plan) as ring:
                await ring.ready()
                async with _refreshed(ring), _context_of(inner, app) as state:
                    with serving(ring):
                        yield state

        # The function itself tells it from wrappers: functools.wraps copies the attribute to them, and they may never
        # call it.
        setattr(lifespan_with_keys, _APPLIED, (lifespan_with_keys, plan))
        return lifespan_with_keys

    return with_ephemeral_keys


def applied_plan(lifespan: Lifespan) -> KeyPlan | None:
    """Return the plan of the keys that `lifespan` gives to its app; None if it gives none."""
    applied, plan = getattr(lifespan, _APPLIED, (None, None))
    return plan if applied is lifespan else None


async def periodic_refresh(app: FastAPI, period: float, *, share: str | None = "auto") -> None:
    """Refresh the key that the app's state holds, every `period` seconds, until cancelled or the ring is closed.

    A lifespan of `ephemeral_key_lifespan_factory` does this by itself. Without one, start this as a task of your own
    lifespan: it puts a `KeyRing` into `app.state.ephemeral_keys`, and when it is cancelled it takes the ring away and
    erases the keys. A second task for the same app shares that ring, and ends with it.

    Args:
        app: FastAPI application whose state holds the key pair.
        period: seconds between refreshes, from 0.01 to 31622400 (366 days). A ring that is there already may refresh
            sooner, by its own period. A period shorter than the ring's overlap also shortens the time for which a
            replaced key is accepted. A ring that is shared gets one new key a period, however many processes refresh
            it: the shortest period counts.
        share: with whom a ring is shared that this task makes, as for `ephemeral_key_lifespan_factory`.

    Raises:
        TypeError: `period` is not a number, `share` is neither a str nor None.
        ValueError: `period` is out of its range, `share` has no known form or cannot be used.
    """
    period = period_seconds("period", period)
    _require_asyncio()
    ring = held_ring(app)
    if ring is not None:
        watch_ring(app, ring)
        await _keep_fresh(ring, period)
    else:
        with app_ring(app, KeyPlan.checked(Schedule(period, period), share)) as ring:
            await ring.ready()
            with serving(ring):
                await _keep_fresh(ring, period)


def _require_asyncio() -> None:
    """Check that a loop of asyncio runs, uvloop's or another one.

    Raises:
        RuntimeError: none does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "keys are refreshed on asyncio, and no event loop of asyncio runs here. If the server runs on trio, start "
            "it on asyncio or uvloop: hypercorn without `--worker-class trio`, a TestClient without backend='trio'"
        ) from None


async def _keep_fresh(ring: KeyRing, period_s: float) -> None:
    while (wait_s := ring.next_event_in_s(period_s)) is not None:
        await asyncio.sleep(min(wait_s, _LONGEST_SLEEP_S))
        ring.refresh_if_due(period_s)


@dataclass
class _Refresher:
    task: asyncio.Task[None]
    users: int = 0


# One task serves all lifespans that share a ring on one event loop.
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


def _context_manager_of(lifespan: Lifespan | None) -> Lifespan:
    """Return `lifespan` as FastAPI's router would use it: the router also takes bare generator functions."""
    if isinstance(lifespan, FastAPI):
        raise TypeError(
            f"the lifespan must be a function that takes the app, not the app itself: {_HOW_TO_USE_THE_FACTORY}"
        )
    if lifespan is not None and not callable(lifespan):
        raise TypeError(f"the lifespan must be a function that takes the app, or None, not {lifespan!r}")
    if inspect.iscoroutinefunction(lifespan):
        raise TypeError(_not_a_context_manager(lifespan))
    context: Lifespan = APIRouter(lifespan=lifespan).lifespan_context
    return context


def _context_of(lifespan: Lifespan, app: FastAPI) -> AbstractAsyncContextManager[Any]:
    """Call `lifespan` and return the context manager that it made."""
    context = lifespan(app)
    if not hasattr(type(context), "__aenter__"):
        if inspect.iscoroutine(context):
            context.close()
        raise TypeError(_not_a_context_manager(lifespan))
    return context


def _not_a_context_manager(lifespan: object) -> str:
    return (
        f"the lifespan {getattr(lifespan, '__qualname__', repr(lifespan))} makes no async context manager: write "
        "`@contextlib.asynccontextmanager` above an `async def` function that takes the app, and in it `yield` where "
        "the app is to run"
    )
