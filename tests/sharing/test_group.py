"""What a group promises, with time and store held by the test. Real processes and stores are tested beside this."""

import itertools
import logging
from collections.abc import Callable

import pytest

from server_keys._keys.schedule import Schedule
from server_keys._native import GroupKeys
from server_keys._sharing.messages import name_of
from server_keys._sharing.store import MOST_ASKS, StoreError
from tests.sharing.group_in_held_time import GROUP, Group, Process
from tests.sharing.memory_store import Shelf


def ranks(process: Process) -> list[int]:
    return [epoch.number for epoch in process.living]


def set_away(group: Group, is_away: bool) -> None:
    for process in group.processes:
        process.stores[0].is_away = is_away


def empty(group: Group) -> None:
    shelf = group.shelf()
    shelf.register, shelf.asks, shelf.boxes, shelf.waiting = b"", {}, {}, set()


def all_share(group: Group) -> bool:
    published = {process.published for process in group.processes}
    return len(published) == 1 and None not in published and all(process.is_shared for process in group.processes)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_no_member_lacks_a_key_that_another_one_publishes(count: int) -> None:
    group = Group()
    group.join(count)
    group.pass_s(300)
    assert group.samples > 1000 * count
    assert not group.lacking
    assert all_share(group)


@pytest.mark.parametrize("period_s", [0.5, 1.0, 60.0])
@pytest.mark.parametrize("overlap", [1.0, 0.5])
def test_every_refresh_time_is_kept(period_s: float, overlap: float) -> None:
    group = Group(period_s, max(period_s * overlap, 0.5))
    group.join(4)
    group.pass_s(20 * period_s)
    assert not group.lacking
    assert 18 <= len(group.born) <= 22, "one new pair a period, and not one a process"


@pytest.mark.parametrize("seed", range(4))
def test_members_come_and_are_killed_and_no_key_is_lacking(seed: int) -> None:
    group = Group(seed=seed)
    group.join(5)
    group.pass_s(3)
    for _ in range(60):
        group.kill(group.random.choice(group.processes))
        (newcomer,) = group.join()
        took_s = group.until(lambda newcomer=newcomer: newcomer.published is not None, within_s=2)  # type: ignore[misc]
        assert took_s <= 1.0
        assert newcomer.is_shared
        group.pass_s(group.random.random() * 5)
    assert not group.lacking


def test_the_maker_of_the_newest_epoch_may_die_before_it_is_published() -> None:
    group = Group()
    group.join(3)
    group.pass_s(5)
    for _ in range(20):
        group.until_next_commit()
        makers = [p for p in group.processes if len(ranks(p)) == max(len(ranks(q)) for q in group.processes)]
        group.kill(makers[0])
        group.join()
        group.pass_s(2)
    assert not group.lacking


def test_a_group_that_was_killed_as_a_whole_has_a_key_again_within_two_seconds() -> None:
    group = Group()
    group.join(4)
    group.pass_s(30)
    for process in list(group.processes):
        group.kill(process)
    group.pass_s(0.5)
    group.join(4)
    assert group.until(lambda: all_share(group), within_s=3) <= 2.0


def test_no_private_key_lives_longer_than_lead_and_period_and_overlap() -> None:
    group = Group(10.0, 4.0)
    processes = group.join(3)
    pace = processes[0].pace
    assert pace.life_s == 5.0 + 10.0 + 4.0
    oldest = 0.0
    for _ in range(2000):
        group.pass_s(0.1)
        ages = [group.now - group.born[epoch.pair.public_key] for process in processes for epoch in process.living]
        oldest = max([oldest, *ages])
    assert 14.0 < oldest <= pace.life_s


def test_pairs_whose_time_is_over_are_erased() -> None:
    group = Group()
    (process, _) = group.join(2)
    seen = {}
    for _ in range(600):
        group.pass_s(0.1)
        seen.update({epoch.pair.public_key: epoch for epoch in process.member.epochs.held})
    living = process.accepted
    assert len(seen) > 4
    assert all(epoch.pair.erased == (key not in living) for key, epoch in seen.items())


