"""Turns for tasks that do the same thing at the same time: one after the other, in the order in which they come."""

import asyncio
from collections import deque


class Turns:
    """Lets tasks through one at a time, in the order in which they come.

    It does what `asyncio.Lock` does. Where nobody waits, it costs two attribute accesses, and a lock costs 0.2 us. A
    task that comes calls `await wait()` if `taken` is true, then sets it. When it is done, it calls `pass_on()` if
    anybody is `waiting`, and else sets `taken` to false.
    """

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = False
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for the turn. It stays taken while it is handed over, so nobody overtakes."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except BaseException:
            turn.cancel()
            if not turn.cancelled():  # The turn came at the same moment.
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """Give the turn to the first task that still waits for it."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                return turn.set_result(None)
        self.taken = False
