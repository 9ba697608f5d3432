"""Servers on several hosts that share one ring through a real store, behind real proxies and without them.

`SHARING_TRIALS=long` runs each trial for more rotations.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server_keys._clock import boot_time
from tests.helpers.crossing_calls import crossing, kept_connection
from tests.helpers.hosts import Hosts, haproxy_before, hosts, kill, nginx_before, secret_file
from tests.helpers.many_calls import Calls, async_cached_key, cached_key, calls_meanwhile, new_clients
from tests.helpers.trials import Keys
from tests.helpers.valkey import VALKEY, StoreServer, store_server

IS_LONG = os.environ.get("SHARING_TRIALS") == "long"
ROTATIONS = 50 if IS_LONG else 3
CALLS = 2000 if IS_LONG else 150
THREE = ("a", "b", "c")


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


def assert_nothing_lost(calls: Calls, cut: int = 0) -> None:
    tally = calls.tally
    assert not tally.failed, tally.failed[:5]
    assert tally.refusals == 0
    assert tally.cut <= cut


def test_behind_proxies_no_call_is_lost_while_keys_rotate(group: Hosts, tmp_path: Path) -> None:
    group.workers = 2
    # A key of 1 s would leave clients no time between its `max-age` and its end.
    group.keys = Keys(2.0)
    group.start_all(THREE)
    clients = (cached_key, async_cached_key, new_clients, kept_connection)
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(nginx_before(tmp_path / "nginx", group.ports)),
            stack.enter_context(haproxy_before(tmp_path / "haproxy", group.ports)),
        ]
        since = boot_time()
        calling = [stack.enter_context(calls_meanwhile(url, clients)) for url in proxies]
        group.wait_for_epochs(ROTATIONS, since=since)
        group.wait_for(lambda: all(calls.tally.calls >= CALLS for calls in calling), "calls", 600)
    for name, calls in zip(("nginx", "HAProxy"), calling, strict=True):
        print(f"{name} before 3 servers x 2 workers, {len(group.made(since=since))} epochs: {calls.tally}")
        assert_nothing_lost(calls)
    assert not group.lacks(since=since)
    assert all(state.is_shared for state in group.all_states(since=since))
    assert {state.more["members"] for state in group.states().values()} == {6}
    # Lead, period and overlap; and what the watch adds.
    assert 2.0 < group.longest_acceptance_s() <= 1.0 + 2.0 + 2.0 + 0.2


def test_processes_may_be_killed_and_join_and_no_key_is_lacking(group: Hosts) -> None:
    group.workers = 2
    group.start_all(THREE)
    since = boot_time()
    took: list[float] = []
    with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
        for number in range(20 if IS_LONG else 3):
            # In the middle of a rotation: an epoch is made, and not yet published.
            made = group.wait_for_epochs(1)
            living = {*group.living}
            killed_at = boot_time()
            victim = made.pid if number % 2 == 0 else next(pid for pid in living if pid != made.pid)
            kill(victim)
            (newcomer,) = group.wait_for_newcomers(living, 1)
            group.wait_for_one_ring()
            (server,) = [server for server in group.running.values() if server.of("starts", pid=newcomer)]
            took.append(server.start_took_s(newcomer))
            first = server.of("keys", pid=newcomer)[0]
            assert first.is_shared, first
            assert killed_at < first.at
    print(f"killed {len(took)}, joined after {max(took):.2f} s at most, {statistics.median(took):.2f} s: {calls.tally}")
    assert_nothing_lost(calls, cut=4 * len(took))
    assert not group.lacks(since=since)
    assert statistics.median(took) <= 1.0
    assert max(took) <= 3.0, "more than any load explains"

    living = {*group.living}
    kill(*living)
    killed_at = boot_time()
    group.wait_for_newcomers(living, 6)
    one_ring_at = group.wait_for_one_ring()
    first_start = min(event.at for event in group.events if event.event == "starts" and event.at > killed_at)
    first_key = min(event.at for event in group.all_states(since=killed_at))
    last_serves = max(event.at for event in group.events if event.event == "serves")
    print(
        f"all 6 killed: the first process began {first_start - killed_at:.2f} s later, the first key was there "
        f"{first_key - first_start:.2f} s after that, one ring {one_ring_at - last_serves:.2f} s after the last began"
    )
    assert first_key - first_start <= 2.0
    assert one_ring_at - last_serves <= 2.0
    assert all(state.is_shared for state in group.all_states(since=killed_at))


def test_a_secret_is_changed_host_by_host_and_no_call_is_lost(group: Hosts, tmp_path: Path) -> None:
    names = THREE if IS_LONG else THREE[:2]
    old, new = "a1" * 32, "b2" * 32
    serving: list[str] = []
    group.secret = secret_file(tmp_path, old)
    group.start_all([f"{name}0" for name in names])
    serving += group.running
    since = boot_time()
    with calls_meanwhile("", [crossing(lambda: [group.running[name].url for name in tuple(serving)])]) as calls:
        for step, secrets in enumerate(([old, new], [new, old], [new]), start=1):
            file = secret_file(tmp_path, *secrets)
            for name in names:
                group.start(f"{name}{step}", secret=file)
                group.wait_for_one_ring()
                serving.append(f"{name}{step}")
                serving.remove(f"{name}{step - 1}")
                time.sleep(0.3)  # calls to it end
                group.end(f"{name}{step - 1}")
                group.wait_for_epochs(1)
    print(f"{3 * len(names)} restarts with another secret: {calls.tally}")
    assert calls.tally.calls > 100
    assert_nothing_lost(calls)
    assert not group.lacks(since=since)
    assert all(state.is_shared for state in group.all_states(since=since))
    assert not group.logged("not sealed by a member")
    assert not group.logged("not made by a member")


def test_groups_of_one_store_do_not_disturb_each_other(store: StoreServer, group: Hosts, tmp_path: Path) -> None:
    with hosts(tmp_path / "others", store.url) as others:
        for name in ("a", "b"):
            group.start(name)
            others.start(name, secret=secret_file(tmp_path, "c3" * 32))
        # The same secret, and another label.
        others.start("c", share=f"{store.url}?group=c", secret=group.secret)
        group.wait_for_one_ring()
        others.wait_for(lambda: len(others.living) == 3, "the others")
        with calls_meanwhile("", [crossing(lambda: group.urls)]) as calls:
            others.wait_for_epochs(3)
            group.wait_for_epochs(3)
        states = {name: server.of("keys")[-1].more for name, server in others.running.items()}
        seen = [{key for state in each.all_states() for key in state.more["accepted"]} for each in (group, others)]
        logged = [*group.logged(""), *others.logged("")]
    assert_nothing_lost(calls)
    assert len(seen[0]) > 2
    assert seen[0].isdisjoint(seen[1])
    assert states["a"]["current"] == states["b"]["current"] != states["c"]["current"]
    assert [states[name]["members"] for name in "abc"] == [2, 2, 1]
    alarms = {line.more["message"] for line in logged if line.more["level"] not in ("DEBUG", "INFO")}
    assert all(alarm.startswith("a process joined the key group in ") for alarm in alarms), alarms