def test_a_pair_that_somebody_erased_is_delivered_anew() -> None:
    group = Group(60.0)
    processes = group.join(3)
    group.pass_s(5)
    published = processes[0].published
    processes[0].member.epochs.held[0].pair.erase()
    assert processes[0].published is None
    assert group.until(lambda: processes[0].published is not None, within_s=3) <= 1.2
    assert processes[0].published == published
    assert all_share(group)


def test_a_refresh_brings_the_next_epoch_of_all_forward() -> None:
    group = Group(60.0)
    processes = group.join(4)
    group.pass_s(5)
    made, before = len(group.born), processes[0].published
    for process in processes:
        process.member.bring_forward()
    group.pass_s(processes[0].pace.shortest_lead_s + 2 * processes[0].pace.poll_s)
    assert all_share(group)
    assert processes[0].published != before
    assert len(group.born) - made <= 4, "each may have tried"
    assert ranks(processes[0])[-1] == 2, "one new epoch, however many asked"
    group.pass_s(60)
    assert not group.lacking


@pytest.mark.parametrize("shorter_s", [0.01, 0.3, 1.0, 1.5, 3.0, 10.0])
def test_a_shorter_refresh_time_counts_for_the_whole_group(shorter_s: float) -> None:
    group = Group(60.0)
    processes = group.join(3)
    group.pass_s(2)
    for process in processes:
        process.member.take_turns_every(shorter_s)
    lasts_s = 20 * max(shorter_s, processes[0].pace.shortest_lead_s)
    end = group.now + lasts_s
    while group.now < end:
        # As the tasks do that refresh a ring.
        group.pass_s(min(1.0, end - group.now))
        processes[1].member.take_turns_every(shorter_s)
        processes[2].member.take_turns_every(25.0)
    newest = ranks(processes[0])[-1]
    # It counts as far as the others keep up, who look as often as their own refresh time says.
    assert 18 <= newest <= 23
    group.pass_s(200)
    assert ranks(processes[0])[-1] <= newest + 12, "nobody asks for it any more"
    assert not group.lacking


@pytest.mark.parametrize("shorter_s", [0.01, 0.3, 1.0, 1.5, 3.0, 10.0])
def test_a_shorter_refresh_time_is_kept_as_far_as_the_others_keep_up(shorter_s: float) -> None:
    group = Group(60.0)
    processes = group.join(3)
    group.pass_s(2)
    # The others look as often as their own refresh time says.
    kept_s = max(shorter_s, processes[0].pace.shortest_lead_s)
    for _ in range(round(20 * kept_s)):
        for process in processes:
            process.member.take_turns_every(shorter_s)
        group.pass_s(1)
    assert 20 <= ranks(processes[0])[-1] <= 23
    assert not group.lacking


def test_members_of_two_refresh_times_have_one_ring() -> None:
    group = Group(60.0)
    group.join(3)
    group.join(3, schedule=Schedule(10.0, 10.0))
    group.pass_s(300)
    assert all_share(group)
    assert ranks(group.processes[0])[-1] >= 28, "the shorter one takes its turn first"
    assert not group.lacking


# What happens to the store.


@pytest.mark.parametrize("seed", range(5, 9))
@pytest.mark.parametrize("count", [2, 4])
def test_an_outage_that_ends_in_time_loses_no_key(count: int, seed: int) -> None:
    group = Group(seed=seed)
    processes = group.join(count)
    pace = processes[0].pace
    group.pass_s(20)
    for _ in range(5):
        group.until_next_commit()
        set_away(group, True)
        group.pass_s(pace.lead_s + group.schedule.overlap_s - 3 * pace.poll_s)
        set_away(group, False)
        group.pass_s(25)
    assert not group.lacking
    assert all_share(group)


