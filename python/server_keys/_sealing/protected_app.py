"""The app behind the middleware: the ring that has its keys, and who measures it."""

from typing import Any

from starlette.types import ASGIApp, Scope

from server_keys._keys.app_ring import held_ring, required_ring
from server_keys._keys.ring import KeyRing
from server_keys._sealing.recorder import Recorder, recorder_of


class ProtectedApp:
    """The app that a request, or a lifespan, is for.

    Args:
        app: what the middleware wraps. A scope may name the FastAPI app that contains it.
        key_ring: the keys; None where the app's state holds them.
    """

    def __init__(self, app: ASGIApp, key_ring: KeyRing | None) -> None:
        self._app = app
        self._key_ring = key_ring

    def recorder(self, scope: Scope) -> Recorder | None:
        """Return who measures the app, or None."""
        return recorder_of(self._of(scope))

    def ring(self, scope: Scope) -> KeyRing | None:
        """Return the ring, or None if there is none at the moment."""
        return self._key_ring or held_ring(self._of(scope))

    async def ready_ring(self, scope: Scope) -> KeyRing:
        """Return the ring when it has keys.

        Raises:
            KeysUnavailableError: there is no ring, or it gets none.
        """
        ring = self._key_ring or required_ring(self._of(scope))
        # A shared ring has no key for a moment after its process stood still for as long as keys live.
        await ring.ready()
        return ring

    def _of(self, scope: Scope) -> Any:
        return scope.get("app", self._app)
