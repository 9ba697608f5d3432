"""The response to a sealed request: what the app sends, sealed in the order in which the server takes it."""

import contextlib
from collections.abc import Callable

from starlette.types import Message, Send

from server_keys._sealing.content_coding import ContentDecoder
from server_keys._sealing.declared_length import DeclaredLength
from server_keys._sealing.protocol import AT_ONCE_BYTES, MAX_FRAME_BYTES, frames_of, sealed_length
from server_keys._sealing.recorder import Measured
from server_keys._sealing.response_headers import sealed_start
from server_keys._sealing.spans import record_opening
from server_keys._sealing.turns import Turns
from server_keys._sealing.wires import ResponseWire

_STATUSES_WITHOUT_BODY = frozenset({204, 304})
_WITHOUT_BODY = frozenset({"http.response.trailers", "http.response.early_hint"})
# Ends a body that is broken off: the header of a 16-byte frame that never follows. Clients see an incomplete frame even
# where an HTTP/1.0 proxy turns the broken connection into a clean end.
_UNFINISHED: Message = {"type": "http.response.body", "body": b"\0\0\0\x10", "more_body": True}


class SealedResponse:
    """Seals what the app sends and hands it to the server.

    Args:
        wire: knows how the response is sealed.
        send: the server's.
        measured: counts what is sent.
        when_ended: is called when the server has taken the last message of the body. The app may work on after that,
            for hours: Starlette's background tasks do.
    """

    def __init__(self, wire: ResponseWire, send: Send, measured: Measured, when_ended: Callable[[], None]) -> None:
        self._wire = wire
        self._sealer = wire.sealer
        self._send = send
        self._measured = measured
        self._when_ended: Callable[[], None] | None = when_ended
        self._declared: DeclaredLength | None = None
        self._decoder: ContentDecoder | None = None
        # Whether the pieces of the body leave as they come: it has neither a declared length nor a coding.
        self._seals_at_once = False
        self._has_body = True
        # Waits for the first message of the body, which may tell how long the sealed body becomes.
        self._held_start: Message | None = None
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
        # Every token passes here. This is a closure, because a method would look up its object's attributes each time;
        # and all that is done to a piece of a plain body is done by one native call.
        send, seal_message, turns = self._send, self._sealer.seal_message, Turns()

        async def send_sealed(message: Message) -> None:
            if turns.taken:
                await turns.wait()
            turns.taken = True
            try:
                if self._seals_at_once and (sealed := seal_message(message)) is not None:
                    await send(sealed)
                elif self._dropped or message["type"] != "http.response.body":
                    await self._send_other(message)
                else:
                    await self._send_body(message)
            finally:
                if turns.waiting:
                    turns.pass_on()
                else:
                    turns.taken = False

        return send_sealed

    def drop_the_rest(self) -> None:
        """Send nothing that the app still sends: it has seen only part of the request."""
        self._dropped, self._seals_at_once = True, False

    async def break_off(self) -> None:
        """Take nothing more from the app, and leave a response that has started without a valid end."""
        self._over = True
        self.drop_the_rest()
        if self._started and not self._ended and self._has_body:
            await self._send({**_UNFINISHED})

    def break_off_at_once(self) -> None:
        """Break off as far as the server allows without waiting: the app was cancelled, so nothing may be awaited."""
        breaking_off = self.break_off().__await__()
        with contextlib.suppress(Exception):
            next(breaking_off)
            breaking_off.close()

    def end(self) -> None:
        """Wipe the keys, and take nothing more from tasks that the app left behind."""
        self._over = True
        self._when_ended = None  # It refers to the request, which refers to this.
        self.drop_the_rest()
        self._sealer.erase()
        streamed_frames, streamed_bytes = self._sealer.streamed
        self._measured.sent_frames += streamed_frames
        self._measured.sent_bytes += streamed_bytes

    async def _send_other(self, message: Message) -> None:
        kind = message["type"]
        if self._over:
            raise RuntimeError(f"the app has returned: its response has ended without this {kind!r}")
        if self._dropped:
            return
        if self._ended and kind == "http.response.start":
            raise self._ended_before(kind)
        if kind == "http.response.start":
            record_opening(self._measured)
            # ASGI allows any iterable, and Sanic gives a generator, which can be read once.
            message = {**message, "headers": list(message.get("headers", ()))}
            self._has_body = self._wire.has_body(message["status"])
            self._declared = DeclaredLength.of(message) if self._has_body else None
            self._decoder = ContentDecoder.of(message) if self._has_body else None
            if self._declared is not None and self._decoder is None and not message.get("trailers", False):
                self._held_start = message
            else:
                self._seals_at_once = self._has_body and self._declared is None and self._decoder is None
                await self._send_start(message)
        elif kind in _WITHOUT_BODY:
            await self._send(message)
        else:
            raise RuntimeError(f"an app behind EncryptedBodyMiddleware sent {kind!r}, which cannot be sealed")

    async def _send_start(self, start: Message, length: int | None = None) -> None:
        """Send the start of the response, with the length of its sealed body where that is known."""
        streams = self._has_body and self._declared is None and start["status"] not in _STATUSES_WITHOUT_BODY
        header = self._wire.header(start["status"])
        await self._send(sealed_start(start, header, streams=streams, sealed_length=length))
        self._started = True

    async def _send_body(self, message: Message) -> None:
        """Send a message that is long, ends its body, or belongs to a response with a length, a coding, or no body."""
        if self._ended:
            raise self._ended_before(message["type"])
        if not self._has_body:
            return await self._send_nothing(message)
        if self._declared is not None:
            start, self._held_start = self._held_start, None
            if start is not None:
                is_all = self._declared.is_all_in(message)
                length = sealed_length(self._declared.missing) + self._wire.end_bytes
                await self._send_start(start, length if is_all else None)
            self._declared.count(message)
        body = message.get("body", b"") if self._decoder is None else self._decoder.decoded(message)
        # The app may use another buffer than bytes again before the last frame is sealed.
        await self._send_frames(message, body if type(body) is bytes else memoryview(body).tobytes())

    async def _send_nothing(self, message: Message) -> None:
        """Send a message without its body, because HTTP lets none follow."""
        await self._send({**message, "body": b""})
        if not message.get("more_body", False):
            self._note_end()

    async def _send_frames(self, message: Message, body: bytes) -> None:
        """Send a body in frames, some at once. These are sealed when the server has taken those before them."""
        view, is_last = memoryview(body), False
        try:
            for start in range(0, max(len(body), 1), AT_ONCE_BYTES):
                # Since the frames before, the request may have broken off, or the app may have returned.
                if self._dropped:
                    return await self._send_other(message)
                part = view[start : start + AT_ONCE_BYTES]
                is_last = start + AT_ONCE_BYTES >= len(body)
                more_body = not is_last or message.get("more_body", False)
                seal = self._sealer.seal if more_body else self._wire.seal_last
                sealed = seal(part, max_frame_bytes=MAX_FRAME_BYTES)
                await self._send({**message, "body": sealed, "more_body": more_body})
                self._measured.sent_bytes += len(sealed)
                self._measured.sent_frames += frames_of(len(part)) + bool(self._wire.end_bytes and not more_body)
                # Note it only now: a message that the server has not taken has not ended the response.
                if not more_body:
                    self._note_end()
        finally:
            if not is_last and not self._over:
                # The app may catch what has cut its message short, and go on. Leave a frame's number out: without that
                # gap clients would take the next message for the rest of this one.
                self._sealer.seal(b"\0", max_frame_bytes=MAX_FRAME_BYTES)

    @staticmethod
    def _ended_before(kind: str) -> RuntimeError:
        return RuntimeError(f"the response has ended already, before this {kind!r}")

    def _note_end(self) -> None:
        """Seal nothing any more. Trailers may follow."""
        self._ended, self._seals_at_once = True, False
        self._sealer.erase()
        if self._when_ended is not None:
            self._when_ended()
