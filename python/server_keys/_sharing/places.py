"""Where a group's directory may be. Whoever owns it and its mode are its protection, so both are checked each time."""

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from server_keys._sharing.leftovers import parse_group_name, sweep
from server_keys._sharing.mounts import file_system_of, is_seen_by_other_machines
from server_keys.errors import SharePlaceError


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """A directory that was found at its path and is ours alone."""

    path: str
    descriptor: int
    rank: int
    """Its place among the candidates. 0 is the best."""
    identity: tuple[int, int, int, int]

    def is_in_place(self) -> bool:
        """Tell whether it is still what its path names, with the same owner and mode."""
        try:
            return _identity(os.stat(self.path, follow_symlinks=False)) == self.identity
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Place:
    """The paths where a group's directory may be, the best one first.

    All members take the first that can be used, whenever they look for it. So they end in the same one, also after
    somebody removed the directory and after another user took its name. What another user can do is to keep a group
    from its place; nobody else's directory is ever used.
    """

    candidates: tuple[str, ...]
    is_removed_at_the_end: bool
    """Whether the last member removes the directory, because nobody but the group made it."""

    def open(self, better_than: int | None = None) -> OpenDirectory:
        """Open the first candidate that is ours alone; create it if there is none.

        Args:
            better_than: try only those before this rank.

        Raises:
            SharePlaceError: none can be used. The message says of each why.
        """
        refusals = []
        for rank, path in enumerate(self.candidates[:better_than]):
            try:
                return _open(path, rank)
            except SharePlaceError as refusal:
                refusals.append(str(refusal))
        raise SharePlaceError("; ".join(refusals) or "there is no folder for temporary files")


def directory_of_siblings(group_name: str) -> Place:
    """Return the place for the workers of one server.

    It is in the first of $RUNTIME_DIRECTORY, /dev/shm and the folder for temporary files that will do. It is not in
    $XDG_RUNTIME_DIR, which goes when the user logs out, under running servers.

    Args:
        group_name: the name of the directory, which `parse_group_name` understands.

    Raises:
        SharePlaceError: no folder will do.
    """
    if parse_group_name(group_name) is None:
        raise ValueError(f"{group_name!r} is not the name of a group of siblings")
    place = Place(tuple(f"{folder}/{group_name}" for folder in _folders()), is_removed_at_the_end=True)
    sweep(os.path.dirname(_check(place)))
    return place


def named_directory(path: str) -> Place:
    """Return the place that the operator named. It is created if there is none; its parent must exist.

    Raises:
        SharePlaceError: it is not an absolute path, or not ours alone, or other machines see it.
    """
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise SharePlaceError(f"{path!r} cannot be shared: it has to be an absolute path without '..'")
    # With a slash at the end, a symlink would be followed.
    place = Place((path.rstrip("/") or "/",), is_removed_at_the_end=False)
    _check(place)
    return place


def boot_id() -> str:
    """Return the name that the system gives to the time since the machine's start.

    Raises:
        SharePlaceError: the system does not tell.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        raise SharePlaceError(f"a directory can be shared only where the boot id can be read: {error}") from error


def _folders() -> list[str]:
    """Return the folders in which a group's directory may be, the best one first."""
    folders = [os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0], "/dev/shm"]  # noqa: S108 - checked when opened
    with contextlib.suppress(FileNotFoundError):
        folders.append(tempfile.gettempdir())
    absolute = [folder.rstrip("/") for folder in folders if folder.startswith("/")]
    return list(dict.fromkeys(absolute))


def _check(place: Place) -> str:
    """Return the path at which a place can be used now."""
    opened = place.open()
    os.close(opened.descriptor)
    return opened.path


def _open(path: str, rank: int) -> OpenDirectory:
    """Open a directory that is ours alone; create it if there is none.

    Raises:
        SharePlaceError: it cannot be used.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # What O_DIRECTORY and O_NOFOLLOW refuse is told apart for the message only.
        why = "it is a symlink" if os.path.islink(path) else error.strerror
        raise SharePlaceError(f"{path!r} cannot be shared: {why}") from error
    try:
        found = os.fstat(descriptor)
        fault = _fault(descriptor, found)
        if fault is not None:
            raise SharePlaceError(f"{path!r} cannot be shared: {fault}")
        return OpenDirectory(path, descriptor, rank, _identity(found))
    except BaseException:
        os.close(descriptor)
        raise


def _fault(descriptor: int, found: os.stat_result) -> str | None:
    """Return why an open directory is not ours alone; None if it is."""
    user = os.geteuid()
    if found.st_uid != user:
        return f"it belongs to user {found.st_uid}, and this process is user {user}"
    if found.st_mode & 0o077:
        return f"other users may use it (its mode is {stat.S_IMODE(found.st_mode):04o}, and has to be 0700)"
    file_system = file_system_of(descriptor)
    if file_system is None:
        return "the system does not tell which file system it is on (/proc/self/mountinfo)"
    if is_seen_by_other_machines(file_system):
        return f"other machines may see it (its file system is {file_system}); use a local one"
    return None


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid
