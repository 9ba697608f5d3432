"""The memory that unfinished requests hold together: counted for the process, and bounded.

Anybody can send half a frame and then nothing, and needs no key for it. Where room is needed and there is none, the
request whose client has sent nothing for the longest time is given up.
"""

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from starlette.types import Message, Receive

from server_keys._clock import boot_time
from server_keys._keys.buffer_status import BufferStatus
from server_keys._sealing.freed_memory import FreedMemory

FREE_BYTES = 64 * 1024 + 16
"""What a request holds without being counted: a whole frame of this package's clients. So no siege refuses those."""
# A client that has sent nothing for so long is given up where others need its room.
_IDLE_S = 1.0
# What the event loops of servers read from a connection at once. A server holds that for each request that waits, as
# soon as its client goes on: where a thousand do so together, it is as much as what they sent before.
_READ_AT_ONCE_BYTES = 256 * 1024
# For so long after a request ended for want of memory, no more than so many that are refused are read to their end.
_SCARCE_S = 10.0
_MOST_READ_ON = 64


class MemoryBoundError(Exception):
    """A request ends because of what all of them hold together."""


class BuffersFullError(MemoryBoundError):
    """There is no room for what has arrived of a request, and no other one's client is idle."""


class GivenUpError(MemoryBoundError):
    """The request's client was idle, and others needed its room."""


