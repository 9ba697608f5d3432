"""What a sealed request passes before the app is called: it opens, it was not seen before, and it is in its place."""

import time
from typing import NamedTuple

from starlette.types import Scope, Send

from server_keys._checks import Place
from server_keys._keys.buffer_status import BufferStatus
from server_keys._keys.ring import KeyRing
from server_keys._native import KeyErasedError, KeyMismatchError
from server_keys._sealing.arrival import is_in_place
from server_keys._sealing.buffers import Holding, buffers_of_process
from server_keys._sealing.messages_v1 import RequestV1, opened_v1
from server_keys._sealing.protocol import bytes_of_header
from server_keys._sealing.recorder import Measured
from server_keys._sealing.refusals import Refusal, wrong_place
from server_keys._sealing.replays import ReplayRule
from server_keys._sealing.request import SealedRequest
from server_keys._sealing.rewindable import Rewindable
from server_keys._sealing.upload import Upload
from server_keys._sealing.wire_v1 import parsed_request_header
from server_keys._sealing.wires import PlainRequest


class Examined(NamedTuple):
    """A sealed request that is authentic, or that has turned out to be none."""

    request: SealedRequest
    refusal: Refusal | None
    """Why the app does not get it; its answer can be sealed. None if the app gets it."""
    has_begun: bool | None
    """Whether it can be served. False if it has no body and so is not sealed, None if its client is gone."""


class Admission:
    """Examines sealed requests.

    Both methods raise `KeyMismatchError` for a request to a key that is not accepted, `FrameTooLargeError`,
    `MemoryBoundError`, `KeysUnavailableError`, and another `ValueError` for whatever else is wrong. What was opened of
    the request is wiped then.

    Args:
        place: what a request of version 1 is held to.
        replays: what happens to a request that was seen before.
        max_frame_bytes: the longest frame that is taken.
        max_buffered_bytes: how much memory the unfinished requests of the process may hold together.
    """

    def __init__(self, place: Place, replays: ReplayRule, max_frame_bytes: int, max_buffered_bytes: int) -> None:
        self._place = place
        self._replays = replays
        self._max_frame_bytes = max_frame_bytes
        self._max_buffered_bytes = max_buffered_bytes

    def buffer_status(self) -> BufferStatus:
        """Return how much memory unfinished requests hold, and may hold."""
        return buffers_of_process().status(self._max_buffered_bytes)

    async def prepare(self, ring: KeyRing) -> None:
        """Prepare for requests to `ring`, whose app is about to start. Never raises."""
        ring.tell_of_buffers(self.buffer_status)
        await self._replays.prepare(ring)

    async def examine_v1(
        self, header: str, ring: KeyRing, scope: Scope, upload: Upload, send: Send, measured: Measured
    ) -> Examined:
        """Examine a request of version 1 of the wire. Its head decides, before any of its body is received."""
        opened = await self._opened_v1(header, scope["method"], ring, measured)
        request = SealedRequest(opened, upload.receive, send, measured, Holding(self._max_buffered_bytes))
        try:
            refusal = await self._replays.refused(opened, ring) or self._misplaced(opened, scope)
            return Examined(request, refusal, None if refusal else await request.begin())
        except BaseException:
            request.end()
            raise

    async def examine_plain(
        self, header: str, ring: KeyRing, upload: Upload, send: Send, measured: Measured
    ) -> Examined:
        """Examine a request of plain EHBP. Its first frame decides, when that has arrived whole."""
        plain, request, has_begun = await self._begun_plain(header, ring, upload, send, measured)
        try:
            return Examined(request, await self._replays.refused(plain, ring) if has_begun else None, has_begun)
        except KeyErasedError:
            request.end()
            if request.broken is None:
                raise
            raise request.broken from None  # another thread gave it up at this moment
        except BaseException:
            request.end()
            raise

    async def _opened_v1(self, header: str, method: str, ring: KeyRing, measured: Measured) -> RequestV1:
        parsed = parsed_request_header(header)

        def opened() -> RequestV1:
            began_at = time.perf_counter()
            try:
                return opened_v1(parsed, method, ring.accepted_pairs, self._max_frame_bytes)
            finally:
                measured.opening_s += time.perf_counter() - began_at

        try:
            return opened()
        except KeyMismatchError:
            # Another process of the group may have made a key that has not arrived here yet.
            if not await ring.has_news():
                raise
            return opened()

    async def _begun_plain(
        self, header: str, ring: KeyRing, upload: Upload, send: Send, measured: Measured
    ) -> tuple[PlainRequest, SealedRequest, bool | None]:
        holding = Holding(self._max_buffered_bytes)
        arriving = Rewindable(upload.receive, keeps=ring.is_shared, holding=holding)

        def request() -> tuple[PlainRequest, SealedRequest]:
            wire = PlainRequest(bytes_of_header(header), ring.accepted_pairs, self._max_frame_bytes)
            return wire, SealedRequest(wire, arriving.receive, send, measured, holding)

        try:
            wire, first_try = request()
            try:
                return wire, first_try, await first_try.begin()
            except KeyMismatchError:
                # As above. The key arrives with the first frame, so what has arrived of that is opened again.
                if not await ring.has_news():
                    raise
            arriving.rewind()
            measured.received_bytes = 0
            wire, second_try = request()
            return wire, second_try, await second_try.begin()
        finally:
            arriving.forget()

    def _misplaced(self, opened: RequestV1, scope: Scope) -> Refusal | None:
        """Return why a request is refused that was sealed for another place; None if it was not."""
        if is_in_place(opened.head, scope, self._place):
            return None
        # Only its client can read what was meant.
        meant = b"%s %s" % (opened.head.method, opened.head.target)
        return wrong_place(meant.decode("latin-1"), f"{scope['method']} {scope['path']}")
