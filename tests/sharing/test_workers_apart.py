"""What needs no sharing, or is not to be shared, costs nothing: no directory, no thread."""

import os
from pathlib import Path

import pytest

from tests.helpers.trials import Keys, Trial, trial

PLACES = ("/dev/shm", "/tmp")


def directories_of(parent: int) -> list[str]:
    """The directories of groups whose parent is this process."""
    named = [name for place in PLACES for name in os.listdir(place) if name.startswith("server-keys-")]
    return [name for name in named if name.split("-")[4] == str(parent)]


def assert_costs_nothing(server: Trial, pids: list[int], parent: int) -> None:
    for pid in pids:
        (serves,) = server.of("serves", pid=pid)
        assert "server_keys sharing" not in serves.more["threads"]
        state = server.state(pid)
        assert not state.is_shared
        assert (state.more["store"], state.more["epoch"], state.more["members"]) == (None, None, None)
    assert directories_of(parent) == []
    server.wait_for_keys(2 * len(pids) + 1)
    assert directories_of(parent) == []


def test_a_server_of_one_process_has_no_directory_and_no_thread(tmp_path: Path) -> None:
    with trial(tmp_path, Keys(), workers=1) as server:
        pids = server.workers(1)
        assert_costs_nothing(server, pids, os.getpid())
        assert server.state(pids[0]).more["why_not"] == "this process is the only one of its server"
        assert not server.logged("", level="WARNING")


def test_workers_that_are_not_to_share_have_none_either(tmp_path: Path) -> None:
    with trial(tmp_path, Keys(share=None)) as server:
        pids = server.workers(2)
        assert_costs_nothing(server, pids, server.process.pid)
        assert server.state(pids[0]).more["why_not"] == "share=None was asked for"
        assert not server.logged("", level="WARNING")


@pytest.mark.parametrize("keys", [Keys(period_s=0.4), Keys(overlap_s=0.4)])
def test_keys_that_change_too_often_are_not_shared_and_the_log_says_so_once(tmp_path: Path, keys: Keys) -> None:
    with trial(tmp_path, keys) as server:
        pids = server.workers(2)
        assert_costs_nothing(server, pids, server.process.pid)
        warnings = server.logged("", level="WARNING")
        assert sorted(event.pid for event in warnings) == sorted(pids), "one a process"
        assert all("below 0.5 s is too short to be shared" in event.more["message"] for event in warnings)


def test_those_who_share_have_both(tmp_path: Path) -> None:
    # What is missing above would be seen.
    with trial(tmp_path, Keys()) as server:
        pids = server.workers(2)
        assert all("server_keys sharing" in event.more["threads"] for event in server.of("serves"))
        assert len(directories_of(server.process.pid)) == 1
        server.wait_for_one_ring(pids)