@pytest.mark.parametrize("seed", range(8))
def test_nobody_is_without_a_key_when_the_store_loses_the_newest_epoch(seed: int) -> None:
    group = Group(seed=seed)
    processes = group.join(3)
    pace = processes[0].pace
    group.pass_s(20)
    for _ in range(5):
        group.until_next_commit()
        # Only its maker has it.
        set_away(group, True)
        group.pass_s(pace.lead_s + group.schedule.overlap_s - 3 * pace.poll_s)
        empty(group)
        set_away(group, False)
        newest = max(max(ranks(process)) for process in processes)
        made = len(group.born)
        for _ in range(100):
            group.pass_s(0.02)
            assert all(process.is_shared for process in processes)
        assert len(group.born) <= made + 1, "nobody makes an epoch of the number that there is already"
        assert {max(ranks(process)) for process in processes} == {newest + 1}
        group.pass_s(25)
    assert not group.lacking


def test_an_epoch_that_nobody_had_in_time_is_published_early_and_not_followed_by_none() -> None:
    group = Group()
    processes = group.join(3)
    group.pass_s(20)
    for _ in range(5):
        group.until_next_commit()
        set_away(group, True)
        newest = max(processes, key=lambda process: max(ranks(process)))
        group.pass_s(14)
        # Its maker is gone, and the store forgot it: the next one is late.
        group.kill(newest)
        empty(group)
        set_away(group, False)
        processes = group.processes
        for _ in range(100):
            group.pass_s(0.02)
            assert all(process.is_shared for process in processes)
        group.join()
        group.pass_s(25)
    assert not group.lacking


def test_of_two_epochs_of_one_number_all_get_the_higher_one_at_once() -> None:
    group = Group()
    processes = group.join(4)
    group.pass_s(13)
    another = Shelf(lambda: group.now)
    for process in processes[:2]:
        process.stores[0].shelf = another
    group.watch = list
    group.until(lambda: len({p.member.epochs.newest for p in processes}) == 2, within_s=12)
    group.pass_s(1)
    assert len({max(ranks(p)) for p in processes}) == 1
    made = len(group.born)
    for process in processes[:2]:
        process.stores[0].shelf = group.shelf()
    took_s = group.until(lambda: len({p.member.epochs.newest for p in processes}) == 1, within_s=5)
    assert took_s <= 4 * processes[0].pace.poll_s
    assert len(group.born) == made
    # The lower one is published by nobody from then on: only some have it.
    group.watch = lambda: processes
    group.pass_s(30)
    assert not group.lacking


def test_who_lost_a_race_that_the_store_forgot_is_served_at_once() -> None:
    group = Group()
    processes = group.join(3)
    shelf = group.shelf()
    group.pass_s(13)
    races = 0
    for _ in range(20):
        before = shelf.register
        group.until(lambda before=before: shelf.register != before, within_s=12)  # type: ignore[misc]
        newest_number = max(max(ranks(process)) for process in processes)
        maker, *others = [process for process in processes if max(ranks(process)) == newest_number]
        if others:
            continue  # they have it already
        races += 1
        # The store is set back by one commit, and another member makes an epoch of the same number.
        shelf.register, shelf.boxes = before, {}
        maker.is_stopped = True
        group.until(lambda before=before: shelf.register != before, within_s=3)  # type: ignore[misc]
        group.pass_s(1)
        maker.is_stopped = False
        made = len(group.born)
        newest = max(process.member.epochs.newest for process in processes)
        group.until(lambda newest=newest: {p.member.epochs.newest for p in processes} == {newest}, within_s=1.5)  # type: ignore[misc]
        assert len(group.born) == made
        group.pass_s(10)
    assert races > 5


def test_after_an_outage_no_key_is_published_to_its_very_end_where_there_is_another() -> None:
    # Members know the end of a key only to some extent, and requests are on their way.
    group = Group()
    processes = group.join(4)
    pace = processes[0].pace
    group.pass_s(20)
    near_ends = 0
    for _ in range(5):
        group.until_next_commit()
        set_away(group, True)
        group.pass_s(pace.lead_s + group.schedule.overlap_s - 3 * pace.poll_s)
        set_away(group, False)
        for _ in range(100):
            group.pass_s(0.02)
            for process in processes:
                published = [epoch for epoch in process.living if epoch.publish_at <= group.now]
                (current,) = [epoch for epoch in published if epoch.pair.public_key == process.published]
                assert current.ends_at - group.now >= pace.poll_s or len(published) == 1
                near_ends += any(epoch.ends_at - group.now < pace.poll_s for epoch in published)
        group.pass_s(25)
    assert near_ends > 100
    assert not group.lacking


