"""What needs no sharing, or is not to be shared, costs nothing: no directory, no thread."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.helpers.trials import Keys, Trial, started

PLACES = ("/dev/shm", "/tmp")
PLANS = {
    "one process": (1, Keys()),
    "not to share": (2, Keys(share=None)),
    "short period": (2, Keys(period_s=0.4)),
    "short overlap": (2, Keys(overlap_s=0.4)),
    "shared": (2, Keys()),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Trial]]:
    """A server for each plan, all of whose workers serve."""
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(started(tmp_path_factory.mktemp("server"), keys, workers=workers))
            for name, (workers, keys) in PLANS.items()
        }
        for name, (workers, _) in PLANS.items():
            servers[name].workers(workers)
        yield servers


def directories_of(parent: int) -> list[str]:
    """The directories of groups whose parent is this process."""
    of_group = re.compile(rf"server-keys-\d+-\d+-{parent}-\d+-[0-9a-f]+")
    return [name for place in PLACES for name in os.listdir(place) if of_group.fullmatch(name)]


def assert_costs_nothing(server: Trial, pids: list[int], parent: int, why_not: str) -> None:
    for pid in pids:
        (serves,) = server.of("serves", pid=pid)
        assert "server_keys sharing" not in serves.more["threads"]
        state = server.state(pid)
        assert not state.is_shared
        assert (state.more["store"], state.more["epoch"], state.more["members"]) == (None, None, None)
        assert state.more["why_not"] == why_not
    server.wait_for_keys(2 * len(pids) + 1)
    assert directories_of(parent) == []


def test_a_server_of_one_process(servers: dict[str, Trial]) -> None:
    server = servers["one process"]
    assert_costs_nothing(server, server.workers(1), os.getpid(), "this process is the only one of its server")
    assert not server.logged("", level="WARNING")


def test_workers_that_are_not_to_share(servers: dict[str, Trial]) -> None:
    server = servers["not to share"]
    assert_costs_nothing(server, server.workers(2), server.process.pid, "share=None was asked for")
    assert not server.logged("", level="WARNING")


@pytest.mark.parametrize("name", ["short period", "short overlap"])
def test_workers_whose_keys_change_too_often_say_so_once(servers: dict[str, Trial], name: str) -> None:
    server, why_not = servers[name], "a refresh time or an overlap below 0.5 s is too short to be shared"
    pids = server.workers(2)
    assert_costs_nothing(server, pids, server.process.pid, why_not)
    warnings = server.logged("", level="WARNING")
    assert sorted(event.pid for event in warnings) == sorted(pids), "one a process"
    assert all(why_not in event.more["message"] for event in warnings)


def test_those_who_share_have_both(servers: dict[str, Trial]) -> None:
    # What is missing above would be seen.
    server = servers["shared"]
    pids = server.workers(2)
    server.wait_for_one_ring(pids)
    assert all("server_keys sharing" in event.more["threads"] for event in server.of("serves"))
    assert len(directories_of(server.process.pid)) == 1
