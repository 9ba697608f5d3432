"""How a request handler gets the key ring: a FastAPI dependency."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server_keys.key_ring import KeyRing
from server_keys.state import required_ring


def get_ephemeral_keys(connection: HTTPConnection) -> KeyRing:
    """Return the key ring of the app that serves this request or websocket.

    Raises:
        RuntimeError: no lifespan put a ring into `app.state`; the message says how one gets there.
    """
    return required_ring(connection.app)


EphemeralKeys = Annotated[KeyRing, Depends(get_ephemeral_keys)]
"""A parameter of this type is the app's key ring: `async def handler(keys: EphemeralKeys)`."""
