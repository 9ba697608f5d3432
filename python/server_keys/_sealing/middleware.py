"""The ASGI middleware that opens sealed requests and seals their responses (EHBP)."""

import os
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._checks import (
    Place,
    Replay,
    Required,
    StoreAway,
    checked_max_buffered_bytes,
    checked_max_frame_bytes,
    checked_open_paths,
    checked_place,
    checked_required,
)
from server_keys._keys.ring import KeyRing
from server_keys._sealing import answers
from server_keys._sealing.admission import Admission
from server_keys._sealing.arrival import is_for_key, path_in_app
from server_keys._sealing.buffers import MemoryBoundError
from server_keys._sealing.key_endpoint import KeyEndpoint
from server_keys._sealing.notices import log_start
from server_keys._sealing.opened_scope import OPENED, WIRE
from server_keys._sealing.outcomes import Outcomes
from server_keys._sealing.protected_app import ProtectedApp
from server_keys._sealing.protocol import (
    DEFAULT_MAX_BUFFERED_BYTES,
    DEFAULT_MAX_FRAME_BYTES,
    ENCAPSULATED_KEY_HEADER,
)
from server_keys._sealing.recorder import Measured, Outcome
from server_keys._sealing.refusals import KEY_MISMATCH, NOT_V1, PLAINTEXT, Refusal, refusal_of
from server_keys._sealing.replays import ReplayRule
from server_keys._sealing.request import SealedRequest
from server_keys._sealing.signed_answers import SignedAnswers
from server_keys._sealing.signed_lifespan import signing
from server_keys._sealing.signer import Signer, checked_identity
from server_keys._sealing.upload import Upload
from server_keys._sealing.wire_v1 import is_versioned
from server_keys.errors import KeysUnavailableError

_ENCAPSULATED_KEY = ENCAPSULATED_KEY_HEADER.lower().encode()
# Their frames end a body, so no header has to announce one.
_VERSIONS_WITHOUT_FRAMING_HEADERS = frozenset({"2", "3"})


