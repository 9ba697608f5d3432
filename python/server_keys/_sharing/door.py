"""A member's door to its group: the group's keys, its store, and the member's own ask there.

While a group changes its secret, a member has two doors: one for each secret.

A member asks for boxes that are sealed with X-Wing. Members of versions before that cannot read such an ask, and serve
none. Where it meets one of them, it asks with an X25519 key as well, and goes on with both until an epoch has an X-Wing
pair: that says that there is no such member any more.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import GroupKeys, KeyPair, XWingKeyPair, open_box, seal_boxes
from server_keys._sharing.epoch import Epoch, Epochs, Rank
from server_keys._sharing.messages import Ask, Who, name_of, rank_in, register_of
from server_keys._sharing.store import Look, Store, StoreError

# Times in boxes are rounded down to milliseconds, some of them twice.
_ROUNDED_BY_S = 0.005


@dataclass(frozen=True, slots=True)
class _StoreTime:
    """One reading of the store's clock, and when it was asked for and known here."""

    asked_at: float
    known_at: float
    time_ms: int

    def earliest_ms(self, at: float) -> int:
        """Return a time that the store's clock has reached surely at `at`."""
        return int(self.time_ms + (at - self.known_at) * 1000)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was in a box."""

    epochs: tuple[Epoch, ...]
    whole: bool
    """Whether its sender holds all that the group accepts."""


class Door:
    """One member's access to one group.

    Args:
        keys: the group's keys.
        store: the group's store.
        who: this process, as others will see it.
        clock: tells the time in seconds.
        life_s: how long a private key may exist, and entries in the store are kept.
    """

    def __init__(self, keys: GroupKeys, store: Store, who: Who, *, clock: Callable[[], float], life_s: float) -> None:
        self.store = store
        self.register = b""
        """The register's bytes at the last look."""
        self.found: Rank | None = None
        """The rank that they name; None if no member made them."""
        self.serve_at: float | None = None
        """When this member serves those who wait; None if nobody does."""
        self.waiting_since: float | None = None
        """Since when this member has waited for what the group holds; None if it lacks nothing."""
        self._keys = keys
        self._who = who
        self._clock = clock
        self._life_s = life_s
        self._asked: _StoreTime | None = None
        self._waits_for: Rank | None = None
        self._outdated: list[bytes] = []
        self.asks_also_by_x25519 = False
        """Whether the member also has an ask that members of versions before X-Wing can serve."""
        self._renew_one_time_keys()

    def look(self) -> Look:
        """Look into the store, and remember what the register says and what time it is there.

        Raises:
            StoreError: the store cannot be used.
        """
        asked_at = self._clock()
        look = self.store.look(self.name)
        self._time = _StoreTime(asked_at, self._clock(), look.time_ms)
        self.register = look.register
        self.found = rank_in(look.register, self._keys)
        return look

    def waits_for_s(self, now: float) -> float:
        """Return the seconds since this member began to wait, which it does now at the latest."""
        if self.waiting_since is None:
            self.waiting_since = now
        return now - self.waiting_since

    def has_asked(self, look: Look, *, waits_for: Rank | None = None) -> bool:
        """Return whether this member's ask is in the store; with `waits_for`, whether it waits for that epoch there."""
        return self._asked is not None and look.has_mine and (waits_for is None or self._waits_for == waits_for)

    def ask(self, seen: Rank, has: int, *, waits: bool) -> None:
        """Ask for a box with what is newer than `has`; with `waits`, let another member serve it at once."""
        # From the time that the look was sent: it bounds from below when a box can have been sealed.
        self._asked = self._asked or self._time
        self._waits_for = seen if waits else None
        for key in self._one_time_keys:
            ask = Ask(key.public_key, seen.number, has, self._who).encoded(self._keys)
            self.store.ask(name_of(key.public_key), ask, waits=waits, keep_s=2 * self._life_s)
        while self._outdated:
            self.store.leave(self._outdated[-1])
            self._outdated.pop()

    def ask_also_by_x25519(self) -> None:
        """Let the next `ask` also be one that members of versions before X-Wing can serve."""
        if not self.asks_also_by_x25519:
            self.asks_also_by_x25519 = True
            self._one_time_keys.append(KeyPair.generate())

    def ask_by_xwing_alone(self) -> None:
        """Let the next `ask` be the only one."""
        if self.asks_also_by_x25519:
            self.asks_also_by_x25519 = False
            self._forget(self._one_time_keys.pop())

    def take(self) -> Delivery | None:
        """Take this member's box out of the store and open it; None if there is none.

        Raises:
            MalformedMessageError: there was one that no member sealed for this ask.
        """
        return next(filter(None, map(self._take, tuple(self._one_time_keys))), None)

    def _take(self, one_time_key: KeyPair | XWingKeyPair) -> Delivery | None:
        asked, sent_at = self._asked, self._clock()
        taken = self.store.take(name_of(one_time_key.public_key)) if asked else None
        known_at = self._clock()
        if asked is None or taken is None:
            return None
        try:
            whole, as_of_ms, contents = open_box(self._keys, one_time_key, taken.box)
        finally:
            # A box is opened once. Whoever gets hold of it later finds no key that opens it.
            for key in self._one_time_keys:
                self._forget(key)
            self._renew_one_time_keys()
        # Two ways to tell when the box was sealed, and both are right unless the store's clock was set. It cannot have
        # been sealed before it was asked for.
        by_ask = asked.asked_at + (as_of_ms - asked.time_ms) / 1000
        by_taking = sent_at - (taken.time_ms - as_of_ms) / 1000
        sealed_at = max(min(by_ask, by_taking, sent_at), asked.asked_at)
        late_by_s = max(asked.known_at - asked.asked_at, known_at - sent_at) + _ROUNDED_BY_S
        return Delivery(
            tuple(
                Epoch(
                    number,
                    EpochPairs(pair, xwing),
                    sealed_at + publish_in_ms / 1000,
                    sealed_at + min(ends_in_ms / 1000, self._life_s),
                    sent_at,
                    late_by_s=late_by_s,
                )
                for number, pair, xwing, publish_in_ms, ends_in_ms in contents
            ),
            whole,
        )

    def asks(self, found: Mapping[bytes, bytes], numbers: frozenset[int], below: int) -> dict[bytes, Ask]:
        """Return the asks of other members that lack an epoch. Of two asks of one member only that by X-Wing counts.

        Args:
            found: the store's entries.
            numbers: an ask counts if the register that its member saw had one of these numbers. Older ones were
                answered, or their members are gone.
            below: the number of the newest epoch, which those who ask lack.
        """
        decoded = {name: Ask.decoded(name, ask, self._keys) for name, ask in found.items()}
        asks = {
            name: ask
            for name, ask in decoded.items()
            if ask and ask.who.member != self._who.member and ask.seen in numbers and ask.has < below
        }
        by_xwing = {ask.who.member for ask in asks.values() if ask.takes_xwing}
        return {name: ask for name, ask in asks.items() if ask.takes_xwing or ask.who.member not in by_xwing}

    def boxes(self, asks: Mapping[bytes, Ask], epochs: Epochs, *, whole: bool) -> dict[bytes, bytes]:
        """Return a box with `epochs` for each ask.

        Raises:
            KeyErasedError: an epoch has ended meanwhile.
        """
        now = self._clock()
        contents = [
            (
                epoch.number,
                epoch.pair,
                epoch.pairs.xwing,
                int((epoch.publish_at - now) * 1000),
                int(max(epoch.ends_at - now, 0.0) * 1000),
            )
            for epoch in epochs.held
            if not epoch.pairs.erased
        ]
        if not contents:
            return {}
        as_of_ms = self._time.earliest_ms(now)
        one_time_keys = [ask.one_time_key for ask in asks.values()]
        sealed = seal_boxes(self._keys, one_time_keys, whole=whole, as_of_ms=as_of_ms, epochs=contents)
        return {name: box for name, box in zip(asks, sealed, strict=True) if box is not None}

    def commit(self, newest: Rank, boxes: Mapping[bytes, bytes]) -> bool:
        """Name `newest` in the register and leave the boxes there, unless somebody changed the register meanwhile."""
        return self.store.commit(self.register, register_of(newest, self._keys), boxes, self._life_s)

    def restore(self, newest: Rank) -> bool:
        """Name `newest` in the register again, unless somebody changed it meanwhile."""
        return self.store.restore(self.register, register_of(newest, self._keys), self._life_s)

    def close(self) -> None:
        """Take the asks back, erase the one-time keys, and let go of the store. Never raises."""
        for key in self._one_time_keys:
            self._forget(key)
        with contextlib.suppress(StoreError):
            for name in self._outdated:
                self.store.leave(name)
        self.store.close()

    def _forget(self, one_time_key: KeyPair | XWingKeyPair) -> None:
        """Erase a one-time key. Its ask leaves the store when there is another one, or the member goes."""
        one_time_key.erase()
        self._outdated.append(name_of(one_time_key.public_key))

    def _renew_one_time_keys(self) -> None:
        self._one_time_keys: list[KeyPair | XWingKeyPair] = [XWingKeyPair.generate()]
        if self.asks_also_by_x25519:
            self._one_time_keys.append(KeyPair.generate())
        self.name = name_of(self._one_time_keys[0].public_key)
        self._asked = None
        self._waits_for = None
