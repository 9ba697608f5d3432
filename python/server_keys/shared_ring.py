"""The key ring that all lifespans of one app share: the first brings it, the last takes it away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from fastapi import FastAPI

from server_keys.key_ring import KeyRing
from server_keys.state import held_ring, put_ring, remove_ring

# One app may be served by several servers of one process, each with a lifespan, and maybe a thread, of its own.
_lock = threading.Lock()
_users: WeakKeyDictionary[KeyRing, int] = WeakKeyDictionary()


@contextmanager
def shared_ring(app: FastAPI, period_s: float, overlap_s: float) -> Iterator[KeyRing]:
    """Yield the ring that `app.state` holds; a new one if there is none, which is closed when its last user leaves.

    Args:
        app: the app.
        period_s: the new ring's.
        overlap_s: the new ring's.
    """
    # A reference of its own: vLLM's lifespan deletes `app.state` on its way out.
    state = app.state
    with _lock:
        ring = held_ring(app)
        if ring is None or ring.status.closed:
            ring = KeyRing(period_s, overlap_s=overlap_s)
            _users[ring] = 0
            put_ring(state, ring)
        # A ring that is not ours is its owner's to close.
        is_ours = ring in _users
        if is_ours:
            _users[ring] += 1
    try:
        yield ring
    finally:
        with _lock:
            if is_ours:
                _users[ring] -= 1
            is_over = is_ours and _users[ring] == 0
            if is_over:
                remove_ring(state, ring)
        if is_over:
            ring.close()
