"""The store of a group on one host: a directory that only its user may enter.

Nobody ever holds a lock, so a member that is stopped or killed anywhere stands in nobody's way. A commit writes its
boxes under a new generation, where nobody looks. Then it links the register that names this generation at the next
number: of all that try, exactly one succeeds, and its boxes count from that moment.

Times are milliseconds of the clock that goes on while the machine sleeps, the same for all processes of one host.
"""

import functools
import secrets
from collections.abc import Callable, Mapping
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from server_keys._clock import boot_time
from server_keys._sharing.entries import (
    NO_GENERATION,
    Entry,
    Listing,
    ask_name,
    box_name,
    is_left_over,
    list_directory,
    mark,
    name_in,
    number_in,
    put_entry,
    put_entry_if_absent,
    read_entry,
    register_name,
    remove,
    wait_name,
    write_entry,
)
from server_keys._sharing.group_directory import GroupDirectory
from server_keys._sharing.leftovers import remove_directory
from server_keys._sharing.places import Place
from server_keys._sharing.replay_files import replay_file_names
from server_keys._sharing.store import (
    MOST_ASK_BYTES,
    MOST_ASKS,
    MOST_BOX_BYTES,
    MOST_REGISTER_BYTES,
    CrowdedStoreError,
    Look,
    StoreError,
    Taken,
)

P = ParamSpec("P")
R = TypeVar("R")

_ATTEMPTS = 5
_MOST_ROUNDS = 100
"""How often asks are listed and removed while somebody may go on putting some there."""
_WRITING_MS = 60_000
"""A file that is being written for longer than this has lost its writer."""


class _Found(NamedTuple):
    """What is in the directory."""

    names: Listing
    register: bytes
    generation: bytes


def _in_its_directory(
    work: Callable[Concatenate["DirectoryStore", int, P], R],
) -> Callable[Concatenate["DirectoryStore", P], R]:
    """Give a method the descriptor of the store's directory. If that vanishes meanwhile, begin again in a new one."""

    @functools.wraps(work)
    def in_its_directory(store: "DirectoryStore", /, *arguments: P.args, **options: P.kwargs) -> R:
        return store.directory.run(lambda directory: work(store, directory, *arguments, **options))

    return in_its_directory