class Buffers:
    """What the requests of a process hold together. Safe under threads.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._freed_memory = FreedMemory()
        self._scarce_until = float("-inf")
        self._read_on = 0
        # Those that wait for their clients, the one that has waited longest first.
        self._waiting: OrderedDict[Holding, None] = OrderedDict()

    def status(self, most_bytes: int) -> BufferStatus:
        """Return how much is held, for an app whose bound is `most_bytes`."""
        return BufferStatus(self._held_bytes, most_bytes)

    def hold(self, holding: "Holding", held_bytes: int, *, may_give_up: bool, may_refuse: bool) -> None:
        """Note that a request holds so much from now on. Give up others for it if there is no room.

        Args:
            holding: the request's.
            held_bytes: how much it holds in all.
            may_give_up: whether it may be given up for others, once its client has been idle for long enough.
            may_refuse: whether it may be refused where there is no room.

        Raises:
            BuffersFullError: it is refused, and holds nothing any more.
            GivenUpError: it was given up before, and holds nothing any more.
        """
        given_up: list[Holding] = []
        with self._lock:
            if holding.is_given_up:
                raise GivenUpError
            came_bytes = max(held_bytes - holding.counted_bytes, 0)
            self._set(holding, held_bytes)
            self._waiting.pop(holding, None)
            if may_give_up and held_bytes:
                holding.arrived_at = self._clock()
                self._waiting[holding] = None
            if came_bytes and self._held_bytes > holding.most_bytes:
                given_up = self._give_up_idle(holding.most_bytes)
                is_full = self._held_bytes > holding.most_bytes and may_refuse
                if is_full:
                    self._drop(holding)
                if is_full or given_up:
                    self._scarce_until = self._clock() + _SCARCE_S
            else:
                is_full = False
        for other in given_up:
            other.free_and_wake()
        with self._lock:
            self._freed_memory.note(came_bytes, self._held_bytes, holding.most_bytes)
        if is_full:
            raise BuffersFullError(f"sealed requests hold {holding.most_bytes} bytes, and no client is idle")

    @contextlib.contextmanager
    def reading_on(self) -> Iterator[bool]:
        """Yield whether the rest of a request that is refused may be read. While memory is scarce, not of all.

        The server may hold of each what it reads at once, which nobody counts.
        """
        with self._lock:
            may_read = self._read_on < _MOST_READ_ON or self._clock() > self._scarce_until
            self._read_on += may_read
        try:
            yield may_read
        finally:
            with self._lock:
                self._read_on -= may_read

    def _give_up_idle(self, most_bytes: int) -> list["Holding"]:
        idle_since = self._clock() - _IDLE_S
        given_up = []
        while self._held_bytes > most_bytes and self._waiting:
            longest = next(iter(self._waiting))
            if longest.arrived_at > idle_since:
                break
            self._drop(longest)
            # Set it here, where the lock is held: another thread may count the same request at this moment.
            longest.is_given_up = True
            given_up.append(longest)
        return given_up

    def _drop(self, holding: "Holding") -> None:
        self._waiting.pop(holding, None)
        self._set(holding, 0)

    def _set(self, holding: "Holding", held_bytes: int) -> None:
        self._held_bytes += held_bytes - holding.counted_bytes
        holding.counted_bytes = held_bytes


class Holding:
    """What one request holds.

    Args:
        most_bytes: how much all requests of the process may hold together.
    """

    # Most requests never count: these are attributes of the class until one does.
    counted_bytes = 0
    """How much of it is counted."""
    arrived_at = 0.0
    """When its client last sent something."""
    is_given_up = False
    _frame_bytes = 0
    _opened_bytes = 0
    _kept_bytes = 0
    _waits = False
    _read_bytes = 0
    _may_give_up = False
    _woken = False
    _receiving: tuple[asyncio.Task[object], ...] = ()
    _buffers: Buffers | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _give_up: Callable[[], None] | None = None

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    def hold(
        self,
        frame_bytes: int,
        opened_bytes: int = 0,
        *,
        piece_bytes: int,
        waits: bool,
        give_up: Callable[[], None],
    ) -> None:
        """Note what the request holds from now on, in place of what it held.

        A request may be refused, or given up for others, when it holds more of a frame than is free, or has opened such
        a frame. No other may: it holds hardly more than its server handed over at once, and would hold by itself.

        Args:
            frame_bytes: how much is held of a frame that is not whole, or for opening it.
            opened_bytes: how much is opened and waits for the app.
            piece_bytes: how much arrived at last.
            waits: whether the request waits for its client.
            give_up: frees what is held when the request is given up, maybe in another thread.

        Raises:
            BuffersFullError: there is no room for its frame. It is to end at once.
            GivenUpError: it was given up.
        """
        if self.is_given_up:
            raise GivenUpError
        most = max(frame_bytes, opened_bytes, self._kept_bytes)
        if most <= FREE_BYTES and not self.counted_bytes:
            return
        self._frame_bytes, self._opened_bytes, self._waits, self._give_up = frame_bytes, opened_bytes, waits, give_up
        self._read_bytes = max(self._read_bytes, min(piece_bytes, _READ_AT_ONCE_BYTES))
        self._may_give_up = waits and (frame_bytes > FREE_BYTES or opened_bytes > piece_bytes + FREE_BYTES)
        self._count(may_refuse=frame_bytes > FREE_BYTES)

    def note_delivered(self, frame_bytes: int) -> None:
        """Note that the app has taken what was opened."""
        self._frame_bytes, self._opened_bytes = frame_bytes, 0
        self._may_give_up = self._waits and frame_bytes > FREE_BYTES
        self._count(may_refuse=False)

    def keep(self, kept_bytes: int) -> None:
        """Note how much is kept of the beginning of the request for a second try. `hold` counts it."""
        self._kept_bytes = kept_bytes

    def forget_kept(self) -> None:
        """Note that no beginning is kept any longer."""
        self._kept_bytes = 0
        self._count_less()

    def release(self) -> None:
        """Note that the request holds nothing any more but what is kept of its beginning. It is not given up then."""
        if self._buffers is not None:
            self._give_up = None
            self._frame_bytes = self._opened_bytes = 0
            self._waits = self._may_give_up = False
            self._count_less()

    def _count_less(self) -> None:
        if self.counted_bytes:
            with contextlib.suppress(GivenUpError):  # by another thread, at this moment: then nothing counts
                self._count(may_refuse=False)

    def _count(self, *, may_refuse: bool) -> None:
        held_bytes = sum(
            held for held in (self._frame_bytes, self._opened_bytes, self._kept_bytes) if held > FREE_BYTES
        )
        if self._waits and self._frame_bytes > FREE_BYTES:
            held_bytes += self._read_bytes
        if self._buffers is None:
            self._buffers, self._loop = _of_process, asyncio.get_running_loop()
        # What a parent process holds is nothing to its forked child, where the lock may be taken for ever.
        if self._buffers is _of_process:
            self._buffers.hold(self, held_bytes, may_give_up=self._may_give_up, may_refuse=may_refuse)

    async def receive_by(self, receive: Receive) -> Message:
        """Return what `receive` returns.

        Raises:
            GivenUpError: the request was given up meanwhile.
        """
        if self.is_given_up:
            raise GivenUpError
        task = asyncio.current_task() if self.counted_bytes else None
        if task is None:
            return await receive()
        # The same as asyncio.timeout does: whoever else cancels the task at the same moment is heard.
        cancelling = task.cancelling()
        self._receiving = (*self._receiving, task)
        try:
            message = await receive()
        except asyncio.CancelledError:
            if self._woken and task.uncancel() <= cancelling:
                raise GivenUpError from None
            raise
        finally:
            self._receiving = tuple(other for other in self._receiving if other is not task)
        if self.is_given_up:
            if self._woken:
                task.uncancel()
            raise GivenUpError
        return message

    def free_and_wake(self) -> None:
        """Free what is held, and wake who receives: the request was given up, and counts no longer."""
        give_up, loop = self._give_up, self._loop
        if give_up is not None:
            give_up()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop of another server of this process has ended, and its requests with it
                return

    def _wake(self) -> None:
        self._woken = True
        for task in self._receiving:
            task.cancel()


_of_process: Buffers


def buffers_of_process() -> Buffers:
    """Return what the requests of this process hold."""
    return _of_process


def _renew() -> None:
    """Count anew. A forked child serves none of its parent's requests."""
    global _of_process
    _of_process = Buffers()


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
