"""The ASGI middleware that opens sealed requests and seals their responses (EHBP), and how an app gets it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys import protocol_responses as respond
from server_keys._native import FrameTooLargeError, KeyMismatchError, MalformedMessageError, RequestOpener
from server_keys.ehbp import (
    DEFAULT_MAX_FRAME_BYTES,
    ENCAPSULATED_KEY_HEADER,
    KEY_CONFIG_PATH,
    bytes_of_header,
    checked_max_frame_bytes,
)
from server_keys.key_ring import KeyRing, KeysUnavailableError
from server_keys.sealed_exchange import OPENED, SealedExchange
from server_keys.state import required_ring

BuildAppFunc = Callable[..., FastAPI]
"""Builds a FastAPI app, such as vLLM's `build_app`. Its arguments are its own affair: vLLM's differ by version."""

_ENCAPSULATED_KEY = ENCAPSULATED_KEY_HEADER.lower().encode()
_UNSEALED_METHODS = frozenset({"HEAD", "OPTIONS"})
# On what builds the stack: whether sealing is required.
_APPLIED = "_server_keys_required"


class EncryptedBodyMiddleware:
    """Opens sealed requests frame by frame as they arrive, and seals each body message of the response at once.

    Requests without the header `Ehbp-Encapsulated-Key`, websockets and lifespans pass through. Serves the public key
    under `/.well-known/hpke-keys`. A request is decided on by its first frame before the app is called: 400 when
    malformed, 413 when a frame is too large, 422 when it is sealed to a key that is not accepted. HEAD and OPTIONS have
    no sealed form. The app finds `server_keys.opened` true in the scope of a request that arrived sealed. What several
    of its tasks send at once leaves one after the other. Frames are numbered: one whose sending is cancelled while the
    server holds it back is missed by the client, who refuses the rest.

    Args:
        app: the ASGI app.
        key_ring: the keys; by default those that a key lifespan put into `app.state`.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 1 byte to 64 MiB.

    Raises:
        TypeError: `required` is not a bool, `max_frame_bytes` is not an int.
        ValueError: `max_frame_bytes` is out of its range.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key_ring: KeyRing | None = None,
        required: bool = False,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> None:
        self.app = app
        self._key_ring = key_ring
        self._required = _checked_required(required)
        self._max_frame_bytes = checked_max_frame_bytes(max_frame_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] != "http" or OPENED in scope:  # by another of this kind, outside of this one
            return await self.app(scope, receive, send)
        if _path_in_app(scope) == KEY_CONFIG_PATH and scope["method"] != "OPTIONS":
            return await self._publish_key(scope, send)
        if scope["method"] in _UNSEALED_METHODS:
            serve = self._serve_without_body if self._required else self.app
            return await serve(scope, receive, send)
        keys = [value for name, value in scope["headers"] if name == _ENCAPSULATED_KEY]
        if keys:
            return await self._serve_sealed(keys, scope, receive, send)
        if self._required:
            return await self._serve_without_body(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _publish_key(self, scope: Scope, send: Send) -> None:
        send = respond.to_any_page(scope, send)
        if scope["method"] not in ("GET", "HEAD"):
            return await respond.method_not_allowed(send, allowed="GET, HEAD")
        try:
            ring = self._ring(scope)
            public_key, accepted_for_s = ring.current.public_key, ring.current_accepted_for_s
        except KeysUnavailableError as error:
            return await respond.keys_unavailable(send, error)
        await respond.key_configuration(send, public_key, accepted_for_s, body=scope["method"] == "GET")

    async def _serve_sealed(self, keys: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        refuse = respond.to_any_page(scope, send)
        try:
            (encapsulated_key,) = keys
            opener = RequestOpener(
                bytes_of_header(encapsulated_key.decode("latin-1")),
                self._ring(scope).accepted,
                max_frame_bytes=self._max_frame_bytes,
            )
            exchange = SealedExchange(opener, receive, send)
            has_body = await exchange.open_first_frame()
        except KeysUnavailableError as error:
            return await respond.keys_unavailable(refuse, error)
        except KeyMismatchError:
            return await respond.key_mismatch(refuse)
        except FrameTooLargeError as error:
            return await respond.frame_too_large(refuse, error)
        except (MalformedMessageError, ValueError):
            return await respond.malformed(refuse)
        if has_body is None:  # the client is gone
            return None
        if not has_body:
            return await self.app(scope, respond.empty_body(receive), send)
        await exchange.serve(self.app, scope)

    async def _serve_without_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            if message.get("body"):
                return await respond.sealing_required(respond.to_any_page(scope, send))
            if not message.get("more_body", False):
                return await self.app(scope, respond.empty_body(receive), send)
        return None  # the client is gone

    def _ring(self, scope: Scope) -> KeyRing:
        return self._key_ring or required_ring(scope.get("app", self.app))


def _path_in_app(scope: Scope) -> str:
    path: str = scope["path"]
    root_path = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path


def inject_middleware(
    build_app_func: BuildAppFunc, *, required: bool = False, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
) -> BuildAppFunc:
    """Return a function like `build_app_func` whose app also opens sealed requests and seals their responses.

    It needs keys: `inject_key_lifespan(inject_middleware(build_app), 300)`. The new function has the same name,
    docstring and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 1 byte to 64 MiB.

    Raises:
        TypeError: `build_app_func` is no function, `required` is not a bool, the limit is not an int; from the new
            function: it returned something else than a FastAPI app.
        ValueError: `max_frame_bytes` is out of its range.
        RuntimeError: from the new function: the app is protected already, but without `required`.
    """
    require_build_app_func(build_app_func)
    _checked_required(required)
    checked_max_frame_bytes(max_frame_bytes)

    @functools.wraps(build_app_func)
    def build_app_with_middleware(*args: Any, **kwargs: Any) -> FastAPI:
        app = built_app(build_app_func, *args, **kwargs)
        put_middleware_outside(app, required=required, max_frame_bytes=max_frame_bytes)
        return app

    return build_app_with_middleware


def put_middleware_outside(app: FastAPI, *, required: bool, max_frame_bytes: int) -> None:
    """Put `EncryptedBodyMiddleware` outside of everything that `app` has, also of the middleware that answers errors.

    A second call for the same app has no effect.

    Raises:
        RuntimeError: the second call requires what the first did not.
        TypeError: `required` is not a bool.
    """
    _checked_required(required)
    if is_outside(app):
        if required and not getattr(app.build_middleware_stack, _APPLIED):
            raise RuntimeError(
                "the app is protected already, and takes bodies in plaintext: say required=True where that was done"
            )
        return
    build_inner_stack = app.build_middleware_stack

    def outside_of(stack: ASGIApp) -> ASGIApp:
        return EncryptedBodyMiddleware(stack, required=required, max_frame_bytes=max_frame_bytes)

    def build_middleware_stack() -> ASGIApp:
        return outside_of(build_inner_stack())

    setattr(build_middleware_stack, _APPLIED, required)
    # Starlette's own `add_middleware` puts everything inside of its ServerErrorMiddleware.
    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]
    if app.middleware_stack is not None:
        # vLLM's `build_app` builds it before any request, for the sake of SageMaker's middleware.
        app.middleware_stack = outside_of(app.middleware_stack)


def is_outside(app: FastAPI) -> bool:
    """Whether `put_middleware_outside` was here."""
    return hasattr(app.build_middleware_stack, _APPLIED)


def _checked_required(value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"required must be True or False, not {value!r}")
    return value


def require_build_app_func(build_app_func: object) -> None:
    """Check that `build_app_func` is a function, and not an app that was built already.

    Raises:
        TypeError: it is not.
    """
    if not callable(build_app_func) or isinstance(build_app_func, FastAPI):
        raise TypeError(f"build_app_func must be a function that returns a FastAPI app, not {build_app_func!r}")


def built_app(build_app_func: BuildAppFunc, *args: Any, **kwargs: Any) -> FastAPI:
    """Return what `build_app_func` builds.

    Raises:
        TypeError: it is not a FastAPI app.
    """
    app = build_app_func(*args, **kwargs)
    if not isinstance(app, FastAPI):
        name = getattr(build_app_func, "__qualname__", repr(build_app_func))
        if inspect.iscoroutine(app):
            app.close()
            raise TypeError(f"{name} is a coroutine function: keys are added to functions that return the app itself")
        raise TypeError(f"{name} must return a FastAPI app, but returned {type(app).__name__}: {app!r:.80}")
    return app
