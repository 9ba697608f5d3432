"""The ASGI middleware that opens sealed requests and seals their responses (EHBP)."""

from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys._checks import checked_max_frame_bytes, checked_required
from server_keys._keys.app_ring import required_ring
from server_keys._keys.ring import KeyRing
from server_keys._native import FrameTooLargeError, KeyMismatchError, MalformedMessageError, RequestOpener
from server_keys._sealing import answers
from server_keys._sealing.protocol import (
    DEFAULT_MAX_FRAME_BYTES,
    ENCAPSULATED_KEY_HEADER,
    KEY_CONFIG_PATH,
    bytes_of_header,
)
from server_keys._sealing.request import OPENED, SealedRequest
from server_keys.errors import KeysUnavailableError

_ENCAPSULATED_KEY = ENCAPSULATED_KEY_HEADER.lower().encode()
_UNSEALED_METHODS = frozenset({"HEAD", "OPTIONS"})


class EncryptedBodyMiddleware:
    """Opens sealed requests frame by frame as they arrive, and seals each body message of the response at once.

    It publishes the public key under `/.well-known/hpke-keys`. Requests without the header `Ehbp-Encapsulated-Key`,
    websockets and lifespans pass through. The first frame of a request decides, before the app is called: 400 if it is
    malformed, 413 if it is too large, 422 if it is sealed to a key that is not accepted. HEAD and OPTIONS have no
    sealed form. In the scope of a request that arrived sealed, the app finds `server_keys.opened` true. Messages that
    several of its tasks send at the same time leave one after the other. Frames are numbered: a `send` that is
    cancelled while the server holds it loses its frame; the client sees the gap and refuses the rest.

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
        self._required = checked_required(required)
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
        send = answers.to_any_page(scope, send)
        if scope["method"] not in ("GET", "HEAD"):
            return await answers.method_not_allowed(send, allowed="GET, HEAD")
        try:
            ring = self._ring(scope)
            public_key, accepted_for_s = ring.current.public_key, ring.current_accepted_for_s
        except KeysUnavailableError as error:
            return await answers.keys_unavailable(send, error)
        await answers.key_configuration(send, public_key, accepted_for_s, body=scope["method"] == "GET")

    async def _serve_sealed(self, keys: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        refuse = answers.to_any_page(scope, send)
        try:
            (encapsulated_key,) = keys
            opener = RequestOpener(
                bytes_of_header(encapsulated_key.decode("latin-1")),
                self._ring(scope).accepted,
                max_frame_bytes=self._max_frame_bytes,
            )
            request = SealedRequest(opener, receive, send)
            has_body = await request.open_first_frame()
        except KeysUnavailableError as error:
            return await answers.keys_unavailable(refuse, error)
        except KeyMismatchError:
            return await answers.key_mismatch(refuse)
        except FrameTooLargeError as error:
            return await answers.frame_too_large(refuse, error)
        except (MalformedMessageError, ValueError):
            return await answers.malformed(refuse)
        if has_body is None:  # the client is gone
            return None
        if not has_body:
            return await self.app(scope, answers.empty_body(receive), send)
        await request.serve(self.app, scope)

    async def _serve_without_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            if message.get("body"):
                return await answers.sealing_required(answers.to_any_page(scope, send))
            if not message.get("more_body", False):
                return await self.app(scope, answers.empty_body(receive), send)
        return None  # the client is gone

    def _ring(self, scope: Scope) -> KeyRing:
        return self._key_ring or required_ring(scope.get("app", self.app))


def _path_in_app(scope: Scope) -> str:
    path: str = scope["path"]
    root_path = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path
