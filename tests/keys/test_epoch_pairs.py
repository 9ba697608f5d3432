"""Each epoch of a ring has an X25519 pair and an X-Wing pair, which come and go together."""

import os
import time

import pytest

from server_keys import EntropyError, KeyPair, KeyRing, KeysUnavailableError
from server_keys._keys import epoch_pairs
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import XWingKeyPair
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source


class XWingSource:
    """Stands in for `XWingKeyPair`: keeps what it makes, and fails when the test wants it."""

    def __init__(self) -> None:
        self.pairs: list[XWingKeyPair] = []
        self.error: Exception | None = None

    def generate(self) -> XWingKeyPair:
        if self.error is not None:
            raise self.error
        self.pairs.append(XWingKeyPair.generate())
        return self.pairs[-1]


@pytest.fixture
def xwing(monkeypatch: pytest.MonkeyPatch) -> XWingSource:
    """The source of X-Wing pairs."""
    source = XWingSource()
    monkeypatch.setattr(epoch_pairs, "XWingKeyPair", source)
    return source


def xwing_of(pairs: EpochPairs) -> XWingKeyPair:
    assert pairs.xwing is not None
    return pairs.xwing


def test_an_epoch_has_both_pairs_of_independent_randomness() -> None:
    with KeyRing(300) as ring:
        pairs = ring.current_pairs
        assert pairs.x25519 is ring.current
        assert len(xwing_of(pairs).public_key) == 1216
        # The X25519 half of an X-Wing key comes last.
        assert xwing_of(pairs).public_key[-32:] != ring.current.public_key
        ring.refresh()
        assert [pairs.x25519 for pairs in ring.accepted_pairs] == list(ring.accepted)
        assert len({xwing_of(pairs).public_key for pairs in ring.accepted_pairs}) == 2
        assert ring.accepted_pairs[1] is pairs


def test_both_are_erased_at_the_same_moments(xwing: XWingSource) -> None:
    held = HeldTime()
    seen: dict[bytes, EpochPairs] = {}
    ring = KeyRing(10, overlap_s=4, clock=held.boot)
    for step in range(200):
        held.pass_s(0.25)
        if step % 37 == 0:
            ring.refresh()
        ring.refresh_if_due()
        seen.update({pairs.x25519.public_key: pairs for pairs in ring.accepted_pairs})
        assert all(pairs.x25519.erased == xwing_of(pairs).erased for pairs in seen.values())
        assert {pairs for pairs in seen.values() if not pairs.erased} == set(ring.accepted_pairs)
    assert len(seen) == len(xwing.pairs) > 5
    ring.close()
    assert all(pairs.x25519.erased and xwing_of(pairs).erased for pairs in seen.values())


def test_a_thread_erases_both_on_time() -> None:
    ring = KeyRing(0.3, overlap_s=0.1)
    pairs = ring.current_pairs
    assert not pairs.erased
    time.sleep(0.6)  # nobody looks at the ring
    assert pairs.x25519.erased
    assert xwing_of(pairs).erased


@pytest.mark.parametrize("erased", ["x25519", "xwing"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_where_somebody_erases_one_the_other_follows(erased: str, epoch: int) -> None:
    with KeyRing(300) as ring:
        ring.refresh()
        pairs = ring.accepted_pairs[epoch]
        getattr(pairs, erased).erase()
        assert pairs.erased
        ring.refresh_if_due()
        assert pairs.x25519.erased
        assert xwing_of(pairs).erased
        assert not ring.current_pairs.erased


def test_where_one_cannot_be_made_there_is_neither(xwing: XWingSource, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KeyPair] = []

    class Kept:
        @staticmethod
        def generate() -> KeyPair:
            made.append(KeyPair.generate())
            return made[-1]

    monkeypatch.setattr(epoch_pairs, "KeyPair", Kept)
    xwing.error = EntropyError("the pool is dry")
    with pytest.raises(EntropyError):
        KeyRing(300)
    assert len(made) == 1
    assert made[0].erased


def test_a_refresh_that_fails_leaves_both_as_they_were(xwing: XWingSource) -> None:
    held = HeldTime()
    ring = KeyRing(10, overlap_s=4, clock=held.boot)
    pairs = ring.current_pairs
    xwing.error = EntropyError("the pool is dry")
    with pytest.raises(EntropyError):
        ring.refresh()
    assert ring.current_pairs is pairs
    assert ring.status.failures == 1
    held.pass_s(14)
    with pytest.raises(KeysUnavailableError):
        _ = ring.current_pairs
    assert pairs.x25519.erased
    assert xwing_of(pairs).erased
    xwing.error = None
    held.pass_s(10)
    assert not ring.current_pairs.erased


def test_pairs_of_somebody_elses_making_are_x25519_alone() -> None:
    source = Source()
    with KeyRing(300, generate=source) as ring:
        assert ring.current_pairs == EpochPairs(source.pairs[0], None)
        ring.current.erase()
        assert ring.current_pairs.x25519 is source.pairs[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_neither() -> None:
    with KeyRing(300) as ring:
        pairs = ring.current_pairs
        child = os.fork()
        if child == 0:
            os._exit(0 if pairs.x25519.erased and xwing_of(pairs).erased and not ring.current_pairs.erased else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not pairs.erased