class DirectoryStore:
    """The store of one group, in a directory. See `Store` for what the methods promise.

    If its directory vanishes, there is an empty store at the same place.

    Args:
        place: where the directory may be.
    """

    def __init__(self, place: Place) -> None:
        self.directory = GroupDirectory(place)
        """The directory, in which others may work, too."""
        self._is_removed_at_the_end = place.is_removed_at_the_end

    @property
    def shown(self) -> str:
        """The path of the directory."""
        return self.directory.path

    @_in_its_directory
    def look(self, directory: int, name: bytes) -> Look:
        """Return what is there for the member whose ask is called `name`."""
        found = _find(directory)
        waiting = len(found.names.waiting(found.generation)) if found.names.waits else 0
        return Look(found.register, len(found.names.asks), waiting, ask_name(name) in found.names.asks, _now_ms())

    @_in_its_directory
    def commit(
        self, directory: int, expected: bytes, register: bytes, boxes: Mapping[bytes, bytes], keep_s: float
    ) -> bool:
        """Put `register` and `boxes` there, all or nothing, if the register is still `expected`."""
        found = _find(directory)
        if found.register != expected:
            return False
        generation = secrets.token_bytes(len(NO_GENERATION))
        file_names = {name: box_name(generation, name) for name in boxes}
        is_put = False
        try:
            for name, box in boxes.items():
                write_entry(directory, file_names[name], _entry(box, keep_s))
            is_put = self._put_register(directory, found, generation, register, keep_s)
        finally:
            if not is_put:
                for file_name in file_names.values():
                    remove(directory, file_name)
        if is_put:
            self._check_it_counts(directory, found)
            _remove_older(directory, found.names, keep_s)
        return is_put

    @_in_its_directory
    def restore(self, directory: int, expected: bytes, register: bytes, keep_s: float) -> bool:
        """Put `register` there, and nothing else, if it is still `expected`. Returns whether it happened."""
        found = _find(directory)
        is_put = found.register == expected and self._put_register(directory, found, found.generation, register, keep_s)
        if is_put:
            self._check_it_counts(directory, found)
            _remove_registers(directory, found.names)
        return is_put

    @_in_its_directory
    def ask(self, directory: int, name: bytes, ask: bytes, *, waits: bool, keep_s: float) -> None:
        """Put an ask there; with `waits`, its member is also one of those who wait."""
        found = _find(directory)
        if len(found.names.asks) >= MOST_ASKS and ask_name(name) not in found.names.asks:
            raise CrowdedStoreError(f"the directory {self.shown!r} holds {MOST_ASKS} asks already")
        put_entry(directory, ask_name(name), _entry(ask, keep_s))
        if waits:
            mark(directory, wait_name(found.generation, name))

    @_in_its_directory
    def asks(self, directory: int) -> dict[bytes, bytes]:
        """Return all asks by their names, without those of more than `MOST_ASK_BYTES`."""
        return self._read_asks(directory, list_directory(directory).asks)

    @_in_its_directory
    def waiting(self, directory: int) -> dict[bytes, bytes]:
        """Return the asks of those who wait, as `asks` does."""
        found = _find(directory)
        return self._read_asks(directory, found.names.waiting(found.generation))

    @_in_its_directory
    def serve(self, directory: int, name: bytes, box: bytes, keep_s: float) -> bool:
        """Put a box there unless there is one, and let its member wait no longer. Returns whether this box was put."""
        generation = _find(directory).generation
        is_put = put_entry_if_absent(directory, box_name(generation, name), _entry(box, keep_s))
        remove(directory, wait_name(generation, name))
        return is_put

    @_in_its_directory
    def take(self, directory: int, name: bytes) -> Taken | None:
        """Take the box and the ask called `name` out of the store; None if there is no box."""
        file_name = box_name(_find(directory).generation, name)
        entry = read_entry(directory, file_name, MOST_BOX_BYTES)
        now_ms = _now_ms()
        if entry is None or not entry.lives_at(now_ms):
            return None
        remove(directory, file_name)
        remove(directory, ask_name(name))
        return Taken(entry.body, now_ms)

    @_in_its_directory
    def leave(self, directory: int, name: bytes) -> None:
        """Take the ask called `name` out of the store, and its box. The last one cleans up behind the group."""
        found = _find(directory)
        for file_name in (
            ask_name(name),
            box_name(found.generation, name),
            wait_name(found.generation, name),
        ):
            remove(directory, file_name)
        if list_directory(directory).asks:
            return
        if self._is_removed_at_the_end:
            remove_directory(self.shown)
            return
        for replay_file in replay_file_names(directory):
            remove(directory, replay_file)
        if found.register:
            # An empty register under a new generation: whoever comes next finds nothing, and waits for nobody.
            generation = secrets.token_bytes(len(NO_GENERATION))
            if self._put_register(directory, found, generation, b"", 0.0):
                _remove_older(directory, found.names, 0.0)

    @_in_its_directory
    def forget_asks(self, directory: int) -> None:
        """Remove all asks. Members notice and ask again."""
        for _ in range(_MOST_ROUNDS):
            names = list_directory(directory)
            gone = [remove(directory, name) for name in [*names.asks, *names.waits]]
            if not any(gone):
                return

    def close(self) -> None:
        """Close the descriptor. Never raises."""
        self.directory.close()

    def _put_register(self, directory: int, found: _Found, generation: bytes, register: bytes, keep_s: float) -> bool:
        """Put the register there that comes after the one that was found. Returns whether it happened."""
        number = found.names.number + 1
        if number_in(register_name(number)) is None:
            # A number this high is somebody's nonsense.
            remove(directory, register_name(found.names.number))
            raise StoreError(f"the directory {self.shown!r} held a register without a successor")
        return put_entry_if_absent(directory, register_name(number), _entry(generation + register, keep_s))

    def _check_it_counts(self, directory: int, before: _Found) -> None:
        """Check that the register that was just put there counts, or was followed, in the directory that counts.

        Its number was free also if others used it during a long pause and removed its file since. They do that when
        they are two numbers further.
        """
        self.directory.require_in_place()
        if list_directory(directory).number > before.names.number + 2:
            raise StoreError(f"the directory {self.shown!r} went on while the register was put there")

    def _read_asks(self, directory: int, file_names: list[str]) -> dict[bytes, bytes]:
        if len(file_names) > MOST_ASKS:
            raise CrowdedStoreError(f"the directory {self.shown!r} holds more than {MOST_ASKS} asks")
        now_ms = _now_ms()
        asks = {}
        for file_name in file_names:
            name = name_in(file_name)
            entry = read_entry(directory, ask_name(name), MOST_ASK_BYTES) if name else None
            if name and entry and entry.put_ms <= now_ms:
                asks[name] = entry.body
        return asks


def _find(directory: int) -> _Found:
    """Return what is in the directory, with the register that is named by the highest number."""
    names = list_directory(directory)
    for _ in range(_ATTEMPTS):
        if not names.number:
            return _Found(names, b"", NO_GENERATION)
        most_bytes = len(NO_GENERATION) + MOST_REGISTER_BYTES
        entry = read_entry(directory, register_name(names.number), most_bytes)
        if entry is not None and len(entry.body) >= len(NO_GENERATION):
            generation, register = entry.body[: len(NO_GENERATION)], entry.body[len(NO_GENERATION) :]
            return _Found(names, register if entry.lives_at(_now_ms()) else b"", generation)
        # It is no register, or two commits went by since the names were listed.
        before, names = names, list_directory(directory)
        if names.number == before.number:
            break
    return _Found(names, b"", NO_GENERATION)


def _remove_older(directory: int, before: Listing, keep_s: float) -> None:
    """Remove what a commit makes obsolete. Only what was there before it: others may write their next one already."""
    now_ms = _now_ms()
    too_old_ms = now_ms - _ms(keep_s)
    _remove_registers(directory, before)
    for name in [*before.waits, *before.boxes]:
        remove(directory, name)
    for name in before.news:
        if is_left_over(name, now_ms - _WRITING_MS, now_ms):
            remove(directory, name)
    for name in before.asks:
        entry = read_entry(directory, name, MOST_ASK_BYTES)
        if entry is None or not entry.lives_at(now_ms) or entry.put_ms < too_old_ms:
            remove(directory, name)


def _remove_registers(directory: int, before: Listing) -> None:
    """Remove the registers of which those who just listed them need none: all before the last one."""
    for name in before.registers:
        if (number_in(name) or 0) < before.number:
            remove(directory, name)


def _entry(body: bytes, keep_s: float) -> Entry:
    now_ms = _now_ms()
    return Entry(now_ms, now_ms + _ms(keep_s), body)


def _now_ms() -> int:
    return int(boot_time() * 1000)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
