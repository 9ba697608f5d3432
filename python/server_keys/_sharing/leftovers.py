"""Removes the directories of groups that are over: their members were killed before they could."""

import contextlib
import itertools
import os
import re
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

_MOST_LOOKED_AT = 10_000
_MOST_REMOVED = 100
_GONE = ".gone-"


class GroupName(NamedTuple):
    """What the name of a group of siblings tells."""

    uid: int
    pid_namespace: int
    """The inode of the namespace in which `parent` counts."""
    parent: int
    parent_start: int
    """The parent's start time, in clock ticks since the machine's start, as /proc tells it."""


def parse_group_name(name: str) -> GroupName | None:
    """Return what a directory's name tells about its group; None if it is not the name of a group of siblings."""
    found = re.fullmatch(r"server-keys-(\d+)-(\d+)-(\d+)-(\d+)-[0-9a-f]{16}", name, re.ASCII)
    return GroupName(*map(int, found.groups())) if found else None


def remove_directory(path: str) -> None:
    """Remove a group's directory with all that is in it. Never raises.

    It is renamed first, so that it goes at once for those who still work in it: none of them finds half of it.
    """
    gone = f"{path}{_GONE}{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):
        os.rename(path, gone)
        _remove(gone)


def sweep(folder: str) -> None:
    """Remove from `folder` the directories of our user's groups whose parent process has ended. Never raises."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_LOOKED_AT)]
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return
    over = (f"{folder}/{name}" for name in names if _is_over(name, namespace))
    for path in itertools.islice(filter(_is_ours, over), _MOST_REMOVED):
        if _GONE in path:
            with contextlib.suppress(OSError):
                _remove(path)
        else:
            remove_directory(path)


def _is_over(name: str, namespace: int) -> bool:
    base, gone, _ = name.partition(_GONE)
    group = parse_group_name(base)
    if group is None or group.uid != os.geteuid():
        return False
    return bool(gone) or (group.pid_namespace == namespace and not _parent_lives(group))


def _is_ours(path: str) -> bool:
    """Tell whether a directory is ours. In a folder where anybody may write, its name proves nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _parent_lives(group: GroupName) -> bool:
    """Tell whether the parent of a group of our pid namespace lives. In doubt, it does."""
    try:
        # The name of the program, in parentheses, may hold anything. The start time is field 22 (proc(5)).
        fields = Path(f"/proc/{group.parent}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) == group.parent_start
    except FileNotFoundError:
        return not _is_nobody(group.parent)
    except (OSError, ValueError, IndexError):
        return True


def _is_nobody(pid: int) -> bool:
    """Tell whether there is no such process. What /proc does not show may be another user's (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _remove(path: str) -> None:
    """Remove a directory and the files in it. Folders in it stay, and keep it: no group makes any."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_LOOKED_AT)]
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(path)
