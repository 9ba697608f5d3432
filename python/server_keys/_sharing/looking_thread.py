"""The thread that looks into a group's store again and again, and earlier where somebody waits for it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from server_keys._clock import boot_time
from server_keys._keys.fork import renew_lock_after_fork


class LookingThread:
    """A thread that no blocked event loop holds up. A forked child has none.

    Args:
        look: looks once, and returns after how many seconds to look again. Never raises.
        leave: is called at the end. Never raises.
        poll_s: the shortest time between two looks that were asked for.
    """

    def __init__(self, look: Callable[[], float], leave: Callable[[], None], *, poll_s: float) -> None:
        self._poll_s = poll_s
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._wake = threading.Event()
        self._looked: Future[None] | None = None
        self._looked_early_at = 0.0
        self.is_ending = False
        """Whether it has ended, or does so as soon as it can."""
        # Only the thread refers to them, and no longer than it runs: whoever owns this object may be theirs, too.
        self._thread = threading.Thread(target=self._run, args=(look, leave), name="server_keys sharing", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look_soon(self) -> Future[None] | None:
        """Have a look begun soon, and return what is done after it; None if there is no thread any more."""
        with self._lock:
            if self.is_ending or not self._thread.is_alive():
                return None
            if self._looked is None:
                self._looked = Future()
            looked = self._looked
        self._wake.set()
        return looked

    def end(self, wait_s: float) -> bool:
        """End the thread, and wait for that, but not for longer than `wait_s`. Return whether this call ended it."""
        with self._lock:
            if self.is_ending:
                return False
            self.is_ending = True
        self._wake.set()
        # In a forked child there is no such thread.
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(wait_s)
        return True

    def _run(self, look: Callable[[], float], leave: Callable[[], None]) -> None:
        while not self.is_ending:
            looked = self._take_looked()
            pause_s = look()
            if looked is not None:
                looked.set_result(None)
            self._sleep(pause_s)
        leave()
        if looked := self._take_looked():
            looked.set_result(None)

    def _take_looked(self) -> Future[None] | None:
        """Return what the callers wait for that asked for a look until now."""
        with self._lock:
            looked, self._looked = self._looked, None
        return looked

    def _sleep(self, pause_s: float) -> None:
        """Sleep until the next look is due, or asked for."""
        if self._wake.wait(pause_s):
            # Requests that open under no key must not make the store work harder than the group itself does.
            wait_s = self._looked_early_at + self._poll_s - boot_time()
            if wait_s > 0 and not self.is_ending:
                time.sleep(min(wait_s, self._poll_s))
            self._wake.clear()
            self._looked_early_at = boot_time()
