"""The response to a sealed request: what the app sends, sealed in the order in which the server takes it."""

import contextlib
from collections.abc import Callable

from starlette.types import Message, Send

from server_keys._native import ResponseSealer
from server_keys._sealing.content_coding import ContentDecoder
from server_keys._sealing.declared_length import DeclaredLength
from server_keys._sealing.recorder import Measured
from server_keys._sealing.response_headers import sealed_start
from server_keys._sealing.spans import record_opening
from server_keys._sealing.turns import Turns

# How long a sealed frame can be, its length included. A message that seals to more becomes several frames.
_LONGEST_FRAME_BYTES = 16 * 1024 * 1024 + 4
_STATUSES_WITHOUT_BODY = frozenset({204, 304})
_WITHOUT_BODY = frozenset({"http.response.trailers", "http.response.early_hint"})
# Ends a body that is broken off: the header of a 16-byte frame that never follows. Clients see an incomplete frame even
# where an HTTP/1.0 proxy turns the broken connection into a clean end.
_UNFINISHED: Message = {"type": "http.response.body", "body": b"\0\0\0\x10", "more_body": True}


class SealedResponse:
    """Seals what the app sends and hands it to the server.

    Args:
        sealer: seals the body.
        send: the server's.
        measured: counts what is sent.
    """

    def __init__(self, sealer: ResponseSealer, send: Send, measured: Measured) -> None:
        self._sealer = sealer
        self._send = send
        self._measured = measured
        self._declared: DeclaredLength | None = None
        self._decoder: ContentDecoder | None = None
        self._tell_what_was_sent: Callable[[], None] = lambda: None
        self._dropped = False
        self._over = False
        self._started = False
        self._ended = False

    @property
    def started(self) -> bool:
        """Whether the server has taken the start of a response."""
        return self._started

    def send_for_app(self) -> Send:
        """Return the app's `send`.

        Tasks of the app may call it at the same time, as sse-starlette's pings do. A frame's number is part of its
        seal, so a message is sealed only when the server has taken all messages before it.
        """
        # Every token passes here. This is a closure, because a method would look up its object's attributes each time.
        send, seal, turns, measured = self._send, self._sealer.seal, Turns(), self._measured
        sent_bytes = sent_frames = 0

        async def send_sealed(message: Message) -> None:
            nonlocal sent_bytes, sent_frames
            if turns.taken:
                await turns.wait()
            turns.taken = True
            try:
                if self._dropped or message["type"] != "http.response.body":
                    return await self._send_other(message)
                if self._declared is not None:
                    self._declared.count(message)
                body = message.get("body", b"") if self._decoder is None else self._decoder.decoded(message)
                # Copy the message (ASGI says that it is a dict), because it belongs to the app.
                message = message.copy()  # type: ignore[attr-defined]
                message["body"] = sealed = seal(body)
                await send(message)
                sent_bytes += len(sealed)
                sent_frames += 1 if 0 < len(sealed) <= _LONGEST_FRAME_BYTES else -(-len(sealed) // _LONGEST_FRAME_BYTES)
                # Note it only now: a message that the server has not taken has not ended the response.
                if not message.get("more_body", False):
                    self._ended = True
            finally:
                if turns.waiting:
                    turns.pass_on()
                else:
                    turns.taken = False

        def tell() -> None:
            measured.sent_bytes, measured.sent_frames = sent_bytes, sent_frames

        self._tell_what_was_sent = tell
        return send_sealed

    def drop_the_rest(self) -> None:
        """Send nothing that the app still sends: it has seen only part of the request."""
        self._dropped = True

    async def break_off(self) -> None:
        """Take nothing more from the app, and leave a response that has started without a valid end."""
        self._dropped = self._over = True
        if self._started and not self._ended:
            await self._send({**_UNFINISHED})

    def break_off_at_once(self) -> None:
        """Break off as far as the server allows without waiting: the app was cancelled, so nothing may be awaited."""
        breaking_off = self.break_off().__await__()
        with contextlib.suppress(Exception):
            next(breaking_off)
            breaking_off.close()

    def end(self) -> None:
        """Wipe the keys, and take nothing more from tasks that the app left behind."""
        self._dropped = self._over = True
        self._sealer.erase()
        self._tell_what_was_sent()

    async def _send_other(self, message: Message) -> None:
        kind = message["type"]
        if self._over:
            raise RuntimeError(f"the app has returned: its response has ended without this {kind!r}")
        if self._dropped:
            return
        if kind == "http.response.start":
            record_opening(self._measured)
            self._declared = DeclaredLength.of(message)
            self._decoder = ContentDecoder.of(message)
            streams = self._declared is None and message["status"] not in _STATUSES_WITHOUT_BODY
            await self._send(sealed_start(message, self._sealer.response_nonce, streams=streams))
            self._started = True
        elif kind in _WITHOUT_BODY:
            await self._send(message)
        else:
            raise RuntimeError(f"an app behind EncryptedBodyMiddleware sent {kind!r}, which cannot be sealed")
