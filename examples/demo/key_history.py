"""The lives of a run's key pairs: when each came, was replaced, and was erased."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from fastapi import FastAPI

from server_keys import KeyPair, KeyRing, KeysUnavailableError, Lifespan

KeyEvent = Literal["came", "published", "replaced", "erased", "agreed"]

# How many pairs are remembered: enough for every view, and few enough for a demo that runs for a week.
REMEMBERED = 24
_LONGEST_SLEEP_S = 0.5
# A shared ring does not say when the others make the next pair.
_LONGEST_SLEEP_IF_SHARED_S = 0.1


@dataclass(frozen=True, slots=True)
class KeyLife:
    """The life of one key pair. Times are seconds on the history's clock."""

    number: int
    public_key: str
    made_at: float
    """When it became the current one, or is to become that."""
    replaced_at: float | None = None
    erased_at: float | None = None
    agreements: int = 0
    is_coming: bool = False
    """Whether it is delivered, and not published yet: processes that share a ring have the next pair early."""

    @property
    def short_id(self) -> str:
        """The first 4 bytes of the public key, in hex."""
        return self.public_key[:8]


class KeyHistory:
    """Watches a ring and remembers the lives of its latest pairs, newest first. Safe under threads.

    Args:
        on_event: called with each event and the life that it belongs to, one at a time. It may read this history.
        tell: called with the ring, the lives and the number of pairs that exist, at each observation.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[KeyEvent, KeyLife], None] = lambda event, life: None,
        tell: Callable[[KeyRing, tuple[KeyLife, ...], int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_event = on_event
        self._tell = tell
        self._clock = clock
        # Writers hold this lock. Readers need none, because the lives are immutable and swapped as a whole. So a log
        # handler that draws the lives never waits for an observer that logs.
        self._changing = threading.RLock()
        self._lives: tuple[KeyLife, ...] = ()
        # The history asks each pair whether it is erased. So it shows an end that happened, not one that was due.
        self._unerased: dict[str, KeyPair] = {}

    @property
    def lives(self) -> tuple[KeyLife, ...]:
        """The lives of the latest pairs, newest first."""
        return self._lives

    @property
    def made(self) -> int:
        """How many pairs have come so far."""
        lives = self._lives
        return lives[0].number if lives else 0

    @property
    def unerased(self) -> int:
        """How many pairs still exist."""
        return len(self._unerased)

    def now(self) -> float:
        """The time in seconds, on the clock of the lives."""
        return self._clock()

    def observe(self, ring: KeyRing) -> None:
        """Remember what has changed in `ring` since the last call."""
        with self._changing:
            # Read under the lock: otherwise a slow thread could add a pair after its successor.
            try:
                accepted = ring.accepted
            except KeysUnavailableError:
                accepted = ()
            now = self._clock()
            self._take(accepted, ring, now)
            for life in self._lives:
                erased_pair = self._unerased.get(life.public_key)
                if erased_pair is not None and erased_pair.erased:
                    del self._unerased[life.public_key]
                    self._change(life, "erased", replace(life, erased_at=now))
            if self._tell is not None:
                self._tell(ring, self._lives, len(self._unerased))

    def note_agreement(self, public_key: bytes) -> None:
        """Count a key agreement under `public_key`."""
        with self._changing:
            for life in self._lives:
                if life.public_key == public_key.hex():
                    self._change(life, "agreed", replace(life, agreements=life.agreements + 1))

    def kept(self, lifespan: Lifespan) -> Lifespan:
        """Wrap a lifespan that holds a key ring, so that this history watches the ring until its keys are erased."""

        @asynccontextmanager
        async def lifespan_with_history(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
            async with lifespan(app) as state:
                ring = getattr(app.state, "ephemeral_keys", None)
                if not isinstance(ring, KeyRing):
                    raise RuntimeError(
                        "app.state.ephemeral_keys holds no key ring: wrap the lifespan of a protected app"
                    )
                watching = asyncio.create_task(self._watch(ring), name="key history")
                try:
                    yield state
                finally:
                    watching.cancel()
                    await asyncio.wait([watching])
            self.observe(ring)

        return lifespan_with_history

    async def _watch(self, ring: KeyRing) -> None:
        longest_s = _LONGEST_SLEEP_IF_SHARED_S if self._tell is not None else _LONGEST_SLEEP_S
        while (wait_s := ring.next_event_in_s()) is not None:
            self.observe(ring)
            await asyncio.sleep(min(wait_s + 0.002, longest_s))

    def _take(self, accepted: tuple[KeyPair, ...], ring: KeyRing, now: float) -> None:
        """Remember the pairs that are new here, the oldest first."""
        status = ring.status
        known = {life.public_key: life for life in self._lives}
        age_s = status.age_s or 0.0
        older: list[KeyPair] = []
        coming: list[KeyPair] = []
        for pair in accepted[1:]:
            life = known.get(pair.public_key.hex())
            is_next = life.is_coming if life else pair.public_key[:8].hex() != status.previous_key_id
            (coming if ring.is_shared and is_next else older).append(pair)
        # In a group the pairs have the group's numbers.
        newest = status.sharing.epoch if status.sharing.shared else None
        for pair in reversed(older):
            if pair.public_key.hex() not in known:
                # A newcomer gets the one before the current one, too.
                made_at = now - age_s - ring.period_s if ring.is_shared else now
                self._add(pair, made_at, newest and newest - len(coming) - 1)
        for pair in accepted[:1]:
            life = known.get(pair.public_key.hex())
            if life is None:
                self._add(pair, now - age_s, newest and newest - len(coming))
            elif life.is_coming:
                self._replace_current(now - age_s)
                self._change(life, "published", replace(life, made_at=now - age_s, is_coming=False))
        for pair in coming:
            if pair.public_key.hex() not in known:
                self._add(pair, now + (status.next_refresh_in_s or 0.0), newest, is_coming=True)

    def _add(self, pair: KeyPair, made_at: float, number: int | None, *, is_coming: bool = False) -> None:
        life = KeyLife(number or self.made + 1, pair.public_key.hex(), made_at, is_coming=is_coming)
        self._unerased[life.public_key] = pair
        if not is_coming:
            self._replace_current(made_at)
        self._lives = (life, *self._lives)[:REMEMBERED]
        self._on_event("came", life)

    def _replace_current(self, at: float) -> None:
        for before in self._lives:
            if before.replaced_at is None and not before.is_coming:
                self._change(before, "replaced", replace(before, replaced_at=at))

    def _change(self, before: KeyLife, event: KeyEvent, after: KeyLife) -> None:
        self._lives = tuple(after if life is before else life for life in self._lives)
        self._on_event(event, after)
