"""What a member holds: epochs of the group, and the rules of time by which they come and go.

Nothing here looks at a clock or into a store: times come in, a new state comes out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import KeyPair

# The one before the current one, the current one, the next one, and one more where a refresh was brought forward.
_MOST_EPOCHS = 4


class Rank(NamedTuple):
    """The order of epochs, on which all members agree. The higher one of two is the newer one."""

    number: int
    public_key: bytes


NONE = Rank(0, b"")
"""Lower than the rank of every epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """The pairs of one epoch of the group, and its times on this process's clock.

    It has an X-Wing pair if every member could take one when it was made.
    """

    number: int
    pairs: EpochPairs
    publish_at: float
    ends_at: float
    arrived_at: float
    is_settled: bool = False
    """Whether the store could be reached for so long since it arrived that all other members have it, too."""
    late_by_s: float = 0.0
    """By how much the times may really be later: the store took so long to answer."""

    @property
    def pair(self) -> KeyPair:
        """The X25519 pair, which every epoch has."""
        return self.pairs.x25519

    @property
    def rank(self) -> Rank:
        """The place of the epoch among all others."""
        return Rank(self.number, self.pair.public_key)


@dataclass(frozen=True, slots=True)
class Epochs:
    """The living epochs of a group, oldest first. Immutable: readers on other threads see one state or the next."""

    held: tuple[Epoch, ...] = ()

    @property
    def newest(self) -> Rank:
        """The rank of the newest epoch."""
        return self.held[-1].rank if self.held else NONE

    @property
    def ranks(self) -> frozenset[Rank]:
        """The ranks of all epochs. Two of them may have one number."""
        return frozenset(epoch.rank for epoch in self.held)

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all epochs."""
        return frozenset(epoch.number for epoch in self.held)

    def current(self, now: float, *, spare_s: float = 0.0) -> Epoch | None:
        """Return the newest epoch that is published, also past its period while it has no successor.

        One that others may lack is published only if there is no other, and one whose time to be published has not come
        only if there is none at all. Nor does one count that ends within `spare_s`, if there is another: each member
        knows such an end only to some extent, and requests are on their way to those where it comes first.
        """
        living = [epoch for epoch in self.held if now < epoch.ends_at and not epoch.pairs.erased]
        # Where two members made epochs of one number, all get the higher one, and only some have the lower one.
        last_of_number = {epoch.number: epoch for epoch in living}
        lasting = [epoch for epoch in last_of_number.values() if now < epoch.ends_at - spare_s]
        published = [epoch for epoch in lasting if epoch.publish_at <= now]
        settled = [epoch for epoch in published if epoch.is_settled]
        candidates = settled[-1:] or published[-1:] or lasting[:1] or living[-1:]
        return candidates[0] if candidates else None

    @property
    def settled_until(self) -> float | None:
        """When the last epoch ends that all members have; None if there is none."""
        return max((epoch.ends_at for epoch in self.held if epoch.is_settled), default=None)

    def without_ended(self, now: float) -> "Epochs":
        """Return those that live. A pair that somebody erased has ended: the others still hold it."""
        living = tuple(epoch for epoch in self.held if now < epoch.ends_at and not epoch.pairs.erased)
        return self if len(living) == len(self.held) else Epochs(living)

    def published_by_others(self, now: float) -> "Epochs":
        """Return these epochs, which a member that joins was given. Those that are published all others have."""
        return Epochs(tuple(replace(epoch, is_settled=epoch.publish_at <= now) for epoch in self.held))

    def lost_at(self, now: float) -> "Epochs":
        """Return these epochs after the store lost the newest one. If its time has not come, others may lack it."""
        if not self.held or self.held[-1].publish_at <= now:
            return self
        return Epochs((*self.held[:-1], replace(self.held[-1], arrived_at=now, is_settled=False)))

    def settled_since(self, at: float) -> "Epochs":
        """Return these epochs, with all settled that arrived until `at`."""
        if all(epoch.is_settled or epoch.arrived_at > at for epoch in self.held):
            return self
        return Epochs(
            tuple(replace(epoch, is_settled=epoch.is_settled or epoch.arrived_at <= at) for epoch in self.held)
        )

    def joined_by(self, delivered: Sequence[Epoch], *, whole: bool) -> "Epochs":
        """Return these epochs and the delivered ones. Of two times of one epoch the earlier counts, if it surely is.

        An epoch that was held without its X-Wing pair, and is delivered with it, has it then.

        Args:
            delivered: epochs from another member.
            whole: that member holds all that the group accepts. What is older than all of them has ended, even if this
                process's clock stood still meanwhile and says otherwise.
        """
        by_rank = {epoch.rank: epoch for epoch in self.held}
        for epoch in delivered:
            held = by_rank.get(epoch.rank, epoch)
            by_rank[epoch.rank] = replace(
                held,
                pairs=EpochPairs(held.pair, held.pairs.xwing or epoch.pairs.xwing),
                publish_at=_earlier(held.publish_at, epoch.publish_at, epoch.late_by_s),
                ends_at=_earlier(held.ends_at, epoch.ends_at, epoch.late_by_s),
            )
        oldest = min((epoch.number for epoch in delivered), default=0) if whole else 0
        living = (epoch for epoch in by_rank.values() if epoch.number >= oldest)
        return Epochs(tuple(sorted(living, key=lambda epoch: epoch.rank)[-_MOST_EPOCHS:]))


def _earlier(held: float, delivered: float, late_by_s: float) -> float:
    """Return the time that counts. To shorten a time because the store was slow would set members apart."""
    return delivered if delivered + late_by_s < held else held


def erase_those_gone(before: Iterable[Epoch], after: Iterable[Epoch]) -> None:
    """Erase the pairs of epochs that are in `before` and not in `after`."""
    kept = {id(pair) for epoch in after for pair in (epoch.pairs.x25519, epoch.pairs.xwing)}
    for epoch in before:
        for pair in (epoch.pairs.x25519, epoch.pairs.xwing):
            if pair is not None and id(pair) not in kept:
                pair.erase()
