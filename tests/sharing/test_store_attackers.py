"""An attacker who may read and write the store, and does not have the group's secret."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import valkey

from server_keys._clock import boot_time
from tests.helpers.crossing_calls import crossing
from tests.helpers.hosts import Hosts, hosts, memory_bytes, secret_file
from tests.helpers.many_calls import calls_meanwhile
from tests.helpers.valkey import VALKEY, StoreServer, store_server

IS_LONG = os.environ.get("SHARING_TRIALS") == "long"
WRITES_PER_S = 50


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    folder = tmp_path / "store"
    folder.mkdir()
    with store_server(VALKEY, folder) as server:
        yield server


class Attacker:
    """Knows the store's password, and all that was ever in the store."""

    def __init__(self, store: StoreServer) -> None:
        self._client: Any = valkey.Valkey(port=store.port)
        self._random = random.Random(1)
        self.seen: dict[bytes, list[dict[bytes, bytes] | bytes]] = {}
        """What was in the store under each key, at several times."""
        self.writes = 0
        self.attacks: list[Callable[[], object]] = [
            self.forge_register,
            self.replay_register,
            self.forge_asks,
            self.replay_asks,
            self.copy_from_other_group,
            self.forge_boxes,
            self.swap_boxes,
            self.replay_boxes,
            self.delete,
        ]

    def groups(self) -> list[str]:
        return sorted({name.decode().rpartition(":")[0] for name in self._client.keys("server-keys:*")})

    def look(self) -> None:
        """Remember what is there."""
        for name in self._client.keys("server-keys:*"):
            is_hash = name.endswith((b":asks", b":boxes"))
            found = (
                self._client.hgetall(name) if is_hash else self._client.get(name) if name.endswith(b":reg") else None
            )
            if found:
                self.seen.setdefault(name, []).append(found)

    def forge_register(self) -> None:
        length = self._random.choice([0, 1, 41, 72, 73, 74, 256, 5000])
        self._client.set(f"{self._group()}:reg", self._random.randbytes(length), px=60_000)
        register = self._seen("reg")
        if isinstance(register, bytes) and len(register) == 73:
            # The highest number, with a tag of another register.
            self._client.set(f"{self._group()}:reg", register[:1] + b"\xff" * 8 + register[9:], px=60_000)

    def replay_register(self) -> None:
        if register := self._seen("reg"):
            self._client.set(f"{self._group()}:reg", register, px=60_000)

    def forge_asks(self) -> None:
        for _ in range(20):
            name = self._random.randbytes(32)
            self._client.hset(f"{self._group()}:asks", name, self._stamp() + self._random.randbytes(150))
            self._client.sadd(f"{self._group()}:waiting", name)

    def replay_asks(self) -> None:
        asks = self._seen("asks")
        if isinstance(asks, dict):
            for name, ask in asks.items():
                self._client.hset(f"{self._group()}:asks", name, self._stamp() + ask[13:])
                self._client.sadd(f"{self._group()}:waiting", name)

    def copy_from_other_group(self) -> None:
        ours, theirs = (self.groups() * 2)[:2]
        for name in ("reg", "asks", "waiting", "boxes"):
            self._client.copy(f"{theirs}:{name}", f"{ours}:{name}", replace=True)

    def forge_boxes(self) -> None:
        for name in self._client.hkeys(f"{self._group()}:asks"):
            self._client.hset(f"{self._group()}:boxes", name, self._random.randbytes(200))

    def swap_boxes(self) -> None:
        boxes = self._seen("boxes")
        if isinstance(boxes, dict):
            for name in self._client.hkeys(f"{self._group()}:asks"):
                self._client.hset(f"{self._group()}:boxes", name, self._random.choice([*boxes.values()]))

    def replay_boxes(self) -> None:
        boxes = self._seen("boxes")
        if isinstance(boxes, dict):
            self._client.hset(f"{self._group()}:boxes", mapping=boxes)

    def delete(self) -> None:
        self._client.delete(f"{self._group()}:{self._random.choice(['reg', 'asks', 'waiting', 'boxes'])}")

    def flood(self) -> None:
        """Put 10,000 long entries of each kind into each group, at once."""
        for group in self.groups():
            pipeline, stamp = self._client.pipeline(), self._stamp()
            for _ in range(10_000):
                name = self._random.randbytes(32)
                pipeline.hset(f"{group}:asks", name, stamp + bytes(2000))
                pipeline.sadd(f"{group}:waiting", name)
                pipeline.hset(f"{group}:boxes", name, bytes(500))
            pipeline.execute(raise_on_error=False)

    def write(self) -> None:
        self._random.choice(self.attacks)()
        self.writes += 1

    def close(self) -> None:
        self._client.close()

    def _group(self) -> str:
        return self._random.choice(self.groups() or ["server-keys:{0000000000000000}"])

    def _seen(self, name: str) -> dict[bytes, bytes] | bytes | None:
        kept = [each for key, each in self.seen.items() if key.endswith(f":{name}".encode())]
        return self._random.choice(self._random.choice(kept)) if kept else None

    def _stamp(self) -> bytes:
        seconds, microseconds = self._client.time()
        return b"%013d" % (seconds * 1000 + microseconds // 1000)


@contextmanager
def attacking(attacker: Attacker) -> Iterator[None]:
    """Let the attacker write all the time."""
    ended = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        while not ended.wait(1 / WRITES_PER_S):
            try:
                attacker.write()
                if attacker.writes % 10 == 0:
                    attacker.look()
            except valkey.ResponseError:
                pass  # a key is of another type, or gone
            except Exception as error:  # noqa: BLE001 - raised in the test's own thread
                failures.append(error)
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failures, failures


def made_by_members(group: Hosts) -> set[str]:
    """The ids of all keys that members made for the group."""
    return {event.more["message"].split("key ")[-1].split(",")[0] for event in group.made()}


def alarms_of(group: Hosts) -> dict[str, Counter[int]]:
    """Return which alarms there were, and how often each process told them."""
    alarms: dict[str, Counter[int]] = {}
    for line in group.logged("look who can", level="WARNING"):
        alarms.setdefault(line.more["message"].replace(group.share, "").partition(". ")[0], Counter())[line.pid] += 1
    return alarms


def test_who_writes_to_the_store_can_deny_sharing_and_nothing_else(store: StoreServer, tmp_path: Path) -> None:
    attacker = Attacker(store)
    with hosts(tmp_path / "ours", store.url) as group, hosts(tmp_path / "theirs", store.url) as others:
        group.start_all(("a", "b"))
        others.start_all(("c",), secret=secret_file(tmp_path, "c3" * 32))
        group.wait_for_epochs(2)
        attacker.look()
        memory = {pid: memory_bytes(pid) for pid in group.living}
        began = boot_time()
        try:
            with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
                for _ in range(10 if IS_LONG else 1):
                    attacker.flood()
                    with attacking(attacker):
                        time.sleep(4)
                        group.wait_for(lambda: len(alarms_of(group)) == 3, "alarms of all kinds")
        finally:
            attacker.close()
        ended = boot_time()
        back_s = group.wait_for_one_ring() - ended
        print(f"{attacker.writes} writes in {ended - began:.1f} s; one ring {back_s:.2f} s later")
        print(f"meanwhile {calls.tally}")
        others.wait_for_one_ring()
        group.wait_for_epochs(2)
        grown = {pid: memory_bytes(pid) - before for pid, before in memory.items()}
        print(f"memory grew by {[round(each / 1e6, 1) for each in grown.values()]} MB")

        # The servers went on, and the attacker could not have them accept anything.
        assert calls.tally.cut == 0
        assert calls.tally.statuses[200] > 0.3 * calls.tally.calls
        assert not [failure for failure in calls.tally.failed if not failure.startswith("422")]
        for each, stranger in ((group, others), (others, group)):
            made = made_by_members(each)
            own = {state.more["current"][:16] for state in each.all_states() if not state.is_shared}
            accepted = {key[:16] for state in each.all_states() for key in state.more["accepted"]}
            assert accepted <= made | own
            assert accepted.isdisjoint(made_by_members(stranger))
            assert each.longest_acceptance_s() <= 0.5 + 1.0 + 1.0 + 0.3
            numbers: dict[int, int] = {}
            for state in each.all_states():
                if state.is_shared:
                    assert state.more["epoch"] >= numbers.get(state.pid, 0), "it went back"
                    numbers[state.pid] = state.more["epoch"]
        assert max(grown.values()) < 40e6

        # Everybody hears of it, and nobody too often.
        alarms = alarms_of(group)
        print(f"alarms, and how often each process told them: {alarms}")
        assert max(max(told.values()) for told in alarms.values()) <= 1 + (ended - began) // 60
        assert not group.logged("", level="ERROR")
        assert len(group.logged("", level="WARNING")) < 60
