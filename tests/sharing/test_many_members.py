"""A thousand members of one group, simulated in one process, and a real store."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_keys._clock import boot_time
from server_keys._keys.schedule import Schedule
from server_keys._native import GroupKeys
from server_keys._sharing.door import Door
from server_keys._sharing.member import Member
from server_keys._sharing.messages import Who
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.valkey import VALKEY, StoreServer, store_server

COUNT = 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(VALKEY, tmp_path) as server:
        yield server


@pytest.fixture
def members(store: StoreServer) -> Iterator[list[Member]]:
    (keys,) = GroupKeys.from_secret_text(secrets.token_hex(32), b"")
    # Members look one after the other here, so that all of them share one connection.
    shared = ValkeyStore(ValkeyUrl.parse(store.url), keys.group_id, timeout_s=10)
    pace = Pace(Schedule(300.0, 300.0))
    members = []
    for number in range(COUNT):
        # As long as such names get.
        who = Who(
            secrets.token_hex(8), "a-host-with-a-long-name-in-a-cluster-0001", number, "2026-01-01 00:00:00 +0000"
        )
        door = Door(keys, shared, who, clock=boot_time, life_s=pace.life_s)
        notices = Notices(shared, across_hosts=False)
        maker = PairMaker(notices, clock=boot_time, erase_on_time=False)
        members.append(Member([door], pace, notices, maker, clock=boot_time))
    yield members
    for member in members:
        member.erase()
    shared.close()


def test_a_thousand_members_take_little_of_a_real_store(store: StoreServer, members: list[Member]) -> None:
    until = time.monotonic() + 300
    began = time.monotonic()
    while len({member.epochs.newest for member in members}) > 1 or not members[0].epochs.held:
        assert time.monotonic() < until
        for member in members:
            member.look()
    for member in members:
        member.look()  # who was served asks anew
    print(f"{COUNT} members joined in {time.monotonic() - began:.1f} s")

    first = members[0].epochs.newest
    members[0].bring_forward()
    began = time.perf_counter()
    members[0].look()
    commit_ms = (time.perf_counter() - began) * 1000
    assert members[0].epochs.newest > first
    content, memory = bytes_in(store), memory_in(store)
    began = time.perf_counter()
    for member in members[1:]:
        member.look()
    fetch_ms = (time.perf_counter() - began) * 1000
    print(
        f"a rotation of {COUNT} members: {commit_ms:.0f} ms for the one that makes it, {fetch_ms / COUNT:.2f} ms for "
        f"each that fetches it; the store holds {content / 1024:.0f} KiB then, in {memory / 1024:.0f} KiB of its memory"
    )
    assert {member.epochs.newest for member in members} == {members[0].epochs.newest}
    assert all(member.members == COUNT for member in members[1:])
    assert 300_000 < content <= 3 << 20
    assert bytes_in(store) < content, "who has a box takes it away"


def bytes_in(store: StoreServer) -> int:
    """Return the bytes of all names and values."""
    total = 0
    for name in store.run("KEYS", "*"):
        kind = store.administrator.type(name)
        if kind == b"string":
            total += len(store.run("GET", name))
        elif kind == b"hash":
            total += sum(len(key) + len(value) for key, value in store.administrator.hgetall(name).items())
        else:
            total += sum(map(len, store.administrator.smembers(name)))
    return total


def memory_in(store: StoreServer) -> int:
    """Return the memory that the store says it needs for them."""
    return sum(store.run("MEMORY", "USAGE", name, "SAMPLES", 0) for name in store.run("KEYS", "*"))
