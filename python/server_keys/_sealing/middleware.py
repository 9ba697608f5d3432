"""The ASGI middleware that opens sealed requests and seals their responses (EHBP)."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._checks import checked_max_frame_bytes, checked_required
from server_keys._keys.app_ring import held_ring, required_ring
from server_keys._keys.ring import KeyRing
from server_keys._native import KeyMismatchError, RequestOpener
from server_keys._sealing import answers
from server_keys._sealing.notices import RefusalLog, log_start
from server_keys._sealing.protocol import (
    DEFAULT_MAX_FRAME_BYTES,
    ENCAPSULATED_KEY_HEADER,
    KEY_CONFIG_PATH,
    bytes_of_header,
)
from server_keys._sealing.published_key import key_configuration
from server_keys._sealing.recorder import Measured, Outcome, recorder_of
from server_keys._sealing.refusals import KEY_PATH_METHOD, PLAINTEXT, Refusal, refusal_of
from server_keys._sealing.replay import Replay
from server_keys._sealing.request import OPENED, SealedRequest
from server_keys._sealing.spans import refusal_span
from server_keys._sealing.upload import Upload
from server_keys.errors import KeysUnavailableError

_ENCAPSULATED_KEY = ENCAPSULATED_KEY_HEADER.lower().encode()
# Their frames end a body, so no header has to announce one.
_VERSIONS_WITHOUT_FRAMING_HEADERS = frozenset({"2", "3"})
_UNSEALED_METHODS = frozenset({"HEAD", "OPTIONS"})


class EncryptedBodyMiddleware:
    """Opens sealed requests frame by frame as they arrive, and seals each body message of the response at once.

    It publishes the public key under `/.well-known/hpke-keys`. Requests without the header `Ehbp-Encapsulated-Key`,
    websockets and lifespans pass through. The first frame of a request decides, before the app is called: 400 if it is
    malformed, 413 if it is too large, 422 if it is sealed to a key that is not accepted. HEAD and OPTIONS have no
    sealed form. In the scope of a request that arrived sealed, the app finds `server_keys.opened` true. Messages that
    several of its tasks send at the same time leave one after the other. Frames are numbered: a `send` that is
    cancelled while the server holds it loses its frame; the client sees the gap and refuses the rest.

    Headers that describe the bytes of a plaintext do not leave: length, digests, ranges. A response that the app
    compressed is decompressed; for a coding other than gzip and deflate the app gets a `RuntimeError`.

    Before a request is refused, the rest of its body is read and thrown away, up to 64 MiB and for 10 s, so that
    clients and proxies see the answer. The ring's `status` counts refusals by reason, and the log has one warning a
    minute for each reason.

    Args:
        app: gets the opened requests.
        key_ring: the keys; by default those that a key lifespan put into `app.state`.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.

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
        self._refusal_log = RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, self._logging_start(scope, send))
        if scope["type"] != "http" or OPENED in scope:  # opened by a middleware around this one
            return await self.app(scope, receive, send)
        if _path_in_app(scope) == KEY_CONFIG_PATH and scope["method"] != "OPTIONS":
            return await self._publish_key(scope, Upload(scope, receive), send)
        if scope["method"] in _UNSEALED_METHODS:
            keys = []
        else:
            keys = [value for name, value in scope["headers"] if name == _ENCAPSULATED_KEY]
        if keys:
            return await self._serve_sealed(keys, scope, Upload(scope, receive), send)
        if self._required:
            return await self._serve_without_body(scope, Upload(scope, receive), send)
        self._count(scope, Outcome.PLAINTEXT if _announces_body(scope) else Outcome.WITHOUT_BODY)
        return await self.app(scope, receive, send)

    async def _publish_key(self, scope: Scope, upload: Upload, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            return await self._refuse(KEY_PATH_METHOD, scope, upload, send)
        try:
            ring = await self._ready_ring(scope)
            answer = key_configuration(ring.current.public_key, ring.current_accepted_for_s)
        except KeysUnavailableError as error:
            return await self._refuse(refusal_of(error), scope, upload, send)
        self._count(scope, Outcome.KEY)
        send = answers.to_any_page(scope, send)
        await answers.send_answer(answer, scope, upload, send, head=scope["method"] == "HEAD")

    async def _serve_sealed(self, keys: list[bytes], scope: Scope, upload: Upload, send: Send) -> None:
        measured, refusal = Measured(), None
        try:
            refusal = await self._serve_or_find_fault(keys, scope, upload, send, measured)
        finally:
            if refusal is None and measured.opened_at_ns is not None:
                recorder = recorder_of(self._app_of(scope))
                if recorder is not None:
                    recorder.count_sealed(measured)
        if refusal is not None:
            # Refuse here, where nothing refers to the request's keys any more: a client may be slow to end its body.
            await self._refuse(refusal, scope, upload, send)

    async def _serve_or_find_fault(
        self, keys: list[bytes], scope: Scope, upload: Upload, send: Send, measured: Measured
    ) -> Refusal | None:
        try:
            (encapsulated_key,) = keys
            ring = await self._ready_ring(scope)
            arriving = Replay(upload.receive, keeps=ring.is_shared)
            request = self._sealed_request(encapsulated_key, ring, arriving, send, measured)
            try:
                has_body = await request.open_first_frame()
            except KeyMismatchError:
                # Another process of the group may have made a key that has not arrived here yet.
                if not await ring.has_news():
                    raise
                arriving.rewind()
                measured.received_bytes = 0
                request = self._sealed_request(encapsulated_key, ring, arriving, send, measured)
                has_body = await request.open_first_frame()
            arriving.forget()
        except (KeysUnavailableError, ValueError) as error:
            return refusal_of(error)
        if has_body is None:  # the client is gone
            self._count(scope, Outcome.DISCONNECTED)
            return None
        if not has_body:
            self._count(scope, Outcome.WITHOUT_BODY)
            await self.app(scope, answers.empty_body(upload.receive), send)
            return None
        broken = await request.serve(self.app, scope)
        return None if broken is None else refusal_of(broken)

    def _sealed_request(
        self, encapsulated_key: bytes, ring: KeyRing, arriving: Replay, send: Send, measured: Measured
    ) -> SealedRequest:
        opener = RequestOpener(
            bytes_of_header(encapsulated_key.decode("latin-1")),
            ring.accepted,
            max_frame_bytes=self._max_frame_bytes,
        )
        return SealedRequest(opener, arriving.receive, send, measured)

    async def _serve_without_body(self, scope: Scope, upload: Upload, send: Send) -> None:
        # A client that waits for `100 Continue` has a body, and has not sent it yet.
        while not upload.waits_for_continue:
            message = await upload.receive()
            if message["type"] != "http.request":  # the client is gone
                return self._count(scope, Outcome.DISCONNECTED)
            if message.get("body"):
                break
            if upload.ended:
                self._count(scope, Outcome.WITHOUT_BODY)
                return await self.app(scope, answers.empty_body(upload.receive), send)
        await self._refuse(PLAINTEXT, scope, upload, send)

    async def _refuse(self, refusal: Refusal, scope: Scope, upload: Upload, send: Send) -> None:
        app = self._app_of(scope)
        ring = self._key_ring or held_ring(app)
        if ring is not None:
            ring.count_refusal(refusal.reason)
        recorder = recorder_of(app)
        if recorder is not None:
            recorder.count_refusal(refusal.reason)
        self._refusal_log.add(refusal)
        with refusal_span(scope, refusal):
            await answers.send_answer(refusal.answer, scope, upload, answers.to_any_page(scope, send))

    def _count(self, scope: Scope, outcome: Outcome) -> None:
        recorder = recorder_of(self._app_of(scope))
        if recorder is not None:
            recorder.count_request(outcome)

    def _app_of(self, scope: Scope) -> Any:
        return scope.get("app", self.app)

    async def _ready_ring(self, scope: Scope) -> KeyRing:
        ring = self._key_ring or required_ring(self._app_of(scope))
        # A shared ring has no key for a moment after its process stood still for as long as keys live.
        await ring.ready()
        return ring

    def _logging_start(self, scope: Scope, send: Send) -> Send:
        """Return a lifespan's `send` that logs the start when the app has started."""
        app = self._app_of(scope)

        async def send_and_notice(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                ring = self._key_ring or held_ring(app)
                if ring is not None:
                    log_start(ring, required=self._required)

        return send_and_notice


def _announces_body(scope: Scope) -> bool:
    """Return whether the headers of a request say that it has a body. HTTP/2 and later need not say so."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return bool(value != b"0")
        if name == b"transfer-encoding":
            return True
    return scope.get("http_version") in _VERSIONS_WITHOUT_FRAMING_HEADERS and scope["method"] in (
        "POST",
        "PUT",
        "PATCH",
    )


def _path_in_app(scope: Scope) -> str:
    path: str = scope["path"]
    root_path = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path