class EncryptedBodyMiddleware:
    """Opens sealed requests frame by frame as they arrive, and seals each body message of the response at once.

    It publishes its public keys under `/.well-known/hpke-keys`, and speaks two wires by the header
    `Ehbp-Encapsulated-Key`: plain EHBP, which seals bodies, and its version 1, by which clients of this package also
    seal the method, the target and the status, and the end of each body. Requests without the header, websockets and
    lifespans pass through, and OPTIONS always does.

    What decides about a request is the head in version 1, and the first frame in plain EHBP. That is before the app is
    called: 400 if it is malformed, 413 if it is too large, 422 if it is sealed to a key that is not accepted; in
    version 1 also a sealed 400 if it was sealed for another place. HEAD and requests without a body have no sealed form
    in plain EHBP. In the scope of a request that arrived sealed, the app finds `server_keys.opened` true, and in
    `server_keys.wire` `"ehbp"` or `"v1"`. Messages that several of its tasks send at the same time leave one after the
    other. Frames are numbered: a `send` that is cancelled while the server holds it loses its frame; the client sees
    the gap and refuses the rest.

    Headers that describe the bytes of a plaintext do not leave: length, digests, ranges. A response that the app
    compressed is decompressed; for a coding other than gzip and deflate the app gets a `RuntimeError`.

    Before a request is refused, the rest of its body is read and thrown away, up to 64 MiB and for 10 s, so that
    clients and proxies see the answer. The ring's `status` counts refusals by reason, and the log has one warning a
    minute for each reason.

    Args:
        app: gets the opened requests.
        key_ring: the keys; by default those that a key lifespan put into `app.state`.
        required: answer requests that carry a body in plaintext with an error (True), or all that are not sealed by
            version 1 of the wire (`"v1"`), except for those for the key and OPTIONS.
        place: what a request of version 1 is held to. `"exact"`: the method, the path below the app's root path, and
            the query that its client sealed. `"suffix"`: the path may be the end of the one that was sealed, from a
            slash on, for a proxy that takes a prefix away without its client's knowledge. `"off"`: the method alone.
        replay: what happens to a sealed request that was received before, by this process or another one of this host
            that shares its keys. `"refuse"`: it gets 409, before the app is called. `"allow"`: the app gets it again.
            `"refuse-everywhere"`: it gets 409 also if another host received it that shares its keys by Valkey.
        store_away: what happens to requests while the store cannot be asked that `"refuse-everywhere"` asks, which
            needs this. `"refuse"`: they get 503. `"allow"`: they are served unless this host received them.
        open_paths: paths, as the app sees them, for which nothing is required, such as those of health checks.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.
        max_buffered_bytes: how much memory the unfinished requests of this process may hold together, from four times
            `max_frame_bytes` on. 64 KiB of each request do not count. Where it is reached, the request whose client has
            sent nothing for the longest time, a second at least, gets 408; if there is none, the one that needs memory
            gets 503.
        identity: who signs the published keys: the file that `server-keys identity new` wrote, which is read when the
            app starts, or a `Signer`. Then nothing unsigned is published.

    Raises:
        TypeError: `required` is neither a bool nor `"v1"`, `place`, `replay` or `store_away` is no str, `open_paths` is
            no sequence of str, `max_frame_bytes` or `max_buffered_bytes` is not an int, `identity` is neither a path
            nor a `Signer`.
        ValueError: `place`, `replay` or `store_away` is another str, `store_away` is missing or given in vain, a path
            does not begin with a slash, `max_frame_bytes` or `max_buffered_bytes` is out of its range, `identity` is
            the public half.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key_ring: KeyRing | None = None,
        required: Required = False,
        place: Place = "exact",
        replay: Replay = "refuse",
        store_away: StoreAway | None = None,
        open_paths: Sequence[str] = (),
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
        identity: str | os.PathLike[str] | Signer | None = None,
    ) -> None:
        self.app = app
        self._required = checked_required(required)
        self._open_paths = frozenset(checked_open_paths(open_paths))
        self._admission = Admission(
            checked_place(place),
            ReplayRule.checked(replay, store_away),
            checked_max_frame_bytes(max_frame_bytes),
            checked_max_buffered_bytes(max_buffered_bytes, max_frame_bytes),
        )
        self._signed_answers = None if identity is None else SignedAnswers(checked_identity(identity))
        self._protected = ProtectedApp(app, key_ring)
        self._outcomes = Outcomes(self._protected)
        self._key_endpoint = KeyEndpoint(self._protected, self._outcomes, self._signed_answers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            return await self._run(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not isinstance(scope["headers"], list | tuple):
            scope["headers"] = list(scope["headers"])  # ASGI allows an iterator, which can be read once
        required = self._required_of(scope)
        if OPENED in scope:  # by a middleware around this one
            if required == "v1" and scope.get(WIRE) != "v1":
                return await self._outcomes.refuse(NOT_V1, scope, Upload(scope, receive), send)
            return await self.app(scope, receive, send)
        if is_for_key(scope) and scope["method"] != "OPTIONS":
            return await self._key_endpoint.serve(scope, Upload(scope, receive), send)
        keys = _encapsulated_keys(scope)
        if keys:
            return await self._serve_sealed(keys, scope, Upload(scope, receive), send)
        if required == "v1" and scope["method"] != "OPTIONS":
            return await self._outcomes.refuse(NOT_V1, scope, Upload(scope, receive), send)
        if required:
            return await self._serve_without_body(scope, Upload(scope, receive), send)
        self._outcomes.count(scope, Outcome.PLAINTEXT if _announces_body(scope) else Outcome.WITHOUT_BODY)
        return await self.app(scope, receive, send)

    def _required_of(self, scope: Scope) -> Required:
        """Return what is required of a request to this path."""
        return self._required if path_in_app(scope) not in self._open_paths else False

    async def _serve_sealed(self, keys: list[str], scope: Scope, upload: Upload, send: Send) -> None:
        measured, refusal = Measured(), None
        try:
            refusal = await self._serve_or_find_fault(keys, scope, upload, send, measured)
        finally:
            if refusal is None and measured.opened_at_ns is not None:
                self._outcomes.count_sealed(scope, measured)
        if refusal is not None:
            # Refuse here, where nothing refers to the request's keys any more: a client may be slow to end its body.
            await self._outcomes.refuse(refusal, scope, upload, send)

    async def _serve_or_find_fault(
        self, keys: list[str], scope: Scope, upload: Upload, send: Send, measured: Measured
    ) -> Refusal | None:
        try:
            (header,) = keys
            ring = await self._protected.ready_ring(scope)
            ring.tell_of_buffers(self._admission.buffer_status)
            if is_versioned(header):
                examined = await self._admission.examine_v1(header, ring, scope, upload, send, measured)
            elif self._required_of(scope) == "v1":
                return NOT_V1
            else:
                examined = await self._admission.examine_plain(header, ring, upload, send, measured)
        except (KeysUnavailableError, MemoryBoundError, ValueError) as error:
            return refusal_of(error)
        if examined.refusal is not None:
            measured.opened_at_ns = None  # The app does not get it.
            return await self._refuse_opened(examined.refusal, examined.request, scope, upload)
        if examined.has_begun is None:  # the client is gone
            self._outcomes.count(scope, Outcome.DISCONNECTED)
            return None
        if not examined.has_begun:
            self._outcomes.count(scope, Outcome.WITHOUT_BODY)
            await self.app(scope, answers.empty_body(upload.receive), send)
            return None
        broken = await examined.request.serve(self.app, scope)
        return None if broken is None else refusal_of(broken)

    async def _refuse_opened(
        self, refusal: Refusal, request: SealedRequest, scope: Scope, upload: Upload
    ) -> Refusal | None:
        """Refuse a request that is opened by a sealed answer. Return the refusal if its answer cannot be sealed."""
        if refusal.answer is KEY_MISMATCH.answer:
            request.end()
            return refusal

        async def refuse(_: Scope, __: Receive, send: Send) -> None:
            await self._outcomes.refuse(refusal, scope, upload, send)

        broken = await request.refuse(refuse, scope)
        return None if broken is None else refusal_of(broken)

    async def _serve_without_body(self, scope: Scope, upload: Upload, send: Send) -> None:
        # A client that waits for `100 Continue` has a body, and has not sent it yet.
        while not upload.waits_for_continue:
            message = await upload.receive()
            if message["type"] != "http.request":  # the client is gone
                return self._outcomes.count(scope, Outcome.DISCONNECTED)
            if message.get("body"):
                break
            if upload.ended:
                self._outcomes.count(scope, Outcome.WITHOUT_BODY)
                return await self.app(scope, answers.empty_body(upload.receive), send)
        await self._outcomes.refuse(PLAINTEXT, scope, upload, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan, and sign its keys meanwhile if the server has an identity."""
        # Whoever dispatches may give this scope to another app, too, which puts itself into it.
        ours = {**scope}
        send = self._noticing_start(ours, send)
        if self._signed_answers is None:
            return await self.app(scope, receive, send)
        await signing(self._signed_answers, lambda: self._protected.ring(ours), self.app)(scope, receive, send)

    def _noticing_start(self, scope: Scope, send: Send) -> Send:
        """Return a lifespan's `send` that prepares for requests when the app has started, and logs the start."""

        async def send_and_notice(message: Message) -> None:
            ring = self._protected.ring(scope) if message["type"] == "lifespan.startup.complete" else None
            if ring is not None:
                await self._admission.prepare(ring)
            await send(message)
            if ring is not None:
                log_start(ring, required=self._required)

        return send_and_notice


def _encapsulated_keys(scope: Scope) -> list[str]:
    """Return the values of the header by which a request is sealed: none where its method has no sealed form."""
    if scope["method"] == "OPTIONS":
        return []
    keys = [value.decode("latin-1") for name, value in scope["headers"] if name == _ENCAPSULATED_KEY]
    if scope["method"] == "HEAD" and not any(is_versioned(key) for key in keys):
        return []
    return keys


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
