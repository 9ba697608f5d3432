"""What is added to an app: keys and sealing. It gets each of them once, however often somebody asks."""

from collections.abc import Callable
from dataclasses import dataclass

# OpenTelemetry replaces `fastapi.FastAPI` by a subclass. Apps that were made before are no instances of that.
from fastapi.applications import FastAPI
from starlette.types import ASGIApp

from server_keys._keys.lifespan import Lifespan, applied_plan
from server_keys._keys.startup import StartupCheck
from server_keys._outermost import put_outermost
from server_keys._sealing.sealing_plan import SealingPlan
from server_keys._sharing.key_plan import KeyPlan

# An attribute of the app: what was added to it. The app's state would not do, because that may be deleted.
_ADDITIONS = "_server_keys_additions"


@dataclass(frozen=True)
class Additions:
    """The keys and the sealing that server_keys adds to an app."""

    keys: KeyPlan | None = None
    sealing: SealingPlan | None = None

    @classmethod
    def of(cls, app: FastAPI) -> "Additions":
        """Return what was added to `app` already."""
        additions = vars(app).get(_ADDITIONS)
        return additions if isinstance(additions, cls) else cls()

    def put_around(self, app: FastAPI) -> None:
        """Add to `app` what it does not have.

        Raises:
            RuntimeError: it has something of the kind that contradicts this.
        """
        has = self.of(app)
        if has.keys and self.keys:
            has.keys.require_same(self.keys)
        if has.sealing and self.sealing:
            has.sealing.require_compatible(self.sealing)
        both = Additions(has.keys or self.keys, has.sealing or self.sealing)
        if both != has:
            vars(app)[_ADDITIONS] = both
            put_outermost(app, both._around)

    def _around(self, app: ASGIApp) -> ASGIApp:
        if self.sealing:
            app = self.sealing.around(app)
        return StartupCheck(app, self.keys) if self.keys else app


def add(
    app: FastAPI, *, with_keys: Callable[[Lifespan | None], Lifespan] | None = None, sealing: SealingPlan | None = None
) -> None:
    """Add keys, sealing or both to `app`; add neither if one of them contradicts what the app has."""
    lifespan = with_keys(app.router.lifespan_context) if with_keys else app.router.lifespan_context
    keys = applied_plan(lifespan) if with_keys else None
    Additions(keys, sealing).put_around(app)
    app.router.lifespan_context = lifespan


def has_served(app: FastAPI) -> bool:
    """Return whether `app` was called before."""
    # The first call of an app builds its stack. So does OpenTelemetry's `uninstrument_app`, which sets this to False.
    return app.middleware_stack is not None and getattr(app, "_is_instrumented_by_opentelemetry", True)
