"""The files in a group's directory: their names, their bytes, and how they are read and written.

Their names, with everything in hex digits:

- `register-<number>`: the register is in the file with the highest number
- `ask-<name>`: an ask
- `wait-<generation>-<name>`: empty; the ask of this name waits
- `box-<generation>-<name>`: the box for the ask of this name
- `new-<time>-<random>`: a file that is being written

A generation is what one commit put there. The register's file says which one counts.
"""

import contextlib
import errno
import os
import secrets
import stat
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from server_keys._sharing.store import MOST_ASKS

NO_GENERATION = bytes(8)
_LAST_NUMBER = 2**63
_MOST_NAMES = 2 * MOST_ASKS
_HEADER = struct.Struct(">QQ")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IS_NO_ENTRY = {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}


def ask_name(name: bytes) -> str:
    """Return the file name of an ask."""
    return f"ask-{name.hex()}"


def wait_name(generation: bytes, name: bytes) -> str:
    """Return the name of the file that says that an ask waits."""
    return f"wait-{generation.hex()}-{name.hex()}"


def box_name(generation: bytes, name: bytes) -> str:
    """Return the file name of a box."""
    return f"box-{generation.hex()}-{name.hex()}"


def register_name(number: int) -> str:
    """Return the file name of a register."""
    return f"register-{number:016x}"


def name_in(file_name: str) -> bytes | None:
    """Return the name of the ask that a file name ends with; None if it does not."""
    try:
        name = bytes.fromhex(file_name[-64:])
    except ValueError:
        return None
    return name if len(name) == 32 else None


@dataclass(slots=True)
class Listing:
    """The names of a group's files. At most `_MOST_NAMES` of a kind are kept; the rest is left for another time."""

    number: int = 0
    """The highest number of a register; 0 if there is none."""
    registers: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)

    def waiting(self, generation: bytes) -> list[str]:
        """Return the names of the files that say who waits."""
        prefix = f"wait-{generation.hex()}-"
        return [name for name in self.waits if name.startswith(prefix)]


def list_directory(directory: int) -> Listing:
    """Return the names of a group's files. Other names are passed over."""
    listing = Listing()
    kinds = {
        "regi": (25, listing.registers),
        "ask-": (68, listing.asks),
        "wait": (86, listing.waits),
        "box-": (85, listing.boxes),
        "new-": (37, listing.news),
    }
    unknown: tuple[int, list[str]] = (0, [])
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            length, names = kinds.get(name[:4], unknown)
            if len(name) != length:
                continue
            if names is listing.registers:
                listing.number = max(listing.number, number_in(name) or 0)
            if len(names) < _MOST_NAMES:
                names.append(name)
    return listing


def number_in(file_name: str) -> int | None:
    """Return the number of a register's file; None if it has none, or one that has no successor."""
    try:
        number = int(file_name.removeprefix("register-"), 16)
    except ValueError:
        return None
    return number if register_name(number) == file_name and 0 < number < _LAST_NUMBER else None


class Entry(NamedTuple):
    """What a file holds."""

    put_ms: int
    until_ms: int
    body: bytes

    def lives_at(self, time_ms: int) -> bool:
        """Tell whether it counts. One from the future was put there before the machine started."""
        return self.put_ms <= time_ms < self.until_ms

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return _HEADER.pack(self.put_ms, self.until_ms) + self.body


def read_entry(directory: int, name: str, most_bytes: int) -> Entry | None:
    """Read a file.

    Returns:
        What it holds. None if there is none, if it is no regular file of ours, or if its body has more bytes than
        `most_bytes`; then nothing was read, and nothing waited for.
    """
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError as error:
        if error.errno in _IS_NO_ENTRY:
            return None
        raise
    try:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or not _HEADER.size <= found.st_size <= _HEADER.size + most_bytes:
            return None
        read = os.read(descriptor, found.st_size)
    finally:
        os.close(descriptor)
    if len(read) != found.st_size:
        return None
    put_ms, until_ms = _HEADER.unpack_from(read)
    return Entry(put_ms, until_ms, read[_HEADER.size :])


def write_entry(directory: int, name: str, entry: Entry) -> None:
    """Write a file that is not there yet, and that nobody reads yet."""
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
    try:
        rest = entry.to_bytes()
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        remove(directory, name)
        raise
    finally:
        os.close(descriptor)


def put_entry(directory: int, name: str, entry: Entry) -> None:
    """Write a file; it takes the place of the one that may be there."""
    new = _write_new(directory, entry)
    try:
        os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        remove(directory, new)
        raise


def put_entry_if_absent(directory: int, name: str, entry: Entry) -> bool:
    """Write a file unless there is one. Returns whether it did. Of several that try at once, exactly one does."""
    new = _write_new(directory, entry)
    try:
        os.link(new, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        return False
    finally:
        remove(directory, new)
    return True


def mark(directory: int, name: str) -> None:
    """Create an empty file unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, _CREATE, 0o600, dir_fd=directory))


def remove(directory: int, name: str) -> bool:
    """Remove a file, or an empty folder in its place. Returns whether it is gone by this call."""
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            return False
    return True


def is_left_over(new_name: str, before_ms: int, now_ms: int) -> bool:
    """Tell whether the writer of a `new-` file is gone: it began before `before_ms`, or before the machine started."""
    try:
        began_ms = int(new_name[4:20], 16)
    except ValueError:
        return True
    return not before_ms <= began_ms <= now_ms


def _write_new(directory: int, entry: Entry) -> str:
    name = f"new-{entry.put_ms:016x}-{secrets.token_hex(8)}"
    write_entry(directory, name, entry)
    return name
