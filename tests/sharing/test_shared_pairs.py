"""The thread that keeps a ring up with its group: what it survives, and what it tells those who wait for it."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from server_keys import KeyPair
from server_keys._clock import boot_time
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.retries import Retries
from server_keys._keys.schedule import Schedule
from server_keys._native import ReplayTableLostError
from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.epoch import Epoch, Epochs
from server_keys._sharing.group_replays import GroupReplays
from server_keys._sharing.host_replays import HostReplays
from server_keys._sharing.member import Member
from server_keys._sharing.notices import Notices
from server_keys._sharing.shared_pairs import SharedPairs
from tests.sharing.memory_store import MemoryStore, Shelf

STORE = MemoryStore(Shelf(boot_time))


def epoch(number: int) -> Epoch:
    now = boot_time()
    return Epoch(number, EpochPairs(KeyPair.generate()), now, now + 60, now)


@dataclass
class ScriptedMember:
    """A member whose looks do what a test says, one after the other; then nothing."""

    looks: list[Callable[["ScriptedMember"], object]]
    epochs: Epochs = field(default_factory=Epochs)
    own: tuple[Epoch, ...] = ()
    contact_at: float = 0.0
    members: int | None = 2
    retries: Retries = field(default_factory=Retries)
    brought_forward: bool = False

    def look(self) -> None:
        if self.looks:
            self.looks.pop(0)(self)

    def current(self, now: float) -> Epoch | None:
        return self.epochs.current(now)

    def next_look_in_s(self) -> float:
        return 0.01

    def bring_forward(self) -> None:
        self.brought_forward = True

    def drop_ended(self) -> None: ...

    def cover_silence(self) -> None: ...

    def erase(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def pairs_of(member: ScriptedMember, host: HostReplays | None = None) -> Iterator[SharedPairs]:
    notices = Notices(STORE, across_hosts=False)
    stands_in: Member = member  # type: ignore[assignment]
    replays = GroupReplays(stands_in, host=host)
    pairs = SharedPairs(stands_in, Schedule(60.0, 60.0), poll_s=0.01, store=STORE, notices=notices, replays=replays)
    try:
        yield pairs
    finally:
        pairs.close()


def test_a_mistake_of_a_look_is_told_and_does_not_end_the_sharing(caplog: pytest.LogCaptureFixture) -> None:
    def err(member: ScriptedMember) -> None:
        raise ZeroDivisionError("a mistake")

    def hold(member: ScriptedMember) -> None:
        member.epochs = Epochs((epoch(1),))

    caplog.set_level(logging.ERROR, "server_keys")
    with pairs_of(ScriptedMember([err, err, hold])) as pairs:
        asyncio.run(pairs.ready())
        assert pairs.status.sharing.shared
    assert [record.message for record in caplog.records] == ["a look into memory failed"] * 2


def test_a_member_that_joins_remembers_nothing_for_a_key_in_use_whose_table_is_missing(store: DirectoryStore) -> None:
    now = boot_time()
    used, begun, coming = (
        replace(epoch(number), publish_at=publish_at) for number, publish_at in enumerate((now - 30, now, now + 1), 1)
    )
    replays = HostReplays(store.directory, 120.0, Notices(store, across_hosts=False), clock=boot_time)
    member = ScriptedMember([], Epochs((used, begun, coming)))
    with pairs_of(member, replays) as pairs:
        for requested in (used, begun, coming):
            for _ in range(2):  # before a look and after it
                if requested is used:
                    with pytest.raises(ReplayTableLostError):
                        pairs.seen_requests(requested.pairs).add(b"request1")
                else:
                    assert pairs.seen_requests(requested.pairs).add(os.urandom(8))
                asyncio.run(pairs.has_news())
        assert member.brought_forward


def test_another_epoch_of_a_known_number_is_news() -> None:
    first = epoch(7)
    member = ScriptedMember([], Epochs((first,)))
    with pairs_of(member) as pairs:
        assert not asyncio.run(pairs.has_news())
        another = epoch(7)
        held = sorted([first, another], key=lambda epoch: epoch.rank)
        member.looks.append(lambda member: setattr(member, "epochs", Epochs(tuple(held))))
        assert asyncio.run(pairs.has_news())
        assert {accepted.x25519.public_key for accepted in pairs.accepted} == {
            first.pair.public_key,
            another.pair.public_key,
        }
