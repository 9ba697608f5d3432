"""ASGI middleware around a whole app, outside of the app's stack of middleware and whatever becomes of that stack."""

import functools
from collections.abc import Callable

from fastapi.applications import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

# An attribute of the app: the ASGI app that calls of the app go to.
_OUTERMOST = "_server_keys_outermost"
# An attribute of the app's new class: the call that the app had before.
_OWN_CALL = "_server_keys_own_call"


def put_outermost(app: FastAPI, around: Callable[[ASGIApp], ASGIApp]) -> None:
    """Make calls of `app` go to `around(own_call)`, where `own_call` is the call that the app had before.

    This replaces what an earlier call of this function put there. In every scope, "app" is `app`, and "root_path" is
    the app's own if it has one, as the app's own middleware finds them.

    Instrumentations replace an app's `build_middleware_stack`, restore it later, and refuse a stack that they do not
    know. So the stack stays as it is. Python looks for `__call__` in an object's class: `app` gets a subclass of its
    class, with the same name.
    """
    if not hasattr(type(app), _OWN_CALL):
        app.__class__ = _with_outermost(type(app))  # type: ignore[arg-type] # mypy asks whether apps can be hashed
    vars(app)[_OUTERMOST] = around(getattr(type(app), _OWN_CALL))


@functools.cache
def _with_outermost(app_class: type[FastAPI]) -> type[FastAPI]:
    async def own_call(scope: Scope, receive: Receive, send: Send) -> None:
        # Take the app from the scope: a shallow copy shares what was put around the original. Look `__call__` up each
        # time: Sentry replaces it in the class.
        await app_class.__call__(scope["app"], scope, receive, send)

    async def __call__(self: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        scope["app"] = self
        if self.root_path:
            scope["root_path"] = self.root_path
        outermost = vars(self).get(_OUTERMOST, own_call)  # `type(app)()` makes an app that has nothing around it
        await outermost(scope, receive, send)

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
