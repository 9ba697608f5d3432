"""The requests that the processes of one host have seen together, by the epoch that they are sealed to."""

import contextlib
import threading
from collections.abc import Callable, Container, Iterable

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.replays import SeenRequests
from server_keys._native import ReplayTableError, ReplayTableLostError
from server_keys._sharing.entries import remove
from server_keys._sharing.group_directory import GroupDirectory
from server_keys._sharing.leftovers import remove_directory
from server_keys._sharing.notices import Notices
from server_keys._sharing.replay_files import (
    InPlace,
    ReplayFile,
    in_place,
    is_only_user,
    mark_gone,
    mark_lost,
    open_or_make,
    remove_old,
    replay_file_name,
    use,
)
from server_keys._sharing.store import StoreError

# Members let an epoch end at slightly different times. Its file goes when it has surely ended for all of them.
_ALL_LET_GO_S = 5.0

IsNew = Callable[[EpochPairs], bool]
"""Tells of an epoch whether no member can have seen a request yet that is sealed to it."""


def _is_new(_: EpochPairs) -> bool:
    return True


class HostReplays:
    """Keeps a table in the group's directory for each epoch of the group.

    A table is opened when its epoch arrives, before that is published. Who comes later finds it, and makes none. If a
    file loses its name, those who have it open still know all that was seen, but who comes later does not: so its
    epoch is retired, and a mark in its place keeps others from beginning anew. A file that was resized or overwritten
    is used no more at all, nor is one in whose place another was put, which others may use.

    Args:
        directory: where the files are.
        life_s: how long a private key exists at most.
        notices: the log.
        clock: tells the time in seconds.
        is_alone: whether nothing else of the group is in the folder, because its members are on many hosts. Then the
            last process that has tables there removes it. Else the group does.
    """

    def __init__(
        self,
        directory: GroupDirectory,
        life_s: float,
        notices: Notices,
        *,
        clock: Callable[[], float],
        is_alone: bool = False,
    ) -> None:
        self._directory = directory
        self._life_s = life_s
        self._notices = notices
        self._clock = clock
        self._is_alone = is_alone
        self._files: dict[bytes, ReplayFile] = {}
        self._seen: dict[bytes, SeenRequests] = {}
        self._ended_at: dict[str, float] = {}
        self._is_news = False
        self._lock = threading.RLock()
        renew_lock_after_fork(self)

    def of(self, pairs: EpochPairs, is_new: IsNew = _is_new) -> SeenRequests:
        """Return the requests that are sealed to an epoch of the group. Any thread may call.

        Args:
            pairs: the epoch's.
            is_new: tells of an epoch whether no member can have seen a request yet.

        Raises:
            ReplayTableLostError: the epoch has ended.
        """
        public_key = pairs.x25519.public_key
        seen = self._seen.get(public_key)
        if seen is not None:
            return seen
        with self._lock:
            if public_key not in self._seen:
                if pairs.erased:
                    raise ReplayTableLostError("the key is erased, and the requests that were sealed to it forgotten")
                # The first process of a host may get an epoch that other hosts published long ago.
                self._seen[public_key] = self._opened(public_key, may_make=self._is_alone or is_new(pairs))
            return self._seen[public_key]

    def keep_up(self, epochs: Iterable[EpochPairs], is_new: IsNew = _is_new) -> bool:
        """Open the tables of new epochs, let go of those that have ended, and look after all others.

        To be called by the thread that looks.

        Args:
            epochs: those of the group that live.
            is_new: as for `of`.

        Returns:
            Whether an epoch was retired since the last call: the group's next one must come soon.
        """
        living = {pairs.x25519.public_key: pairs for pairs in epochs}
        has_opened = False
        for public_key, pairs in living.items():
            has_opened = has_opened or public_key not in self._seen
            with contextlib.suppress(ReplayTableLostError):  # It ends just now.
                self.of(pairs, is_new)
        if has_opened:
            self._remove_old(living)
        for public_key in living:
            self._look_after(public_key)
        self._let_go(living)
        is_news, self._is_news = self._is_news, False
        return is_news

    def close(self) -> None:
        """Let go of all tables. The files stay for the others. Never raises."""
        with self._lock:
            self._files.clear()
            self._seen.clear()
        if self._is_alone:
            with contextlib.suppress(StoreError):
                if self._directory.run(is_only_user):
                    remove_directory(self._directory.path)
            self._directory.close()

    def _opened(self, public_key: bytes, *, may_make: bool) -> SeenRequests:
        name = replay_file_name(public_key)
        # It may come back after this process alone has let go of it.
        self._ended_at.pop(name, None)

        def open_it(directory: int) -> ReplayFile:
            if self._is_alone:
                use(directory)
            return open_or_make(directory, name, may_make=may_make)

        try:
            file = self._files[public_key] = self._directory.run(open_it)
        except (ReplayTableError, StoreError) as error:
            self._notices.no_replay_table(str(error))
            self._is_news = True
            return SeenRequests(None)
        return SeenRequests(file.table)

    def _remove_old(self, living: Iterable[bytes]) -> None:
        """Remove the tables that members left which were killed."""
        names = [*map(replay_file_name, living), *map(replay_file_name, self._files)]
        with contextlib.suppress(StoreError):
            self._directory.run(lambda directory: remove_old(directory, but=names, older_than_s=2 * self._life_s))

    def _look_after(self, public_key: bytes) -> None:
        """Find out whether the file of a table is still there, and tell others if it is not."""
        seen, file = self._seen.get(public_key), self._files.get(public_key)
        if seen is None or file is None or (seen.is_lost and file.is_marked):
            return
        name = replay_file_name(public_key)
        with contextlib.suppress(ReplayTableLostError):
            seen.check()
        # Where the directory cannot be reached, whoever comes next cannot begin anew in it either.
        with contextlib.suppress(StoreError):
            found = self._directory.run(lambda directory: in_place(directory, name, file))
            if found is InPlace.SOMETHING_ELSE:
                seen.lose()
            if seen.is_lost:
                self._directory.run(lambda directory: mark_lost(directory, name))
                self._files[public_key] = file._replace(is_marked=True)
            elif found is InPlace.NOTHING:
                self._directory.run(lambda directory: mark_gone(directory, name))
            if seen.is_lost or (found is not InPlace.THE_FILE and not seen.is_retired):
                seen.is_retired = self._is_news = True
                self._notices.lost_replay_table()

    def _let_go(self, living: Container[bytes]) -> None:
        now = self._clock()
        with self._lock:
            for public_key in [public_key for public_key in self._seen if public_key not in living]:
                del self._seen[public_key]
                if self._files.pop(public_key, None):
                    self._ended_at[replay_file_name(public_key)] = now
        gone = [name for name, ended_at in self._ended_at.items() if now >= ended_at + _ALL_LET_GO_S]
        for name in gone:
            del self._ended_at[name]
        if gone:
            with contextlib.suppress(StoreError):
                self._directory.run(lambda directory: [remove(directory, name) for name in gone])
