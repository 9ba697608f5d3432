"""How a request handler gets the key ring: a FastAPI dependency."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server_keys.key_ring import KeyRing
from server_keys.state import held_ring


def get_ephemeral_keys(connection: HTTPConnection) -> KeyRing:
    """Return the key ring of the app that serves this request or websocket.

    Raises:
        RuntimeError: no lifespan put a ring into `app.state`; the message says how one gets there.
    """
    ring = held_ring(connection.app)
    if ring is None:
        raise RuntimeError(
            "app.state.ephemeral_keys holds no key ring: no key lifespan is running for this app. Create it with "
            "FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan)), or wrap the function that builds it with "
            "inject_key_lifespan. In a test, enter the client (`with TestClient(app) as client:`): only then do lifespans "
            "run. An app mounted under another one has no lifespan of its own: use the outer app's ring."
        )
    return ring


EphemeralKeys = Annotated[KeyRing, Depends(get_ephemeral_keys)]
"""A parameter of this type is the app's key ring: `async def handler(keys: EphemeralKeys)`."""
