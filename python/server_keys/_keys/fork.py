"""What a forked child must not take over from its parent: locks that a thread holds which the child does not have."""

import os
import threading
import weakref
from typing import Protocol


class HasLock(Protocol):
    """An object with a reentrant lock."""

    _lock: threading.RLock


_owners: "weakref.WeakSet[HasLock]" = weakref.WeakSet()


def renew_lock_after_fork(owner: HasLock) -> None:
    """Give `owner` a lock of its own in every child that this process forks."""
    _owners.add(owner)


def _renew_locks() -> None:
    for owner in _owners:
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
