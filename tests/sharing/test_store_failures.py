"""What servers do while their store is killed, stopped, emptied, put back in time, cut off, or does not let them in."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_keys._clock import boot_time
from server_keys._keys.schedule import Schedule
from server_keys._sharing.pace import Pace
from tests.helpers.crossing_calls import crossing
from tests.helpers.hosts import SECRET, Hosts, hosts
from tests.helpers.many_calls import Calls, calls_meanwhile
from tests.helpers.tcp_proxy import tcp_proxy
from tests.helpers.trials import Keys
from tests.helpers.valkey import VALKEY, StoreServer, store_cluster, store_server

IS_LONG = os.environ.get("SHARING_TRIALS") == "long"
THREE = ("a", "b", "c")
# Of a refresh time and an overlap of 1 s.
POLL_S = 0.1
LEAD_S = 0.5
LIFE_S = LEAD_S + 1.0 + 1.0
WATCH_S = 0.2
"""How much later than it happens a change may be told on a busy machine."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    folder = tmp_path / "store"
    folder.mkdir()
    with store_server(VALKEY, folder) as server:
        yield server


@pytest.fixture
def group(store: StoreServer, tmp_path: Path) -> Iterator[Hosts]:
    with hosts(tmp_path, store.url) as group:
        yield group


def assert_nothing_lost(calls: Calls) -> None:
    assert calls.tally.calls > 50
    assert not calls.tally.failed, calls.tally.failed[:5]
    assert calls.tally.cut == 0


@pytest.fixture
def unhurried(store: StoreServer, tmp_path: Path) -> Iterator[Hosts]:
    """Hosts with the shortest times at which members look as often as they ever do, so that little jitter counts."""
    with hosts(tmp_path, store.url, keys=Keys(2.5)) as group:
        yield group


def test_an_outage_that_ends_in_time_loses_no_call(store: StoreServer, unhurried: Hosts) -> None:
    group, pace = unhurried, Pace(Schedule(2.5, 2.5))
    group.start_all(THREE)
    group.wait_for_epochs(2)
    longest_s = pace.lead_s + pace.schedule.period_s - 3 * pace.poll_s

    def outlast(committed_at: float) -> None:
        # It needs a moment to start.
        time.sleep(max(committed_at + longest_s - 0.25 - boot_time(), 0))

    def killed_and_restarted_empty() -> float:
        committed_at = group.wait_for_epochs(1).at
        store.kill()
        outlast(committed_at)
        store.restart()
        return committed_at

    def restarted_with_an_old_snapshot() -> float:
        store.run("SAVE")
        committed_at = group.wait_for_epochs(2).at
        store.kill()
        outlast(committed_at)
        store.restart(from_snapshot=True)
        return committed_at

    def stopped() -> float:
        committed_at = group.wait_for_epochs(1).at
        with store.stopped():
            outlast(committed_at)
        return committed_at

    def emptied() -> float:
        for after_commit_s in (0.0, 0.7, 1.7):
            group.wait_for_epochs(1)
            time.sleep(after_commit_s)
            store.run("FLUSHALL")
        return boot_time()

    for outage in (killed_and_restarted_empty, restarted_with_an_old_snapshot, stopped, emptied):
        done = 0
        while done < (10 if IS_LONG else 1):
            since = boot_time()
            with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
                took_s = -outage() + boot_time()
                group.wait_for_epochs(2)
                group.wait_for_one_ring()
            print(f"{outage.__name__}, back {took_s:.2f} s after the last commit: {calls.tally}")
            if took_s > longest_s:
                continue  # a busy machine started it too late
            done += 1
            states = group.all_states(since=since)
            assert not calls.tally.failed, "\n".join([*calls.tally.failed, *map(str, states)])
            assert_nothing_lost(calls)
            assert all(state.is_shared for state in states), [s for s in states if not s.is_shared]
    assert group.longest_acceptance_s() <= pace.life_s + WATCH_S


