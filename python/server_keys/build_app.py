"""What changes an app: keys for as long as it runs, sealed bodies, or both."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from server_keys import middleware
from server_keys._checks import checked_max_frame_bytes, checked_required, overlap_seconds, period_seconds
from server_keys._keys.lifespan import Lifespan, ephemeral_key_lifespan_factory
from server_keys._sealing.middleware import EncryptedBodyMiddleware
from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.middleware import BuildAppFunc

# On the function that builds the app's stack: the `Sealing` that was put around it.
_APPLIED = "_server_keys_sealing"


def protect(
    app: FastAPI,
    refresh_time: float = 300,
    *,
    overlap: float | None = None,
    required: bool = False,
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
) -> FastAPI:
    """Give `app` ephemeral keys, and let it open sealed requests and seal their responses (EHBP).

    The same as `ephemeral_key_lifespan_factory` and `EncryptedBodyMiddleware` together. A second call has no effect.

    Args:
        app: the app, before it serves.
        refresh_time: seconds between refreshes of the key, from 0.01 to 31622400 (366 days).
        overlap: seconds for which a replaced key is still accepted, from 0 to `refresh_time`; `refresh_time` by
            default.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.

    Returns:
        `app` itself.

    Raises:
        RuntimeError: the app has begun to serve, or is protected already, but without `required`.
        TypeError: `app` is no FastAPI app, a duration is not a number, `required` is not a bool, the limit is not an
            int.
        ValueError: a duration or the limit is out of its range.
    """
    if not isinstance(app, FastAPI):
        raise TypeError(f"app must be a FastAPI app, not {app!r}")
    with_keys = ephemeral_key_lifespan_factory(refresh_time, overlap=overlap)
    sealing = _Sealing(required, max_frame_bytes)
    if app.middleware_stack is not None and _Sealing.of(app) is None:
        raise RuntimeError("the app has begun to serve: protect it before its first request")
    sealing.put_outside(app)
    _add_keys(app, with_keys)
    return app


def inject_key_lifespan(
    build_app_func: BuildAppFunc, key_refresh_time_s: float, *, overlap_s: float | None = None
) -> middleware.BuildAppFunc:
    """Return a function like `build_app_func` whose app also has keys, refreshed periodically.

    For vLLM's `build_app`, or any function that returns a FastAPI app. The new function has the same name, docstring
    and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        key_refresh_time_s: seconds between refreshes, from 0.01 to 31622400 (366 days).
        overlap_s: seconds for which a replaced key is still accepted, from 0 to `key_refresh_time_s`, which is the
            default.

    Raises:
        TypeError: `build_app_func` is no function, a duration is not a number; from the new function: `build_app_func`
            returned something else than a FastAPI app.
        ValueError: a duration is out of its range.
    """
    _require_build_app_func(build_app_func)
    key_refresh_time_s = period_seconds("key_refresh_time_s", key_refresh_time_s)
    overlap_s = overlap_seconds("overlap_s", overlap_s, key_refresh_time_s)
    with_keys = ephemeral_key_lifespan_factory(key_refresh_time_s, overlap=overlap_s)
    return _then(build_app_func, functools.partial(_add_keys, with_keys=with_keys))


def inject_middleware(
    build_app_func: BuildAppFunc, *, required: bool = False, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
) -> BuildAppFunc:
    """Return a function like `build_app_func` whose app also opens sealed requests and seals their responses.

    The app needs keys: `inject_key_lifespan(inject_middleware(build_app), 300)`. The new function has the same name,
    docstring and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.

    Raises:
        TypeError: `build_app_func` is no function, `required` is not a bool, the limit is not an int; from the new
            function: `build_app_func` returned something else than a FastAPI app.
        ValueError: `max_frame_bytes` is out of its range.
        RuntimeError: from the new function: the app is protected already, but without `required`.
    """
    _require_build_app_func(build_app_func)
    return _then(build_app_func, _Sealing(required, max_frame_bytes).put_outside)


@dataclass(frozen=True)
class _Sealing:
    """How an app is to seal bodies: the arguments of its `EncryptedBodyMiddleware`, checked."""

    required: bool
    max_frame_bytes: int

    def __post_init__(self) -> None:
        checked_required(self.required)
        checked_max_frame_bytes(self.max_frame_bytes)

    @classmethod
    def of(cls, app: FastAPI) -> "_Sealing | None":
        """Return how `app` seals already, or None."""
        sealing = getattr(app.build_middleware_stack, _APPLIED, None)
        return sealing if isinstance(sealing, cls) else None

    def put_outside(self, app: FastAPI) -> None:
        """Put the middleware outside of everything that `app` has, also of the middleware that answers errors.

        A second call for the same app has no effect.

        Raises:
            RuntimeError: the second call requires sealed bodies and the first did not.
        """
        applied = self.of(app)
        if applied is not None:
            if self.required and not applied.required:
                raise RuntimeError(
                    "the app is protected already, and takes bodies in plaintext: pass required=True to the call that "
                    "protected it first"
                )
            return
        build_inner_stack = app.build_middleware_stack

        def build_middleware_stack() -> ASGIApp:
            return self._around(build_inner_stack())

        setattr(build_middleware_stack, _APPLIED, self)
        # Starlette's own `add_middleware` puts everything inside of its ServerErrorMiddleware.
        app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]
        if app.middleware_stack is not None:
            # vLLM's `build_app` builds the stack before any request, for the sake of SageMaker's middleware.
            app.middleware_stack = self._around(app.middleware_stack)

    def _around(self, stack: ASGIApp) -> ASGIApp:
        return EncryptedBodyMiddleware(stack, required=self.required, max_frame_bytes=self.max_frame_bytes)


def _add_keys(app: FastAPI, with_keys: Callable[[Lifespan | None], Lifespan]) -> None:
    app.router.lifespan_context = with_keys(app.router.lifespan_context)


def _then(build_app_func: BuildAppFunc, change: Callable[[FastAPI], None]) -> BuildAppFunc:
    """Return a function like `build_app_func` that also makes `change` to the app that it builds."""

    @functools.wraps(build_app_func)
    def build_app(*args: Any, **kwargs: Any) -> FastAPI:
        app = _built_app(build_app_func, *args, **kwargs)
        change(app)
        return app

    return build_app


def _require_build_app_func(build_app_func: object) -> None:
    if not callable(build_app_func) or isinstance(build_app_func, FastAPI):
        raise TypeError(f"build_app_func must be a function that returns a FastAPI app, not {build_app_func!r}")


def _built_app(build_app_func: BuildAppFunc, *args: Any, **kwargs: Any) -> FastAPI:
    """Return what `build_app_func` builds, or raise TypeError if that is not a FastAPI app."""
    app = build_app_func(*args, **kwargs)
    if not isinstance(app, FastAPI):
        name = getattr(build_app_func, "__qualname__", repr(build_app_func))
        if inspect.iscoroutine(app):
            app.close()
            raise TypeError(f"{name} is a coroutine function: keys are added to functions that return the app itself")
        raise TypeError(f"{name} must return a FastAPI app, but returned {type(app).__name__}: {app!r:.80}")
    return app
