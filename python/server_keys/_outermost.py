"""Code around an app: outside of all that the app is made of, whatever becomes of its stack of middleware."""

import functools
from collections.abc import Callable

from fastapi.applications import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

# On the app: what is called in its place.
_OUTERMOST = "_server_keys_outermost"
# On the app's class: the call of the class that the app had before.
_OWN_CALL = "_server_keys_own_call"


def put_outermost(app: FastAPI, around: Callable[[ASGIApp], ASGIApp]) -> None:
    """Let those who call `app` call `around(own_call)` instead, where `own_call` is what they called before.

    It takes the place of what an earlier call of this function put there. In every scope, "app" is `app` and
    "root_path" is what FastAPI makes of it, as the app's own middleware finds them.

    An instrumentation may replace the app's `build_middleware_stack` and restore it later, and looks at the stack that
    it built. So the stack stays as it is. Python looks up how to call an object in its class: the app gets a subclass
    of the class that it has, by the same name.
    """
    if not hasattr(type(app), _OWN_CALL):
        app.__class__ = _with_outermost(type(app))  # type: ignore[arg-type] # mypy asks whether apps can be hashed
    vars(app)[_OUTERMOST] = around(getattr(type(app), _OWN_CALL))


@functools.cache
def _with_outermost(app_class: type[FastAPI]) -> type[FastAPI]:
    async def own_call(scope: Scope, receive: Receive, send: Send) -> None:
        # The app of the scope, not one app for ever: a shallow copy of an app shares what is around it. The class's
        # attribute, not a bound method: Sentry replaces it.
        await app_class.__call__(scope["app"], scope, receive, send)

    async def __call__(self: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        scope["app"] = self
        if self.root_path:
            scope["root_path"] = self.root_path
        await vars(self)[_OUTERMOST](scope, receive, send)

    return type(
        app_class.__name__,
        (app_class,),
        {
            "__module__": app_class.__module__,
            "__qualname__": app_class.__qualname__,
            "__doc__": app_class.__doc__,
            "__call__": __call__,
            _OWN_CALL: staticmethod(own_call),
        },
    )
