"""Workers are killed while clients call: no living worker lacks a key, and newcomers have the group's at once."""

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.helpers.many_calls import async_cached_key, cached_key, calls_meanwhile
from tests.helpers.trials import Event, Keys, Trial, is_soon, trial
from tests.sharing.test_workers import IS_LONG

WORKERS = 3
KILLS = 20 if IS_LONG else 1
CLIENTS = (cached_key, async_cached_key)
KEYS = Keys()


def kill(server: Trial, pids: Sequence[int]) -> float:
    """Kill workers, and return the time at which they told of their keys last."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return server.now()


def living(server: Trial, killed: set[int]) -> list[int]:
    return [event.pid for event in server.of("serves") if event.pid not in killed]


def newcomers(server: Trial, count: int, since: float) -> list[int]:
    """Wait until the server has replaced so many workers, and check that they were quick to have a key."""
    pids = server.workers(count, since=since)
    for pid in pids:
        print(f"newcomer {pid}: {server.start_took_s(pid):.2f} s")
        assert is_soon(server.start_took_s(pid), 1.0)
    return pids


def first_keys(server: Trial, pid: int) -> Event:
    server.state(pid)
    return server.of("keys", pid=pid)[0]


def test_no_call_fails_because_of_a_key_whichever_worker_is_killed(tmp_path: Path) -> None:
    chance = random.Random(1)
    killed: set[int] = set()

    def kill_one(pid: int) -> None:
        killed.add(pid)
        since = kill(server, [pid])
        (newcomer,) = newcomers(server, 1, since)
        # The others served it: it has what they publish, or will publish next.
        keys = first_keys(server, newcomer)
        assert keys.is_shared
        others = [server.state(other) for other in living(server, killed) if other != newcomer]
        assert any(keys.more["current"] in other.more["accepted"] for other in others)

    with trial(tmp_path, KEYS, workers=WORKERS) as server:
        server.wait_for_one_ring(server.workers(WORKERS))
        with calls_meanwhile(server.url, CLIENTS) as calls:
            for _ in range(KILLS):
                kill_one(chance.choice(living(server, killed)))
            for _ in range(KILLS):
                # Whoever has just made the next epoch. It is not published yet.
                made = server.wait_for_epoch()
                kill_one(made.pid)
            for _ in range(KILLS):
                # Another one, which may be about to fetch it.
                made = server.wait_for_epoch()
                kill_one(next(pid for pid in living(server, killed) if pid != made.pid))
        print(f"{len(killed)} killed: {calls.tally}")
        assert calls.tally.calls > 100
        assert not calls.tally.failed, calls.tally.failed[:5]
        assert calls.tally.refusals == 0
        assert all(event.is_shared for event in server.of("keys"))


def test_a_group_that_was_killed_as_a_whole_serves_again(tmp_path: Path) -> None:
    with trial(tmp_path, KEYS, workers=WORKERS) as server:
        pids = server.workers(WORKERS)
        with calls_meanwhile(server.url, CLIENTS) as calls:
            for _ in range(KILLS):
                server.wait_for_one_ring(pids)
                before = server.state(pids[0]).more["accepted"]
                since = kill(server, pids)
                pids = newcomers(server, WORKERS, since)
                server.wait_for_one_ring(pids)
                began = max(event.at for event in server.of("starts", since=since))
                first = [first_keys(server, pid) for pid in pids]
                print(f"whole group: {max(keys.at for keys in first) - began:.2f} s")
                assert is_soon(max(keys.at for keys in first) - began, 2.0)
                # Nobody has what died with the others.
                assert not {key for keys in first for key in keys.more["accepted"]} & set(before)
        print(f"all killed {KILLS} times: {calls.tally}")
        # A key of the dead is refused, and then the client fetches that of the living.
        assert not calls.tally.failed, calls.tally.failed[:5]
