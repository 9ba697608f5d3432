"""How an app holds its key ring: `app.state.ephemeral_keys`, one ring for all lifespans of the app."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from server_keys._keys.ring import KeyRing
from server_keys._sharing.join import ring_of
from server_keys._sharing.key_plan import KeyPlan
from server_keys.errors import KeysUnavailableError

_NAME = "ephemeral_keys"
# An attribute of the app: what watches its rings. The app's state would not do, because that may be deleted.
_WATCHER = "_server_keys_ring_watcher"

STATE_CHANGED = (
    "something replaced app.state, or removed app.state.ephemeral_keys, which held them. Set attributes of app.state, "
    "and leave the object itself in its place"
)
_NO_LIFESPAN = (
    "app.state.ephemeral_keys holds no key ring: no key lifespan is running for this app. Call protect(app), or create "
    "it with FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan)), or wrap the function that builds it "
    "with inject_key_lifespan. If you did, nobody runs its lifespan: in a test, enter the client "
    "(`with TestClient(app) as client:`); start uvicorn without `--lifespan off`. An app mounted under another has no "
    "lifespan of its own: do it for the outer app, and let the inner one use its ring: "
    "`inner.dependency_overrides[get_ephemeral_keys] = lambda: outer.state.ephemeral_keys`."
)

# Several servers of one process may serve one app. Each has a lifespan of its own, and may have a thread of its own.
_lock = threading.Lock()
# For each ring that a lifespan made: its app, once for every lifespan that uses the ring now.
_users: WeakKeyDictionary[KeyRing, list[FastAPI]] = WeakKeyDictionary()
_plans: WeakKeyDictionary[KeyRing, KeyPlan] = WeakKeyDictionary()
# For each of them, how many of its lifespans are between the end of their start-up and the beginning of their shutdown.
_serving: WeakKeyDictionary[KeyRing, int] = WeakKeyDictionary()
# For each app whose last start-up could not share its keys as it was asked to: why.
_refused: WeakKeyDictionary[FastAPI, str] = WeakKeyDictionary()


# Not a plain function: FastAPI would run it in its thread pool, where it waits for a free thread.
async def get_ephemeral_keys(connection: HTTPConnection) -> KeyRing:
    """Return the key ring of the app that serves this request or websocket.

    A dependency: `Depends(get_ephemeral_keys)`. Elsewhere, read `request.app.state.ephemeral_keys`.

    Args:
        connection: the request or the websocket. FastAPI passes it.

    Returns:
        The ring, whose `current` is the newest key pair.

    Raises:
        KeysUnavailableError: `app.state` holds no ring; the message says how one gets there.
    """
    return required_ring(connection.app)


EphemeralKeys = Annotated[KeyRing, Depends(get_ephemeral_keys)]
"""The type of a handler's parameter that receives the app's key ring: `async def handler(keys: EphemeralKeys)`."""


@contextmanager
def app_ring(app: FastAPI, plan: KeyPlan) -> Iterator[KeyRing]:
    """Yield the ring that `app.state` holds. If there is none, make one, and close it when its last user leaves.

    Raises:
        RuntimeError: another lifespan of the app made the ring that is there, with another plan.
        ValueError: the place or the secret for sharing cannot be used.
    """
    # Keep a reference to the state: vLLM's lifespan deletes `app.state` on its way out.
    state = app.state
    with _lock:
        held = held_ring(app)
        if held is None or held.status.closed:
            _refused.pop(app, None)
            try:
                held = ring_of(plan)
            except (ValueError, ImportError) as error:
                _refused[app] = f"the app has no keys: {error}"
                raise
            _users[held] = []
            _plans[held] = plan
            setattr(state, _NAME, held)
        ring: KeyRing = held
        # A ring that somebody else put there is theirs to close, and keeps their schedule.
        is_ours = ring in _users
        if is_ours:
            _plans[ring].require_same(plan)
            _users[ring].append(app)
    try:
        watch_ring(app, ring)
        yield ring
    finally:
        if is_ours:
            with _lock:
                _users[ring].remove(app)
                is_over = not _users[ring]
                if is_over and getattr(state, _NAME, None) is ring:
                    delattr(state, _NAME)
            if is_over:
                ring.close()


@contextmanager
def serving(ring: KeyRing) -> Iterator[None]:
    """Say that a lifespan which uses `ring` has started, until it begins to shut down."""
    with _lock:
        _serving[ring] = _serving.get(ring, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _serving[ring] -= 1


def is_serving(ring: KeyRing) -> bool:
    """Return whether any lifespan that uses `ring` has started and does not shut down yet.

    A ring that is somebody else's counts as serving, because nobody tells.
    """
    with _lock:
        return ring not in _users or _serving.get(ring, 0) > 0


def watch_rings_of(app: Any, watcher: Callable[[KeyRing], None]) -> None:
    """Let `watcher` watch the ring of `app`, and each one that it gets later."""
    vars(app)[_WATCHER] = watcher
    ring = held_ring(app)
    if ring is not None:
        watch_ring(app, ring)


def watch_ring(app: Any, ring: KeyRing) -> None:
    """Let the watcher of `app`, if it has one, watch `ring`."""
    watcher = getattr(app, _WATCHER, None)
    if watcher is not None:
        ring.watch(watcher)


def held_ring(app: Any) -> KeyRing | None:
    """Return the ring that `app.state` holds, or None. vLLM deletes the whole state on its way out."""
    ring = getattr(getattr(app, "state", None), _NAME, None)
    return ring if isinstance(ring, KeyRing) else None


def why_refused(app: FastAPI) -> str | None:
    """Return in one line why the app's start-up could not share its keys as it was asked to; None if it could."""
    with _lock:
        return _refused.get(app)


def has_running_key_lifespan(app: Any) -> bool:
    """Return whether a running lifespan made a ring for `app`, even if something has removed it from `app.state`."""
    with _lock:
        return any(user is app for users in _users.values() for user in users)


def required_ring(app: Any) -> KeyRing:
    """Return the ring that `app.state` holds.

    Raises:
        KeysUnavailableError: it holds none; the message says how one gets there.
    """
    ring = held_ring(app)
    if ring is None:
        raise KeysUnavailableError(
            f"the keys are gone: {STATE_CHANGED}" if has_running_key_lifespan(app) else _NO_LIFESPAN
        )
    return ring