def test_who_joins_publishes_what_the_others_do_also_when_the_store_fails_right_then() -> None:
    group = Group()
    group.join(2)
    group.pass_s(13)
    (newcomer,) = group.join()
    group.until(lambda: newcomer.published is not None, within_s=1)
    # It makes the next epoch at once, and no other can fetch it.
    newest = ranks(newcomer)[-1]
    newcomer.member.bring_forward()
    group.until(lambda: ranks(newcomer)[-1] > newest, within_s=1)
    set_away(group, True)
    assert ranks(group.processes[0])[-1] == newest
    group.pass_s(3)
    assert all_share(group)
    set_away(group, False)
    group.pass_s(10)
    assert ranks(group.processes[0])[-1] > newest
    assert not group.lacking


def test_a_member_that_was_about_to_serve_looks_no_more_often_while_the_store_is_away() -> None:
    group = Group()
    processes = group.join(2)
    group.pass_s(13)
    group.join()
    group.until(lambda: bool(group.shelf().waiting), within_s=1)
    looks = []
    for process in processes:
        process.member.look()
        set_away(group, True)
        group.now += 1
        with pytest.raises(StoreError):
            process.member.look()
        looks.append(process.member.next_look_in_s())
        set_away(group, False)
    assert min(looks) >= 0.8 * processes[0].pace.poll_s / 4


def test_in_a_longer_outage_each_member_has_keys_of_its_own_and_comes_back() -> None:
    group = Group()
    processes = group.join(4)
    group.pass_s(20)
    set_away(group, True)
    group.pass_s(40)
    assert len({process.published for process in processes}) == 4
    assert not any(process.is_shared for process in processes)
    group.pass_s(60)
    assert all(process.published for process in processes), "own keys are replaced, too"
    own = {process.name: process.published for process in processes}
    set_away(group, False)
    assert group.until(lambda: all_share(group), within_s=5) <= 2.0
    assert all(own[process.name] in process.accepted for process in processes), "clients hold the own keys still"
    group.pass_s(group.schedule.period_s + group.schedule.overlap_s + 1)
    assert all(not process.member.own for process in processes)


def test_a_pair_of_a_members_own_that_somebody_erased_is_replaced_at_once() -> None:
    group = Group(10.0)
    (process,) = group.join()
    group.pass_s(1.0)
    process.stores[0].is_away = True
    group.until(lambda: bool(process.member.own), within_s=30.0)
    for kind in ("x25519", "xwing"):
        (own,) = process.member.own
        getattr(own.pairs, kind).erase()
        assert process.published is None
        process.member.cover_silence()
        assert process.published is not None
        assert own.pairs.xwing is not None
        assert own.pairs.x25519.erased
        assert own.pairs.xwing.erased


def test_own_keys_never_get_into_the_store() -> None:
    group = Group()
    processes = group.join(2)
    group.pass_s(5)
    set_away(group, True)
    group.pass_s(40)
    own = {process.published for process in processes}
    set_away(group, False)
    group.pass_s(5)
    assert own.isdisjoint({epoch.pair.public_key for p in processes for epoch in p.member.epochs.held})


def test_an_empty_store_gets_its_register_back() -> None:
    group = Group()
    group.join(3)
    for _ in range(20):
        group.pass_s(group.random.random() * 9)
        empty(group)
    assert not group.lacking
    assert all_share(group)


def test_an_old_snapshot_takes_nobody_back() -> None:
    group = Group()
    processes = group.join(3)
    group.pass_s(5)
    shelf = group.shelf()
    old = shelf.register, dict(shelf.asks), dict(shelf.boxes), set(shelf.waiting)
    for _ in range(10):
        group.pass_s(7)
        before = max(ranks(processes[0]))
        shelf.register, shelf.asks, shelf.boxes, shelf.waiting = old[0], dict(old[1]), dict(old[2]), set(old[3])
        group.pass_s(2)
        assert max(ranks(processes[0])) >= before
    assert not group.lacking
    assert all_share(group)


