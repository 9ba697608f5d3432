"""What became of each key pair of a run: when it came, was replaced and was erased."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI

from server_keys._native import KeyPair
from server_keys.key_ring import KeyRing, KeysUnavailableError
from server_keys.lifespan import Lifespan
from server_keys.state import held_ring

KeyEvent = Literal["came", "replaced", "erased", "agreed"]

# As many pairs as are remembered: enough for every view, and no leak in a demo that runs for a week.
_REMEMBERED = 24
_LONGEST_SLEEP_S = 0.5


@dataclass(slots=True)
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
    """Watches a ring and remembers the lives of its latest pairs, newest first.

    Args:
        on_event: is told each event, with the life that it belongs to.
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
        self._lives: deque[KeyLife] = deque(maxlen=_REMEMBERED)
        # Asked whether they are erased, until they are: an end is shown because it was seen, not because it was due.
        self._unerased: dict[str, KeyPair] = {}
        self._made = 0

    @property
    def lives(self) -> tuple[KeyLife, ...]:
        """The latest pairs' lives, newest first."""
        return tuple(self._lives)

    @property
    def made(self) -> int:
        """How many pairs were seen to come."""
        return self._made

    @property
    def unerased(self) -> int:
        """How many pairs still exist."""
        return len(self._unerased)

    def now(self) -> float:
        """The time on the clock of the lives."""
        return self._clock()

    def observe(self, ring: KeyRing) -> None:
        """Compare `ring` with what is known of it and remember what changed."""
        try:
            accepted = ring.accepted
        except KeysUnavailableError:
            accepted = ()
        now = self._clock()
        current = self._lives[0] if self._lives else None
        for pair in reversed(accepted):
            public_key = pair.public_key.hex()
            if all(life.public_key != public_key for life in self._lives):
                made_at = now - (ring.status.age_s or 0.0) if pair is accepted[0] else now
                if current is not None and current.replaced_at is None:
                    current.replaced_at = made_at
                    self._on_event("replaced", current)
                self._made += 1
                current = KeyLife(self._made, public_key, made_at)
                self._lives.appendleft(current)
                self._unerased[public_key] = pair
                self._on_event("came", current)
        for life in self._lives:
            erased_pair = self._unerased.get(life.public_key)
            if erased_pair is not None and erased_pair.erased:
                del self._unerased[life.public_key]
                life.erased_at = now
                self._on_event("erased", life)

    def kept(self, lifespan: Lifespan) -> Lifespan:
        """Wrap a lifespan that brings a key ring so that this history watches the ring, to the erasure at its end."""

        @asynccontextmanager
        async def lifespan_with_history(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
            async with lifespan(app) as state:
                ring = held_ring(app)
                if ring is None:
                    raise RuntimeError("there is no key ring to watch: the wrapped lifespan must bring one")
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

    def note_agreement(self, public_key: bytes) -> None:
        """Count a secret agreed on under `public_key`."""
        for life in self._lives:
            if life.public_key == public_key.hex():
                life.agreements += 1
                self._on_event("agreed", life)