def test_in_a_longer_outage_each_host_has_keys_of_its_own_and_comes_back(store: StoreServer, group: Hosts) -> None:
    group.start_all(THREE)
    with store.stopped():
        stopped_at = boot_time()
        group.wait_for(lambda: not any(s.is_shared for s in group.states().values()), "own keys")
        print(f"own keys {boot_time() - stopped_at:.2f} s after the store stopped")
        own = {state.more["current"] for state in group.states().values()}
        assert len(own) == 3
        with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
            group.wait_for(lambda: calls.tally.calls >= (300 if IS_LONG else 45), "calls", 600)
        assert {"did not answer within 0.25 s"} == {
            state.more["why_not"].partition("/0 ")[2] for state in group.states().values()
        }
    back_at = boot_time()
    print(f"shared again {group.wait_for_one_ring() - back_at:.2f} s after it went on")
    group.wait_for_epochs(3)
    tally = calls.tally
    share = tally.refusals / tally.calls
    print(f"while the store was away: {share:.0%} of calls to another host were refused: {tally}")
    # Each pair of two hosts had its turn, also those of a host with itself.
    assert 0.5 < share < 0.8
    assert tally.cut == 0
    assert group.longest_acceptance_s() <= LIFE_S + WATCH_S
    # Clients hold own keys still for a while. No other process ever has them.
    for state in group.all_states():
        pids = {each.pid for each in group.all_states() if each.more["current"] == state.more["current"]}
        assert state.is_shared or pids == {state.pid}
    assert len(group.logged("this process has keys of its own", level="WARNING")) == 3
    assert group.wait_for_one_ring()


def test_who_starts_before_the_store_serves_with_own_keys_and_joins_later(store: StoreServer, group: Hosts) -> None:
    store.kill()
    for name in THREE[:2]:
        group.start(name)
    group.wait_for(lambda: len(group.living) == 2, "servers")
    for name, server in group.running.items():
        (pid,) = [event.pid for event in server.of("serves")]
        print(f"{name} serves without a store {server.start_took_s(pid):.2f} s after its start")
        assert 0.9 < server.start_took_s(pid) < 3
        assert not server.state(pid).is_shared
        assert "Connection refused" in server.state(pid).more["why_not"]
    store.start()
    at = boot_time()
    print(f"one ring {group.wait_for_one_ring() - at:.2f} s after the store's start")
    assert not group.logged("", level="ERROR")


def test_a_store_that_lets_nobody_in_leaves_own_keys_and_says_so_without_the_login(
    store: StoreServer, group: Hosts
) -> None:
    administrator = store.administrator  # it logged in before there was a password
    administrator.config_set("requirepass", "hunter2")
    administrator.execute_command("ACL", "SETUSER", "narrow", "on", ">hunter3", "~server-keys:*", "-@all", "+get")
    address = f"127.0.0.1:{store.port}"
    group.start("none", share=store.url)
    group.start("wrong", share=f"valkey://:wrong-hunter@{address}")
    group.start("narrow", share=f"valkey://narrow:hunter3@{address}")
    group.start("let_in", share=f"valkey://:hunter2@{address}")
    group.wait_for(lambda: len(group.living) == 4, "servers")
    reasons = {
        "none": "does not accept the user and the password, or wants some, or wants none",
        "wrong": "does not accept the user and the password, or wants some, or wants none",
        "narrow": "does not allow this user the command",
    }
    for name, reason in reasons.items():
        server = group.running[name]
        (pid,) = [event.pid for event in server.of("serves")]
        assert not server.state(pid).is_shared
        assert reason in server.state(pid).more["why_not"]
        (line,) = server.logged("", level="WARNING")
        assert line.more["message"].startswith(f"cannot share keys through valkey://{address}/0 (")
        assert reason in line.more["message"]
    assert group.running["let_in"].of("keys")[-1].is_shared

    # It lets them in after all.
    administrator.execute_command("ACL", "SETUSER", "narrow", "+@all")
    administrator.execute_command("ACL", "SETUSER", "default", ">wrong-hunter")
    sharing = [group.running[name] for name in ("wrong", "narrow", "let_in")]
    group.wait_for(lambda: all(server.of("keys")[-1].is_shared for server in sharing), "sharing")
    written = group.everything_written()
    assert "hunter" not in written
    assert SECRET not in written


