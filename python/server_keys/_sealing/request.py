"""One sealed request: it is opened while it arrives, the app answers it, and the answer is sealed."""

import asyncio
import contextlib
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._native import FrameTooLargeError, KeyErasedError, MalformedMessageError
from server_keys._sealing import answers
from server_keys._sealing.buffers import FREE_BYTES, GivenUpError, Holding, MemoryBoundError
from server_keys._sealing.off_loop import run_off_loop
from server_keys._sealing.opened_scope import opened_scope
from server_keys._sealing.recorder import Measured
from server_keys._sealing.response import SealedResponse
from server_keys._sealing.spans import record_opening
from server_keys._sealing.wires import RequestWire

Broken = FrameTooLargeError | MalformedMessageError | MemoryBoundError
"""Why a request ends before its body does."""

# By how much a frame is longer than its plaintext: its length and its tag.
_FRAME_OVERHEAD_BYTES = 20

# Opening as much as this on the event loop would hold it up for longer than a thread costs. This package's client seals
# 64 KiB at a time; other clients seal a whole body as one frame.
_OFF_LOOP_BYTES = 4 * 1024 * 1024


class SealedRequest:
    """Gives the app a `receive` that opens the request and a `send` that seals the response.

    Its keys are wiped as soon as it ends, in whatever way: exceptions, tracebacks and tasks of the app may hold it for
    longer.

    Args:
        wire: knows how the request is sealed.
        receive: the server's, for the sealed request.
        send: the server's, for the sealed response.
        measured: counts what is received and sent.
        holding: counts the memory that the request holds.
    """

    def __init__(self, wire: RequestWire, receive: Receive, send: Send, measured: Measured, holding: Holding) -> None:
        self._wire = wire
        self._opener = wire.opener
        self._receive = receive
        self._send = send
        self._measured = measured
        self._holding = holding
        self._piece_bytes = 0
        self._opened_bytes = 0
        self._opened = b""
        self._body_ended = False
        self._body_delivered = False
        self._over = False
        self._broken: Broken | None = None
        self._opening_off_loop: asyncio.Task[None] | None = None
        self._response: SealedResponse | None = None

    @property
    def broken(self) -> Broken | None:
        """Why the request ends before its body does; None if it does not."""
        return self._broken

    async def begin(self) -> bool | None:
        """Receive until the app can be called. If it cannot, the request ends here.

        Returns:
            True if it can, False if the request has no body and so is not sealed, None if the client has disconnected.

        Raises:
            KeyMismatchError: the first frame opens under no accepted key.
            FrameTooLargeError: a frame is longer than the limit.
            MemoryBoundError: there is no memory for what has arrived, or others needed it and the client was idle.
            MalformedMessageError: anything else is wrong.
        """
        has_begun = False
        try:
            while not self._wire.can_begin(has_plaintext=bool(self._opened), has_ended=self._body_ended):
                message = await (
                    self._holding.receive_by(self._receive) if self._holding.counted_bytes else self._receive()
                )
                if message["type"] == "http.disconnect":
                    return None
                if self._wire.is_unsealed(message):
                    return False
                await self._open(message)
                del message  # its bytes would stay until the next one comes
                # Most bodies come whole and short: then nothing is held that counts.
                if not self._body_ended or len(self._opened) > FREE_BYTES or self._holding.counted_bytes:
                    self._hold(self._opener.held_bytes, len(self._opened))
            has_begun = True
            self._measured.wire = self._wire.name
            self._measured.opened_at_ns = time.time_ns()
            return True
        except KeyErasedError:
            if self._broken is not None:  # it was given up at this moment
                raise self._broken from None
            raise
        finally:
            if not has_begun:
                self.end()

    async def serve(self, app: ASGIApp, scope: Scope) -> Broken | None:
        """Let `app` answer the request, which has begun. Then the request ends.

        Returns:
            The error that broke the request before a response began, for the caller to refuse it; else None.
        """
        try:
            response = self._sealed_response()
            return self._broken if response is None else await self._answer(app, scope, response)
        finally:
            self.end()

    async def refuse(self, app: ASGIApp, scope: Scope) -> Broken | None:
        """Let `app` answer the request, of which nothing more is opened. Then the request ends.

        Returns:
            As `serve` does.
        """
        try:
            response = self._sealed_response()
            # A client may be slow to end its body.
            self._end_body()
            return self._broken if response is None else await self._answer(app, scope, response)
        finally:
            self.end()

    def _sealed_response(self) -> SealedResponse | None:
        """Return what seals the response; None if the request is broken."""
        if self._broken is not None:
            return None
        try:
            self._response = SealedResponse(self._wire.response(), self._send, self._measured, self._end_body)
        except KeyErasedError:
            if self._broken is None:  # another thread may give it up at this moment
                raise
            return None
        return self._response

    async def _answer(self, app: ASGIApp, scope: Scope, response: SealedResponse) -> Broken | None:
        send = response.send_for_app()
        try:
            body_bytes = len(self._opened) if self._body_ended else None
            await app(opened_scope(scope, self._wire, body_bytes), self._receive_opened, send)
        except Exception:
            # If the request broke off, any exception of the app is a consequence: the client gets the refusal instead.
            if self._broken is None:
                # The app's exception is the one to raise, even if the server takes no answer any more.
                with contextlib.suppress(Exception):
                    await self._complete(response, send)
                raise
        except BaseException:
            response.break_off_at_once()
            raise
        await self._complete(response, send)
        return None if response.started else self._broken

    async def _receive_opened(self) -> Message:
        record_opening(self._measured)
        while not self._body_delivered:
            if self._broken is not None or self._over:
                return {"type": "http.disconnect"}
            try:
                if self._opened or self._body_ended:
                    return self._delivered()
                if self._opening_off_loop is not None:
                    await self._opened_off_loop()
                    continue
                message = await (
                    self._holding.receive_by(self._receive) if self._holding.counted_bytes else self._receive()
                )
                if message["type"] != "http.request":
                    return message
                if self._over:
                    continue
                await self._open(message)
                del message
                self._hold(self._opener.held_bytes, 0)  # what is opened goes to the app at once
            except KeyErasedError:
                if not self._over and self._broken is None:
                    raise
            except MemoryBoundError as error:
                self._free(error.with_traceback(None))
            except (FrameTooLargeError, MalformedMessageError) as error:
                # Drop the traceback: it refers to this object, and would keep frames beyond the request.
                self._break(error.with_traceback(None))
        return await self._receive()

    def _delivered(self) -> Message:
        """Return what is opened, for the app."""
        opened, self._opened = self._opened, b""
        self._body_delivered = self._body_ended
        if self._holding.counted_bytes:
            self._holding.note_delivered(self._opener.held_bytes)
        return {"type": "http.request", "body": opened, "more_body": not self._body_ended}

    async def _open(self, message: Message) -> None:
        """Open the frames that a message completes, after those of the messages before it."""
        await self._opened_off_loop()
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        self._measured.received_bytes += len(body)
        self._piece_bytes = len(body)
        to_open = self._opener.bytes_to_open(len(body))
        if to_open < _OFF_LOOP_BYTES:
            began_at = time.perf_counter()
            opened = self._opener.feed(body)
            self._measured.opening_s += time.perf_counter() - began_at
            self._keep(opened, is_last)
        else:
            # Meanwhile what is sealed is there, and what is opened.
            self._hold(2 * to_open, len(self._opened), waits=False)
            opening = self._opening_off_loop = asyncio.create_task(self._open_off_loop(body, is_last))
            # If nothing asks for the body any more, nothing asks for this error either.
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            await self._opened_off_loop()

    async def _open_off_loop(self, body: bytes, is_last: bool) -> None:
        began_at = time.perf_counter()
        opened = await run_off_loop(self._opener.feed, body)
        self._measured.opening_s += time.perf_counter() - began_at
        if not self._over:
            self._keep(opened, is_last)

    async def _opened_off_loop(self) -> None:
        """Wait until nothing is being opened off the loop.

        The opening goes on when the app cancels the `receive` that began it. The next one waits for it.
        """
        while (opening := self._opening_off_loop) is not None:
            await asyncio.wait([opening])
            if self._opening_off_loop is opening:
                self._opening_off_loop = None
            opening.result()

    def _keep(self, opened: bytes, is_last: bool) -> None:
        self._opened += opened
        self._opened_bytes += len(opened)
        if is_last:
            self._opener.finish()
            self._body_ended = True
            sealing_bytes = self._measured.received_bytes - self._opened_bytes
            self._measured.received_frames = sealing_bytes // _FRAME_OVERHEAD_BYTES

    def _hold(self, frame_bytes: int, opened_bytes: int, *, waits: bool = True) -> None:
        """Count what is held from now on. The request waits for its client at most until its body has ended."""
        waits = waits and not self._body_ended
        self._holding.hold(frame_bytes, opened_bytes, piece_bytes=self._piece_bytes, waits=waits, give_up=self._give_up)

    def _give_up(self) -> None:
        self._free(GivenUpError())

    def _free(self, why: MemoryBoundError) -> None:
        """Free what is held of the request. The app is to see a client that is gone."""
        self._break(why)
        self._opened = b""
        self._opener.erase()

    def _break(self, error: Broken) -> None:
        if self._broken is None:
            self._broken = error
        # The app saw only part of the request: drop its answer, and never end the response.
        if self._response is not None:
            self._response.drop_the_rest()

    def end(self) -> None:
        """Wipe the keys of the request and its response, and give nothing more to tasks that the app left behind."""
        self._end_body()
        if self._response is not None:
            self._response.end()

    def _end_body(self) -> None:
        self._over = True
        self._opened = b""
        self._opener.erase()
        self._holding.release()

    async def _complete(self, response: SealedResponse, send: Send) -> None:
        """Answer for an app that sent nothing, and break off an answer that it did not end."""
        if response.started:
            await response.break_off()
        elif self._broken is None:
            await answers.internal_error(send)
