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

KeyEvent = Literal["came", "replaced", "erased", "agreed"]

# How many pairs are remembered: enough for every view, and few enough for a demo that runs for a week.
_REMEMBERED = 24
_LONGEST_SLEEP_S = 0.5


@dataclass(frozen=True, slots=True)
class KeyLife:
    """The life of one key pair. Times are seconds on the history's clock."""

    number: int
    public_key: str
    made_at: float
    replaced_at: float | None = None
    erased_at: float | None = None
    agreements: int = 0

    @property
    def short_id(self) -> str:
        """The first 4 bytes of the public key, in hex."""
        return self.public_key[:8]


class KeyHistory:
    """Watches a ring and remembers the lives of its latest pairs, newest first. Safe under threads.

    Args:
        on_event: called with each event and the life that it belongs to, one at a time. It may read this history.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[KeyEvent, KeyLife], None] = lambda event, life: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_event = on_event
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
            known = {life.public_key for life in self._lives}
            for pair in reversed(accepted):
                if pair.public_key.hex() not in known:
                    self._add(pair, made_at=now - (ring.status.age_s or 0.0) if pair is accepted[0] else now)
            for life in self._lives:
                erased_pair = self._unerased.get(life.public_key)
                if erased_pair is not None and erased_pair.erased:
                    del self._unerased[life.public_key]
                    self._change(life, "erased", replace(life, erased_at=now))

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
        while (wait_s := ring.next_event_in_s()) is not None:
            self.observe(ring)
            await asyncio.sleep(min(wait_s + 0.002, _LONGEST_SLEEP_S))

    def _add(self, pair: KeyPair, made_at: float) -> None:
        life = KeyLife(self.made + 1, pair.public_key.hex(), made_at)
        replaced = [replace(before, replaced_at=made_at) for before in self._lives[:1] if before.replaced_at is None]
        self._unerased[life.public_key] = pair
        self._lives = (life, *replaced, *self._lives[len(replaced) :])[:_REMEMBERED]
        for before in replaced:
            self._on_event("replaced", before)
        self._on_event("came", life)

    def _change(self, before: KeyLife, event: KeyEvent, after: KeyLife) -> None:
        self._lives = tuple(after if life is before else life for life in self._lives)
        self._on_event(event, after)
