"""The tables of seen requests that the processes of one host share: for each epoch a file in the group's directory.

They are called `seen-<public key>`, with the epoch's X25519 key in hex digits. A mark in the place of such a file keeps
those who come later from beginning anew, with a table that has forgotten everything. An empty mark says that the file
was gone: who has it open still shares it with all others. A mark with a content says that nobody knows any more what
was seen.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from server_keys._clock import boot_time
from server_keys._native import ReplayTable, ReplayTableError, ReplayTableLostError
from server_keys._sharing.entries import remove

_PREFIX = "seen-"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ATTEMPTS = 5
_NOBODY_KNOWS = b"nobody knows any more which requests were seen\n"


class ReplayFile(NamedTuple):
    """A table, and the file that it lies in."""

    table: ReplayTable
    identity: tuple[int, int]
    """The file system and the inode."""
    is_marked: bool = False
    """Whether `mark_lost` has put a mark in its place."""


class InPlace(Enum):
    """What is where the file of a table should be."""

    THE_FILE = auto()
    NOTHING = auto()
    MARK_OF_GONE = auto()
    """What `mark_gone` puts there."""
    SOMETHING_ELSE = auto()
    """What `mark_lost` puts there, or another table."""


def replay_file_name(public_key: bytes) -> str:
    """Return the name of the file with the requests that are sealed to an epoch."""
    return f"{_PREFIX}{public_key.hex()}"


def open_or_make(directory: int, name: str, *, may_make: bool = True) -> ReplayFile:
    """Open the table of this name; make it if there is none. All who try at the same time get the same one.

    Args:
        directory: the descriptor of the directory.
        name: the table's.
        may_make: whether no request can have been seen yet. Else a table that is missing is lost.

    Raises:
        FileNotFoundError: the directory is gone.
        OSError: the system refuses a file.
        ReplayTableError: what has the name is no table, was lost, or there is no room for a table.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return _open(directory, name)
        if not may_make:
            raise ReplayTableLostError("the replay table of a key that is in use is gone")
        with contextlib.suppress(FileExistsError):
            return _make(directory, name)
    raise ReplayTableError("somebody makes and removes the replay table again and again")


def in_place(directory: int, name: str, file: ReplayFile) -> InPlace:
    """Tell what is where a table's file should be.

    Raises:
        OSError: the system does not tell.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return InPlace.NOTHING
    if _identity(found) == file.identity:
        return InPlace.THE_FILE
    is_empty_file = stat.S_ISREG(found.st_mode) and found.st_size == 0
    return InPlace.MARK_OF_GONE if is_empty_file else InPlace.SOMETHING_ELSE


def mark_gone(directory: int, name: str) -> None:
    """Say to all who come later that a file was gone. Who has it open keeps it.

    Raises:
        FileExistsError: something is there.
        OSError: the system refuses a file.
    """
    os.close(os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory))


def mark_lost(directory: int, name: str) -> None:
    """Say to all, those who have a table open, too, that nobody knows any more what was seen.

    Raises:
        OSError: the system refuses a file.
    """
    new = _new_name()
    descriptor = os.open(new, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, _NOBODY_KNOWS)
        os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        remove(directory, new)
        raise
    finally:
        os.close(descriptor)


def is_only_user(directory: int) -> bool:
    """Tell whether no other process uses the directory for its tables alone. From then on none may begin to."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def use(directory: int) -> None:
    """Tell other processes that this one uses the directory, until its descriptor is closed."""
    fcntl.flock(directory, fcntl.LOCK_SH)


def remove_old(directory: int, *, but: Iterable[str], older_than_s: float) -> None:
    """Remove the tables that members left which were killed.

    Args:
        directory: the descriptor of the directory.
        but: names that stay.
        older_than_s: for how long a file has not been given a name, at least. It is more than an epoch lives.
    """
    left_since, stay = time.time() - older_than_s, frozenset(but)
    for name in replay_file_names(directory):
        with contextlib.suppress(OSError):
            if name not in stay and os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime < left_since:
                os.unlink(name, dir_fd=directory)


def replay_file_names(directory: int) -> list[str]:
    """Return the names of all tables in a directory."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.name.startswith(_PREFIX)]


def _open(directory: int, name: str) -> ReplayFile:
    descriptor = os.open(name, _OPEN, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ReplayTableError("a file of somebody else has the name of the replay table")
        return ReplayFile(ReplayTable.open_shared(descriptor), _identity(found))
    finally:
        os.close(descriptor)


def _make(directory: int, name: str) -> ReplayFile:
    """Make a table, and give it its name when it is whole.

    Raises:
        FileExistsError: another process was faster.
    """
    new = _new_name()
    descriptor = os.open(new, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        file = ReplayFile(ReplayTable.make_shared(descriptor), _identity(os.fstat(descriptor)))
        os.link(new, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        return file
    finally:
        os.close(descriptor)
        remove(directory, new)


def _new_name() -> str:
    # `entries` removes files of this form whose writer is gone.
    return f"new-{int(boot_time() * 1000):016x}-{secrets.token_hex(8)}"


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
