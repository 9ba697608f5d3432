"""X-Wing pairs in a group: every member of this version has them, and those of the version before lose nothing."""

import pytest

from server_keys._sharing.messages import Ask, Who
from server_keys._sharing.store import MOST_ASK_BYTES
from tests.sharing.before_xwing import is_known
from tests.sharing.group_in_held_time import GROUP, Group, Process


def publish_v1(group: Group) -> list[bool]:
    return [process.published_xwing is not None for process in group.processes]


def assert_none_publishes_v1_beside_the_old(group: Group) -> None:
    if any(process.is_old for process in group.processes):
        assert not any(publish_v1(group))


def watched(group: Group, seconds: float) -> None:
    """Let time pass, and look each time whether version 1 is published where it must not be."""
    end = group.now + seconds
    while group.now < end:
        group.pass_s(0.1)
        assert_none_publishes_v1_beside_the_old(group)
    assert not group.lacking


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_group_of_this_version_has_x_wing_pairs_from_the_first_epoch_on(count: int) -> None:
    group = Group()
    group.join(count)
    group.until(lambda: all(publish_v1(group)), within_s=2)
    for _ in range(300):
        group.pass_s(0.1)
        assert all(publish_v1(group))
        # Each member holds the same pairs, and no second ask.
        assert len({process.published_xwing for process in group.processes}) == 1
    assert not group.lacking
    assert len(group.shelf().asks) == count


def test_a_member_that_joins_gets_both_pairs_of_all_living_epochs() -> None:
    group = Group()
    (first,) = group.join()
    group.pass_s(16)
    assert len(first.living) > 1
    for _ in range(20):
        (newcomer,) = group.join()
        group.until(lambda newcomer=newcomer: newcomer.published is not None, within_s=2)  # type: ignore[misc]
        assert newcomer.published_xwing is not None
        assert {epoch.pairs.xwing for epoch in newcomer.living} == {epoch.pairs.xwing for epoch in first.living}
        group.leave(newcomer)
    assert not group.lacking


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ends", ["leave", "kill"])
def test_a_rollout_lacks_no_key_and_version_1_follows_when_the_last_old_member_is_gone(seed: int, ends: str) -> None:
    group = Group(seed=seed)
    old = group.join(4, old=True)
    watched(group, 12)
    for process in old:
        group.join()
        watched(group, 1 + group.random.random() * 6)
        getattr(group, ends)(process)
        watched(group, group.random.random() * 6)
    # The asks of those that were killed are there until they are outdated.
    took_s = group.until(lambda: all(publish_v1(group)), within_s=60)
    assert took_s <= (25 if ends == "leave" else 50)
    watched(group, 30)
    assert all(publish_v1(group))
    assert len(group.shelf().asks) == len(group.processes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 5), (5, 1), (4, 4)])
def test_both_versions_can_go_on_together(old: int, new: int, seed: int) -> None:
    group = Group(seed=seed)
    group.join(old, old=True)
    group.pass_s(2)
    group.join(new)
    watched(group, 100)
    # One epoch a period, whoever makes it.
    assert len(group.born) <= 13
    assert len({process.published for process in group.processes}) == 1


@pytest.mark.parametrize("period_s", [0.5, 2.0, 60.0])
def test_they_can_at_every_refresh_time(period_s: float) -> None:
    group = Group(period_s)
    group.join(2, old=True)
    group.pass_s(period_s / 2)
    group.join(2)
    group.pass_s(20 * period_s)
    assert not group.lacking
    assert not any(publish_v1(group))
    assert 18 <= len(group.born) <= 24


@pytest.mark.parametrize("seed", range(3))
def test_a_refresh_that_is_brought_forward_reaches_both(seed: int) -> None:
    group = Group(seed=seed)
    old = group.join(2, old=True)
    group.pass_s(2)
    new = group.join(2)
    group.pass_s(15)
    for process in (old[0], new[0], old[1], new[1]) * 3:
        process.member.bring_forward()
        watched(group, 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_member_of_this_version_joins_one_that_is_old_within_two_seconds(seed: int) -> None:
    group = Group(seed=seed)
    group.join(1, old=True)
    group.pass_s(20)
    (newcomer,) = group.join()
    assert group.until(lambda: newcomer.published is not None, within_s=3) <= 2.0
    assert newcomer.is_shared
    assert not group.lacking


def test_who_goes_back_to_the_version_before_gets_what_it_can_take() -> None:
    group = Group()
    new = group.join(3)
    group.pass_s(20)
    assert all(publish_v1(group))
    (old,) = group.join(1, old=True)
    group.watch = list  # until the next epoch it lacks what the others publish
    group.until(lambda: old.published is not None, within_s=2)
    assert {process.published for process in group.processes} == {old.published}
    assert all(epoch.pairs.xwing is None for epoch in old.living)
    # From the next epoch on none is published, and the old ones live out their time.
    group.until(lambda: not any(publish_v1(group)), within_s=22)
    group.watch = lambda: group.processes
    watched(group, 40)
    assert not any(epoch.pairs.xwing for process in new for epoch in process.living)


def test_an_own_pair_is_for_the_wires_that_the_group_had_last() -> None:
    def cut_off(group: Group) -> Process:
        (process,) = [process for process in group.processes if not process.is_old][:1]
        process.stores[0].is_away = True
        group.watch = list
        group.until(lambda: process.published is not None and not process.is_shared, within_s=60)
        return process

    group = Group()
    group.join(2)
    group.pass_s(20)
    assert cut_off(group).published_xwing is not None
    mixed = Group()
    mixed.join(1, old=True)
    mixed.join(1)
    mixed.pass_s(20)
    assert cut_off(mixed).published_xwing is None
    alone = Group()
    alone.join()
    # It has never met anybody.
    assert cut_off(alone).published_xwing is not None


def test_pairs_of_both_kinds_are_erased_together() -> None:
    group = Group()
    group.join(2)
    seen = {}
    for _ in range(400):
        group.pass_s(0.1)
        for process in group.processes:
            seen.update({(process.name, epoch.number): epoch.pairs for epoch in process.living})
            for (name, _), pairs in seen.items():
                if name == process.name:
                    assert pairs.xwing is not None
                    assert pairs.x25519.erased == pairs.xwing.erased
    assert len(seen) > 6
    for process in list(group.processes):
        group.leave(process)
    assert all(pairs.x25519.erased and pairs.xwing and pairs.xwing.erased for pairs in seen.values())


def test_an_ask_is_short_and_the_version_before_passes_it_over() -> None:
    group = Group()
    group.join(1)
    group.pass_s(1)
    ((name, (_, ask)),) = group.shelf().asks.items()
    decoded = Ask.decoded(name, ask, GROUP[0])
    assert decoded is not None
    assert decoded.takes_xwing
    assert len(decoded.one_time_key) == 1216
    assert not is_known(name, ask, GROUP[0])
    longest = Ask(decoded.one_time_key, 2**64 - 1, 2**64 - 1, Who("\u20ac" * 16, "\u20ac" * 64, 2**22, "\u20ac" * 40))
    assert len(longest.encoded(GROUP[0])) <= MOST_ASK_BYTES


@pytest.mark.parametrize("length", [0, 5, 31, 33, 1215, 1217, 65535])
def test_asks_with_other_keys_are_passed_over(length: int) -> None:
    body = (1).to_bytes(1, "big") + (0x647A).to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(min(length, 1800))
    body += bytes(16) + b'["m","h",1,"s"]'
    assert Ask.decoded(bytes(32), body + GROUP[0].ask_tag(body), GROUP[0]) is None
    assert Ask.decoded(bytes(32), b"", GROUP[0]) is None
