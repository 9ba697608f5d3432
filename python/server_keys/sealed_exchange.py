"""One sealed request and its response, seen from the app between them: plain ASGI messages."""

import asyncio
import contextlib
import inspect
import weakref
from collections.abc import Awaitable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import protocol_responses as respond
from server_keys._native import FrameTooLargeError, MalformedMessageError, RequestOpener, ResponseSealer
from server_keys.ehbp import RESPONSE_NONCE_HEADER

OPENED = "server_keys.opened"
"""True in the scope of a request whose body arrived sealed."""

_NONCE = RESPONSE_NONCE_HEADER.encode()
# How a body goes on that is broken off: with the head of a frame that never comes. So nobody takes it for a whole one,
# whatever became of the connection on its way: an HTTP/1.0 proxy shows an end where a connection broke.
_UNFINISHED: Message = {"type": "http.response.body", "body": b"\0\0\0\x10", "more_body": True}
# What an app may do to a response beside sending it in messages, as far as nothing of the body travels that way. Others
# (`http.response.pathsend` hands the server a file to send) would go around the sealing.
_HARMLESS_EXTENSIONS = frozenset({"http.response.trailers", "http.response.early_hint", "tls"})
# How often the next message looks whether the one in front of it is sent, where two tasks send at once.
_LOOK_AGAIN_S = 0.01
# Replaced by what is true of the plaintext. An answer that the app compressed would be undone by browsers before it is
# opened, and its length would tell of its content.
_HEADERS_OF_THE_SEALED = frozenset({b"content-length", b"transfer-encoding", b"accept-encoding"})
# A length of the plaintext; and the nonce of another sealed response, which a gateway relays.
_HEADERS_NOT_SENT = frozenset({b"content-length", _NONCE.lower()})


