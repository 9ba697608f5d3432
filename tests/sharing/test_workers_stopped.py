"""A worker stands still, or its event loop does: keys end on time all the same, and it serves the group's at once."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx2

from server_keys.client.httpx2 import SealedTransport
from tests.helpers.many_calls import async_cached_key, cached_key, calls_meanwhile
from tests.helpers.trials import Event, Keys, Trial, is_soon, trial

CLIENTS = (cached_key, async_cached_key)
KEYS = Keys()
# Lead, period and overlap.
LIFE_S = 0.5 + 1.0 + 1.0


def wait_for_group(server: Trial, pid: int, since: float) -> float:
    """Wait until a process publishes what another one does, and return how long that took."""

    def is_there() -> bool:
        told = server.of("keys", pid=pid, since=since)
        return bool(told) and told[-1].is_shared and server.is_one_ring(list({e.pid for e in server.of("serves")}))

    server.wait_for(is_there, "the group's key")
    return server.now() - since


def test_a_worker_that_was_stopped_for_periods_accepts_nothing_longer(tmp_path: Path) -> None:
    with trial(tmp_path, KEYS, workers=3) as server:
        pids = server.workers(3)
        server.wait_for_one_ring(pids)
        with calls_meanwhile(server.url, CLIENTS) as calls:
            for pid in pids[:2]:
                before = server.state(pid).more["accepted"]
                os.kill(pid, signal.SIGSTOP)
                # Less than 5 s: uvicorn kills a worker that does not answer for so long.
                time.sleep(3.0)
                since = server.now()
                os.kill(pid, signal.SIGCONT)
                print(f"stopped for 3 s, one ring again after {wait_for_group(server, pid, since):.2f} s")
                # What it saw before it was stopped, it may tell afterwards.
                after = [event for event in server.of("keys", pid=pid, since=since) if event.more["looked_at"] >= since]
                assert not {key for event in after for key in event.more["accepted"]} & set(before)
                assert set(before) <= set(after[-1].more["erased"])
                # Its first look shows it the group's keys, before it has any need of its own.
                assert all(event.is_shared for event in after)
        print(f"two stopped: {calls.tally}")
        # It may have taken a call before it was stopped, and be asked to open it afterwards.
        assert not calls.tally.failed, calls.tally.failed[:5]
        assert calls.tally.refusals <= 2 * len(CLIENTS)
        assert server.longest_acceptance_s() <= LIFE_S
        assert not server.logged("cannot share")
        assert {event.pid for event in server.of("serves")} == set(pids), "uvicorn replaced none"


def test_keys_end_and_come_on_time_while_an_event_loop_is_blocked(tmp_path: Path) -> None:
    with trial(tmp_path, KEYS) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        answers: list[tuple[float, float, int]] = []

        def block() -> None:
            with httpx2.Client(transport=SealedTransport(), timeout=60) as client:
                began = server.now()
                response = client.post(f"{server.url}/block", content="3.5")
                answers.append((began, server.now(), response.json()))

        blocking = threading.Thread(target=block)
        with calls_meanwhile(server.url, CLIENTS) as calls:
            blocking.start()
            blocking.join()
        ((began, ended, pid),) = answers
        meanwhile = [event for event in server.of("keys", pid=pid) if began + 0.5 < event.at < ended]
        print(f"blocked for {ended - began:.1f} s: {keys_of(meanwhile)} keys published, {calls.tally}")
        # The loop was blocked for longer than a key lives: keys came and were erased all the same.
        assert keys_of(meanwhile) >= 3
        assert all(event.is_shared for event in meanwhile)
        assert meanwhile[0].more["current"] in meanwhile[-1].more["erased"]
        assert server.longest_acceptance_s() <= LIFE_S
        assert not calls.tally.failed, calls.tally.failed[:5]
        with httpx2.Client(transport=SealedTransport()) as client:
            assert client.post(f"{server.url}/echo", content="next").json() == "next"
        assert is_soon(wait_for_group(server, pid, ended), 1.5)


def keys_of(events: list[Event]) -> int:
    return len({event.more["current"] for event in events})
