"""Where an app holds its key ring: `app.state.ephemeral_keys`."""

from typing import Any

from server_keys.key_ring import KeyRing

_NAME = "ephemeral_keys"


def held_ring(app: Any) -> KeyRing | None:
    """Return the ring that `app.state` holds; None without one, or without a state (vLLM deletes it on its way out)."""
    ring = getattr(getattr(app, "state", None), _NAME, None)
    return ring if isinstance(ring, KeyRing) else None


def required_ring(app: Any) -> KeyRing:
    """Return the ring that `app.state` holds.

    Raises:
        RuntimeError: it holds none; the message says how one gets there.
    """
    ring = held_ring(app)
    if ring is None:
        raise RuntimeError(
            "app.state.ephemeral_keys holds no key ring: no key lifespan is running for this app. Call protect(app), "
            "or create it with FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan)), or wrap the "
            "function that builds it with inject_key_lifespan. If you did, nobody runs its lifespan: in a test, enter "
            "the client (`with TestClient(app) as client:`); start uvicorn without `--lifespan off`. An app mounted "
            "under another has no lifespan of its own: do it for the outer app, and let the inner one use its ring: "
            "`inner.dependency_overrides[get_ephemeral_keys] = lambda: outer.state.ephemeral_keys`."
        )
    return ring


def put_ring(state: Any, ring: KeyRing) -> None:
    """Let `state` hold `ring`."""
    setattr(state, _NAME, ring)


def remove_ring(state: Any, ring: KeyRing) -> None:
    """Let `state` hold no ring, if it holds this one."""
    if getattr(state, _NAME, None) is ring:
        delattr(state, _NAME)