class SealedExchange:
    """Gives the app a `receive` that opens the request and a `send` that seals the response.

    Args:
        opener: opens the request.
        receive: the server's, for the sealed request.
        send: the server's, for the sealed response.
    """

    def __init__(self, opener: RequestOpener, receive: Receive, send: Send) -> None:
        self._opener = opener
        self._receive = receive
        self._send = send
        self._opened = b""
        self._body_ended = False
        self._body_delivered = False
        self._broken: FrameTooLargeError | MalformedMessageError | None = None
        self._response_started = False
        self._response_ended = False

    async def open_first_frame(self) -> bool | None:
        """Receive until the first frame is opened.

        Returns:
            True then; False if the request has no body at all; None if the client has disconnected.

        Raises:
            KeyMismatchError: the frame opens under no accepted key.
            FrameTooLargeError: it is longer than the limit.
            MalformedMessageError: anything else is wrong.
        """
        anything_arrived = False
        while not self._opener.opened:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            anything_arrived = anything_arrived or bool(message.get("body"))
            if message.get("more_body", False) or anything_arrived:
                self._open(message)
            else:
                self._opener.finish_without_body()
                return False
        return True

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Let `app` answer the request whose first frame is opened."""
        send_sealed = self._sealing(self._opener.response_sealer())
        try:
            await app(self._scope_for_app(scope), self._receive_opened, send_sealed)
        except Exception:
            # Of a request that broke off the app may complain in any way; the client gets the protocol's answer.
            if self._broken is None:
                # What the app raised is what matters, also to a server that takes no answer any more.
                with contextlib.suppress(Exception):
                    await self._complete_with_error(send_sealed)
                raise
        except BaseException:
            self._break_off_at_once()
            raise
        await self._complete_with_error(send_sealed)

    async def _receive_opened(self) -> Message:
        while not self._body_delivered:
            if self._broken is not None:
                return {"type": "http.disconnect"}
            if self._opened or self._body_ended:
                opened, self._opened = self._opened, b""
                self._body_delivered = self._body_ended
                return {"type": "http.request", "body": opened, "more_body": not self._body_ended}
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            try:
                self._open(message)
            except (FrameTooLargeError, MalformedMessageError) as error:
                # Its traceback leads back to here: with it, keys and frames would outlive the request.
                self._broken = error.with_traceback(None)
        return await self._receive()

    def _open(self, message: Message) -> None:
        self._opened += self._opener.feed(message.get("body", b""))
        if not message.get("more_body", False):
            self._opener.finish()
            self._body_ended = True

    def _sealing(self, sealer: ResponseSealer) -> Send:
        send, seal = _coroutine_function(self._send), sealer.seal
        in_flight: Any = _Sent
        missing: int | None = None

        # Every token passes here: no attribute is looked up, and no coroutine made but the server's, without need.
        def send_sealed(message: Message) -> Awaitable[None]:
            nonlocal in_flight, missing
            if in_flight.cr_frame is not None:  # It has not ended.
                return send_in_turn(message)
            if self._broken is not None:
                # Half a body has reached the app: what it made of that is not sent, the response never ends validly.
                return _nothing()
            kind = message["type"]
            if kind == "http.response.body":
                # Both are optional, and in a stream both are there: `get` takes twice as long.
                try:
                    body, more_body = message["body"], message["more_body"]
                except KeyError:
                    body, more_body = message.get("body", b""), message.get("more_body", False)
                if missing is not None:
                    missing = _missing_after(missing, body, more_body)
                # A copy: the app's message, which ASGI says is a dict, stays the app's. Nothing seals to nothing, also
                # where there may be no body.
                message = message.copy()  # type: ignore[attr-defined]
                message["body"] = seal(body)
                in_flight = send(message) if more_body else self._end(message)
            elif kind == "http.response.start":
                missing = _declared_length(message)
                in_flight = self._start(_sealed_start(message, sealer.response_nonce))
            elif kind in ("http.response.trailers", "http.response.early_hint"):
                in_flight = send(message)
            else:
                raise RuntimeError(f"an app behind EncryptedBodyMiddleware sent {kind!r}, which cannot be sealed")
            return in_flight  # type: ignore[no-any-return]

        turns, waiting = asyncio.Lock(), 0
        first: Any = _Sent

        # Tasks may send at once, as sse-starlette's pings do: while a slow client lets both wait, the server might take
        # their frames in another order than they were sealed in. So all but the first wait here, not yet sealed, and
        # `_Waiting` takes its place in flight: whoever comes then waits, too.
        async def send_in_turn(message: Message) -> None:
            nonlocal in_flight, first, waiting
            if not waiting:
                in_flight, first = _Waiting, in_flight
            waiting += 1
            try:
                async with turns:
                    # Nobody tells when a coroutine ends that somebody else awaits, and one around each would burden
                    # every token: so whoever is the next looks again and again.
                    while first.cr_frame is not None:
                        await asyncio.sleep(_LOOK_AGAIN_S)
                        if inspect.getcoroutinestate(first) == inspect.CORO_CREATED:
                            raise RuntimeError("the app sent a message without awaiting it: nothing can follow it")
                    in_flight = _Sent
                    try:
                        first = seal_and_send(message)
                    finally:
                        in_flight = _Waiting
                    await first
            finally:
                waiting -= 1
                if not waiting:
                    in_flight = first

        def seal_and_send(message: Message) -> Awaitable[None]:
            if (sending := itself()) is None:
                raise RuntimeError("the app has returned: its response has ended without this message")
            return sending(message)

        # With a reference of its own, what the request holds would outlive it until the garbage collector comes.
        itself = weakref.ref(send_sealed)
        return send_sealed

    # What the server has not taken has not happened: an app may be cancelled, or refused, while it sends.
    async def _start(self, message: Message) -> None:
        await self._send(message)
        self._response_started = True

    async def _end(self, message: Message) -> None:
        await self._send(message)
        self._response_ended = True

    async def _complete_with_error(self, send_sealed: Send) -> None:
        """Answer where the app did not, and leave an answer that it broke off without a valid end."""
        if self._response_ended:
            return
        if self._response_started:
            await self._send({**_UNFINISHED})
        elif isinstance(self._broken, FrameTooLargeError):
            await respond.frame_too_large(self._send, self._broken)
        elif self._broken is not None:
            await respond.malformed(self._send)
        else:
            await respond.internal_error(send_sealed)

    def _break_off_at_once(self) -> None:
        """Leave a response without a valid end, as far as that takes no waiting: whoever cancels does not wait."""
        if self._response_started and not self._response_ended:
            sending = self._send({**_UNFINISHED}).__await__()
            with contextlib.suppress(Exception):
                next(sending)
                sending.close()

    def _scope_for_app(self, scope: Scope) -> Scope:
        headers = [(name, value) for name, value in scope["headers"] if name not in _HEADERS_OF_THE_SEALED]
        if self._body_ended:
            headers.append((b"content-length", b"%d" % len(self._opened)))
        else:
            headers.append((b"transfer-encoding", b"chunked"))
        extensions = {
            name: value for name, value in scope.get("extensions", {}).items() if name in _HARMLESS_EXTENSIONS
        }
        return {**scope, "headers": headers, "extensions": extensions, OPENED: True}


def _sealed_start(message: Message, response_nonce: bytes) -> Message:
    headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _HEADERS_NOT_SENT]
    headers += [
        (_NONCE.lower(), response_nonce.hex().encode()),
        (b"access-control-expose-headers", _NONCE),
    ]
    return {**message, "headers": headers}


def _declared_length(start: Message) -> int | None:
    """Return the Content-Length that the app promises: no server holds it to that, where it is not sent."""
    if start["status"] < 200 or start["status"] in (204, 304):
        return None
    lengths = {value for name, value in start.get("headers", ()) if name.lower() == b"content-length"}
    return int(*lengths) if len(lengths) == 1 and all(length.isdigit() for length in lengths) else None


def _missing_after(missing: int, body: bytes, more_body: bool) -> int:
    missing -= memoryview(body).nbytes
    if missing < 0:
        raise RuntimeError(f"the response is longer than its Content-Length, by {-missing} bytes or more")
    if missing > 0 and not more_body:
        raise RuntimeError(f"the response is shorter than its Content-Length, by {missing} bytes")
    return missing


def _coroutine_function(send: Send) -> Send:
    """Return `send` if its calls yield coroutines, as those of all known servers in Python do, else one around it."""
    if inspect.iscoroutinefunction(send):
        return send

    async def send_by_coroutine(message: Message) -> None:
        await send(message)

    return send_by_coroutine


class _Sent:
    """Stands for the coroutine of a message that was sent."""

    cr_frame = None


class _Waiting:
    """Stands for the coroutines of messages that wait for their turn."""

    cr_frame = ...


async def _nothing() -> None:
    pass