def test_a_commit_that_waited_in_a_stopped_store_extends_no_lifetime() -> None:
    group = Group()
    processes = group.join(3)
    group.pass_s(11)
    late: list[Callable[[], bool]] = []
    for process in processes:
        process.stores[0].commits_late = late
    group.pass_s(12)
    assert late, "somebody tried to commit"
    for process in processes:
        process.stores[0].commits_late = None
    group.pass_s(1)
    for apply in late:
        apply()
    for _ in range(300):
        group.pass_s(0.1)
        for process in processes:
            for epoch in process.living:
                if epoch.number:
                    assert group.now <= group.born[epoch.pair.public_key] + process.pace.life_s + 0.01
    assert all_share(group)


def test_half_of_the_members_cut_off_serve_on_and_come_back_to_one_ring() -> None:
    group = Group()
    processes = group.join(6)
    group.pass_s(15)
    for process in processes[:3]:
        process.stores[0].is_away = True
    group.watch = lambda: processes[3:]
    highest = 0
    for _ in range(40):
        group.pass_s(1)
        assert all(process.published for process in processes)
        highest = max(highest, *(max(ranks(process)) for process in processes))
    for process in processes[:3]:
        process.stores[0].is_away = False
    assert group.until(lambda: all_share(group), within_s=3) <= 1.5
    assert all(max(ranks(process)) >= highest for process in processes)
    assert not group.lacking


# Who joins.


def test_each_new_member_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server_keys")
    group = Group()
    group.join(3)
    group.pass_s(30)
    for _ in range(2):
        group.join()
        group.pass_s(30)
    told = [record.message for record in caplog.records if "joined the key group" in record.message]
    # Nobody served the one that made the first epoch.
    assert len(told) == len(set(told)) == 4


# Clocks.


def test_a_store_that_answers_late_does_not_set_the_ends_of_keys_apart() -> None:
    group = Group()
    processes = group.join(3)
    group.pass_s(13)

    def pass_a_moment() -> None:
        group.now += 0.2

    for _ in range(20):
        ends = {epoch.rank: epoch.ends_at for epoch in processes[0].member.epochs.held}
        processes[0].stores[0].is_slow = pass_a_moment
        group.pass_s(10)
        processes[0].stores[0].is_slow = lambda: None
        for epoch in processes[0].member.epochs.held:
            # Never later, and not earlier for that.
            assert epoch.ends_at == ends.get(epoch.rank, epoch.ends_at)
        group.pass_s(group.random.random() * 10)
    assert not group.lacking


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 30.0, -30.0])
def test_a_jump_of_the_stores_clock_neither_extends_a_lifetime_nor_stops_the_rotation(jump_s: float) -> None:
    group = Group()
    processes = group.join(4)
    for ahead in itertools.accumulate([0.0, jump_s, 0.0, -jump_s, jump_s]):
        group.shelf().set_ahead_s = ahead
        for _ in range(60):
            group.pass_s(group.random.random())
            for process in processes:
                for epoch in process.living:
                    assert group.now <= group.born[epoch.pair.public_key] + process.pace.life_s + 0.01
        group.pass_s(5)
        assert all_share(group)


def test_hosts_whose_clocks_differ_have_one_ring() -> None:
    group = Group()
    group.join(2)
    group.join(2, clock_ahead_s=30.0)
    group.join(2, clock_ahead_s=-900.0)
    group.pass_s(200)
    assert all_share(group)
    assert not group.lacking


def test_a_member_that_was_stopped_for_periods_accepts_nothing_longer_and_catches_up() -> None:
    group = Group()
    processes = group.join(4)
    stopped = processes[0]
    for _ in range(5):
        group.pass_s(7)
        stopped.is_stopped = True
        group.pass_s(25)
        assert not [epoch for epoch in stopped.living if group.born[epoch.pair.public_key] < group.now - 25]
        stopped.is_stopped = False
        group.watch = lambda: processes[1:]
        group.until(lambda: all_share(group), within_s=2)
        group.watch = lambda: processes
    assert not group.lacking


# Somebody else writes to the store.


