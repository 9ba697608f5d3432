"""The directory of a group, which is worked on by its descriptor: it may vanish, and a better place may come."""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from server_keys._clock import boot_time
from server_keys._sharing.places import OpenDirectory, Place
from server_keys._sharing.store import StoreError
from server_keys.errors import SharePlaceError

R = TypeVar("R")

_ATTEMPTS = 5
_BETTER_PLACE_S = 1.0
"""How often a member whose directory is not in the best place looks whether that can be used now."""


class GroupDirectory:
    """The directory in which all members of a group meet, at the place where they look for it now.

    It may vanish at any time: systemd-logind removes a user's files in /dev/shm (RemoveIPC). Then it is made again.

    Args:
        place: where the directory may be.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._opened: OpenDirectory | None = None
        self._better_at = 0.0
        self._is_closed = False
        self._one_at_a_time = threading.Lock()

    @property
    def path(self) -> str:
        """Where it is, or may be."""
        opened = self._opened
        return opened.path if opened else self._place.candidates[0]

    def run(self, work: Callable[[int], R]) -> R:
        """Return what `work` returns, which gets the descriptor. If the directory vanishes meanwhile, begin again.

        Raises:
            StoreError: the directory cannot be used.
            Exception: whatever `work` raises. After a FileNotFoundError it is called again, with a new directory.
        """
        with self._one_at_a_time:
            try:
                for _ in range(_ATTEMPTS):
                    with contextlib.suppress(FileNotFoundError):
                        return work(self._descriptor())
            except SharePlaceError as error:
                raise StoreError(str(error)) from error
            except OSError as error:
                raise StoreError(f"the directory {self.path!r} cannot be used: {error.strerror or error}") from error
            raise StoreError(f"the directory {self.path!r} is removed again and again")

    def require_in_place(self) -> None:
        """Check that the directory which `work` got is still where members look for it. To be called by `work`.

        Raises:
            FileNotFoundError: it is not.
        """
        if self._opened is None or not self._opened.is_in_place():
            raise FileNotFoundError

    def close(self) -> None:
        """Close the descriptor. Never raises."""
        with self._one_at_a_time:
            self._is_closed = True
            self._let_go()

    def _descriptor(self) -> int:
        """Return the descriptor of the directory, which is where members look for it now.

        Raises:
            SharePlaceError: no place can be used.
        """
        if self._is_closed:
            raise StoreError(f"the directory {self.path!r} is closed")
        opened = self._opened
        if opened is None or not opened.is_in_place():
            self._let_go()
            opened = self._opened = self._place.open()
            self._better_at = boot_time() + _BETTER_PLACE_S
        if opened.rank and boot_time() >= self._better_at:
            opened = self._in_a_better_place(opened)
        return opened.descriptor

    def _in_a_better_place(self, opened: OpenDirectory) -> OpenDirectory:
        """Return the directory to use. It is in a better place if that can be used now: newcomers take that one."""
        self._better_at = boot_time() + _BETTER_PLACE_S
        try:
            better = self._place.open(better_than=opened.rank)
        except SharePlaceError:
            return opened
        self._let_go()
        self._opened = better
        return better

    def _let_go(self) -> None:
        if self._opened is not None:
            os.close(self._opened.descriptor)
            self._opened = None
