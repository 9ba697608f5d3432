"""A group whose members, store and time a test holds: hours of rotation take seconds, and every state can be seen."""

import contextlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from server_keys._keys.schedule import Schedule
from server_keys._native import GroupKeys, KeyPair
from server_keys._sharing.door import Door
from server_keys._sharing.epoch import Epoch
from server_keys._sharing.member import Member
from server_keys._sharing.messages import Who
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.store import StoreError
from tests.sharing.before_xwing import OldDoor, OldPairMaker
from tests.sharing.memory_store import MemoryStore, Shelf

GROUP = [GroupKeys.of_name(b"a group")]


@dataclass(eq=False)
class Process:
    """One member, with a clock of its own and handles on its stores."""

    name: str
    member: Member
    pace: Pace
    stores: list[MemoryStore]
    clock: Callable[[], float]
    is_old: bool = False
    """Whether it is of the version before X-Wing."""
    next_look_at: float = 0.0
    is_stopped: bool = False
    made: dict[bytes, float] = field(default_factory=dict)
    """When each pair was first held here, by its public key."""

    @property
    def published(self) -> bytes | None:
        """The public key that this process publishes now."""
        current = self.member.current(self.clock())
        return current.pair.public_key if current else None

    @property
    def living(self) -> list[Epoch]:
        """All epochs that this process accepts now."""
        now = self.clock()
        held = (*self.member.epochs.held, *self.member.own)
        return [epoch for epoch in held if now < epoch.ends_at and not epoch.pairs.erased]

    @property
    def published_xwing(self) -> bytes | None:
        """The X-Wing public key that this process publishes now."""
        current = self.member.current(self.clock())
        return current.pairs.xwing.public_key if current and current.pairs.xwing else None

    @property
    def accepted(self) -> set[bytes]:
        """The public keys that this process accepts now, of both kinds."""
        pairs = [pair for epoch in self.living for pair in (epoch.pairs.x25519, epoch.pairs.xwing)]
        return {pair.public_key for pair in pairs if pair is not None}

    @property
    def is_shared(self) -> bool:
        """Whether the published key is the group's."""
        current = self.member.current(self.clock())
        return current is not None and current.number > 0


class Group:
    """Members around a store, and the time that passes for them."""

    def __init__(self, period_s: float = 10.0, overlap_s: float | None = None, *, seed: int = 1) -> None:
        self.schedule = Schedule(period_s, period_s if overlap_s is None else overlap_s)
        self.now = 1000.0
        self.shelves: dict[bytes, Shelf] = {}
        self.processes: list[Process] = []
        self.random = random.Random(seed)
        self.lacking: list[str] = []
        """What went wrong: each time that a process publishes a key which another process does not accept."""
        self.samples = 0
        self.born: dict[bytes, float] = {}
        """When each pair was made, by its public key."""
        self.watch: Callable[[], Iterable[Process]] = lambda: self.processes
        """The processes among which no key may be lacking."""
        random.seed(seed)

    def shelf(self, keys: GroupKeys = GROUP[0]) -> Shelf:
        """Return what the store holds of a group."""
        return self.shelves.setdefault(keys.group_id, Shelf(lambda: self.now))

    def join(
        self,
        count: int = 1,
        *,
        schedule: Schedule | None = None,
        doors: list[GroupKeys] = GROUP,
        clock_ahead_s: float = 0.0,
        old: bool = False,
    ) -> list[Process]:
        """Let processes join, of the version before X-Wing if they are `old`, and return them."""
        return [self._new(schedule or self.schedule, doors, clock_ahead_s, old) for _ in range(count)]

    def kill(self, process: Process) -> None:
        """Let a process be gone, without a word."""
        self.processes.remove(process)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and let members look when they are due."""
        end = self.now + seconds
        while True:
            running = [process for process in self.processes if not process.is_stopped]
            due = min(running, key=lambda process: process.next_look_at, default=None)
            if due is None or due.next_look_at > end:
                break
            self.now = max(self.now, due.next_look_at)
            self._look(due)
            self._check()
        self.now = end

    def until(self, reached: Callable[[], bool], *, within_s: float) -> float:
        """Let time pass until `reached()`, and return how long that took."""
        began = self.now
        while not reached():
            assert self.now - began <= within_s, f"not reached within {within_s} s"
            self.pass_s(self.schedule.period_s / 200)
        return self.now - began

    def until_next_commit(self) -> None:
        """Let time pass until somebody has committed an epoch."""
        before = self.shelf().register
        self.until(lambda: self.shelf().register != before, within_s=1.2 * self.schedule.period_s)

    def _look(self, process: Process) -> None:
        process.member.drop_ended()
        with contextlib.suppress(StoreError):
            process.member.look()
        process.member.cover_silence()
        process.next_look_at = self.now + process.member.next_look_in_s()

    def _check(self) -> None:
        watched = [process for process in self.watch() if process in self.processes and not process.is_stopped]
        published = {process.name: process.published for process in watched}
        for process in watched:
            if published[process.name] is None:
                continue
            self.samples += 1
            xwing = {other.published_xwing for other in watched}
            lacking = {key for key in (*published.values(), *xwing) if key} - process.accepted
            if lacking:
                self.lacking.append(f"{self.now:.2f}: {process.name} lacks {len(lacking)} published keys")

    def leave(self, process: Process) -> None:
        """Let a process end as it should."""
        process.member.close()
        self.kill(process)

    def _new(self, schedule: Schedule, doors: list[GroupKeys], clock_ahead_s: float, old: bool) -> Process:
        name = f"process {len(self.born)}-{len(self.processes)}"
        pace = Pace(schedule)
        stores = [MemoryStore(self.shelf(keys)) for keys in doors]

        def clock() -> float:
            return self.now + clock_ahead_s

        def generate() -> KeyPair:
            pair = KeyPair.generate()
            self.born[pair.public_key] = self.now
            return pair

        who = Who(name, "host", len(self.processes), "today")
        notices = Notices(stores[0], across_hosts=False)
        maker = OldPairMaker if old else PairMaker
        member = Member(
            [
                (OldDoor if old else Door)(keys, store, who, clock=clock, life_s=pace.life_s)
                for keys, store in zip(doors, stores, strict=True)
            ],
            pace,
            notices,
            maker(notices, clock=clock, generate=generate, erase_on_time=False),
            clock=clock,
        )
        process = Process(name, member, pace, stores, clock, old, self.now + self.random.random() * pace.poll_s)
        self.processes.append(process)
        return process