def test_half_of_the_hosts_cut_off_serve_on_and_come_back_to_one_ring(store: StoreServer, group: Hosts) -> None:
    with tcp_proxy(store.port) as proxy:
        for name in ("a", "b"):
            group.start(name)
            group.start(f"{name}-far", share=f"valkey://127.0.0.1:{proxy.port}")
        group.wait_for_one_ring()
        near = [group.running[name].url for name in ("a", "b")]
        far = [group.running[f"{name}-far"].url for name in ("a", "b")]
        for _ in range(3 if IS_LONG else 1):
            with calls_meanwhile("", [crossing(lambda: near)]) as calls:
                proxy.cut()
                cut_at = boot_time()
                group.wait_for(lambda: sum(not s.is_shared for s in group.states().values()) == 2, "own keys")
                group.wait_for_epochs(3)
                with calls_meanwhile("", [crossing(lambda: far)]) as far_calls:
                    group.wait_for(lambda: far_calls.tally.calls > 50, "calls")
                before = {pid: state.more["epoch"] for pid, state in group.states().items()}
                highest = max(epoch or 0 for epoch in before.values())
                proxy.heal()
                healed_at = boot_time()
                one_ring_at = group.wait_for_one_ring()
                group.wait_for_epochs(2)
            print(f"one ring {one_ring_at - healed_at:.2f} s after healing; far half while cut off: {far_calls.tally}")
            assert_nothing_lost(calls)
            # The far half serves, each with keys of its own: calls within one host open.
            assert far_calls.tally.statuses[200] > 10
            assert far_calls.tally.cut == 0
            epochs = [state.more["epoch"] for state in group.states().values()]
            assert min(epochs) > highest
            numbers: dict[int, int] = {}
            for state in group.all_states(since=cut_at):
                if state.is_shared:
                    assert state.more["epoch"] >= numbers.get(state.pid, 0), "it went back"
                    numbers[state.pid] = state.more["epoch"]
    assert group.longest_acceptance_s() <= LIFE_S + WATCH_S


def test_a_commit_that_waits_in_a_stopped_store_extends_no_lifetime(store: StoreServer, group: Hosts) -> None:
    group.start_all(THREE[:2])
    for _ in range(8 if IS_LONG else 2):
        made = group.wait_for_epochs(1)
        # Stop it when the next commits are about to be sent: one second after the last ones.
        time.sleep(max(made.at + 1.0 - POLL_S / 2 - boot_time(), 0))
        with store.stopped():
            time.sleep(LEAD_S + 1.0)
        group.wait_for_one_ring()
        group.wait_for_epochs(2)
    print(f"longest acceptance {group.longest_acceptance_s():.2f} s of {LIFE_S} s")
    assert group.longest_acceptance_s() <= LIFE_S + WATCH_S


def test_rotation_goes_on_when_a_node_of_a_cluster_dies(tmp_path: Path) -> None:
    with (
        store_cluster(VALKEY, tmp_path, 3, replicas=1) as nodes,
        hosts(tmp_path / "hosts", nodes[0].url, keys=Keys(2.0)) as group,
    ):
        for number, name in enumerate(THREE):
            # Each knows another node.
            group.start(name, share=nodes[number].url)
        group.wait_for_one_ring()
        group.wait_for_epochs(1)
        owner = next(node for node in nodes[:3] if node.run("DBSIZE"))
        with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
            owner.kill()
            killed_at = boot_time()
            group.wait_for_epochs(2)
            group.wait_for_one_ring()
        states = group.all_states(since=killed_at)
        print(f"{group.made(since=killed_at)[0].at - killed_at:.2f} s to the next epoch: {calls.tally}")
    assert_nothing_lost(calls)
    assert all(state.is_shared for state in states)


def test_old_and_new_refresh_times_side_by_side_have_one_ring(group: Hosts) -> None:
    for name, period_s in (("old", 3.0), ("new", 1.0)):
        group.start(name, keys=Keys(period_s))
    group.wait_for_one_ring()
    since = boot_time()
    with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
        group.wait_for_epochs(5)
    took_s = boot_time() - since
    assert_nothing_lost(calls)
    assert not group.lacks(since=since)
    assert took_s < 9, "the shorter period takes its turn"
    assert all(state.is_shared for state in group.all_states(since=since))