def test_a_forged_register_is_put_right(caplog: pytest.LogCaptureFixture) -> None:
    group = Group()
    group.join(3)
    group.pass_s(5)
    for forged in (b"junk", bytes(73), GROUP[0].register_tag(b"x") * 2, group.shelf().register[:-1] + b"\0"):
        group.shelf().register = forged
        group.pass_s(2)
        assert group.shelf().register != forged
    group.pass_s(30)
    assert not group.lacking
    alarms = [r for r in caplog.records if "not made by a member" in r.message and r.levelno >= logging.WARNING]
    assert 1 <= len(alarms) <= 3, "one a member and minute"


def test_another_groups_entries_are_junk_here() -> None:
    group = Group()
    group.join(3)
    others = [GroupKeys.of_name(b"another group")]
    strangers = Group()
    strangers.join(3, doors=others)
    for _ in range(30):
        group.pass_s(1)
        strangers.pass_s(1)
        here, there = group.shelf(), strangers.shelf(others[0])
        here.register = there.register
        here.asks.update(there.asks)
        here.waiting.update(there.asks)
        here.boxes.update(zip(here.asks, there.boxes.values(), strict=False))
        group.pass_s(1)
    assert not {key for p in group.processes for key in p.accepted} & set(strangers.born)
    assert all_share(group)


def test_junk_boxes_are_ignored_and_told(caplog: pytest.LogCaptureFixture) -> None:
    group = Group()
    group.join(3)
    group.pass_s(5)
    for _ in range(20):
        group.until_next_commit()
        group.shelf().boxes = dict.fromkeys(group.shelf().boxes, b"junk" * 30)
        group.pass_s(3)
    assert all_share(group)
    assert not group.lacking, "those whose box was junk ask again before the key is published"
    assert any("not sealed by a member" in record.message for record in caplog.records)


def test_an_old_box_that_is_put_back_opens_no_more() -> None:
    group = Group()
    processes = group.join(2)
    group.pass_s(5)
    kept: dict[bytes, bytes] = {}
    for _ in range(100):
        group.pass_s(0.3)
        kept.update(group.shelf().boxes)
        group.shelf().boxes.update(kept)
    assert len(kept) >= 1
    assert not group.lacking
    assert all_share(group)
    assert max(len(process.living) for process in processes) <= 4


def test_a_store_full_of_junk_is_cleared(caplog: pytest.LogCaptureFixture) -> None:
    group = Group()
    group.join(3)
    group.pass_s(5)
    for number in range(MOST_ASKS + 6000):
        name = name_of(number.to_bytes(8, "big"))
        group.shelf().asks[name] = group.now, b"junk"
        group.shelf().waiting.add(name)
    group.pass_s(20)
    assert len(group.shelf().asks) == 3
    assert not group.lacking
    assert any("more entries than a key group can have" in record.message for record in caplog.records)


def test_a_group_starts_in_a_store_full_of_junk() -> None:
    group = Group()
    for number in range(MOST_ASKS + 1000):
        group.shelf().asks[name_of(number.to_bytes(8, "big"))] = group.now, b"junk"
    group.join(3)
    assert group.until(lambda: all_share(group), within_s=5) <= 2.0


# A change of the secret.


def test_a_secret_is_changed_without_a_pause() -> None:
    old, new = GroupKeys.from_secret_text("a1" * 32, b"")[0], GroupKeys.from_secret_text("b2" * 32, b"")[0]
    group = Group()
    group.join(4, doors=[old])
    group.pass_s(10)
    for doors in ([old, new], [new, old], [new]):
        for process in list(group.processes):
            group.join(doors=doors)
            group.pass_s(2)
            group.kill(process)
            group.pass_s(2)
        group.pass_s(25)
        assert all_share(group)
    assert not group.lacking
    group.kill(group.processes[0])


def test_a_thousand_members_fit_into_a_small_store() -> None:
    group = Group()
    group.watch = lambda: group.processes[:2]
    group.join(1000)
    group.pass_s(3)
    assert all_share(group)
    biggest = 0
    for _ in range(12):
        group.pass_s(0.25)
        biggest = max(biggest, group.shelf().size)
    assert all_share(group)
    assert 100_000 < biggest <= 3 << 20
