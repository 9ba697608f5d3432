"""Where an app holds its key ring: `app.state.ephemeral_keys`."""

from typing import Any

from server_keys.key_ring import KeyRing

_NAME = "ephemeral_keys"


def held_ring(app: Any) -> KeyRing | None:
    """Return the ring that `app.state` holds; None without one, or without a state (vLLM deletes it on its way out)."""
    ring = getattr(getattr(app, "state", None), _NAME, None)
    return ring if isinstance(ring, KeyRing) else None


def put_ring(state: Any, ring: KeyRing) -> None:
    """Let `state` hold `ring`."""
    setattr(state, _NAME, ring)


def remove_ring(state: Any, ring: KeyRing) -> None:
    """Let `state` hold no ring, if it holds this one."""
    if getattr(state, _NAME, None) is ring:
        delattr(state, _NAME)
