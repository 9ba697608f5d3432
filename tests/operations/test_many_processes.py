"""Metrics of several processes of one server, told together by prometheus_client's multiprocess mode."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from server_keys.client import sealed_client
from tests.helpers.scrape import samples
from tests.helpers.server_processes import ROOT, free_port

WORKERS = 2
_GUNICORN = ("--worker-class", "asgi", "--log-level", "warning", "--no-control-socket", "--workers", str(WORKERS))
COMMANDS: dict[str, list[str]] = {
    "uvicorn": ["uvicorn", "--log-level", "warning", "--ws", "none", "--workers", str(WORKERS), "--port"],
    "gunicorn": ["gunicorn", *_GUNICORN, "--bind"],
    # The app is made before the workers are forked from it.
    "gunicorn, preloaded": ["gunicorn", "--preload", *_GUNICORN, "--bind"],
}


@dataclass
class Server:
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(self) -> dict[str, float]:
        answer = httpx2.get(f"{self.url}/metrics")
        assert answer.status_code == 200, answer.text
        return samples(answer.text)

    def wait_until(self, is_it: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        until = time.monotonic() + 30
        while True:
            try:
                found = self.scrape()
                if is_it(found):
                    return found
            except httpx2.TransportError:  # it has not started yet
                found = {}
            assert time.monotonic() < until, (found, (self.folder / "log").read_text())
            time.sleep(0.1)

    def pids(self) -> set[int]:
        found: set[int] = set()
        until = time.monotonic() + 20
        while len(found) < WORKERS:
            assert time.monotonic() < until, found
            found.add(int(httpx2.get(f"{self.url}/pid").text))
        return found


@contextmanager
def serving(command: Sequence[str], folder: Path, **environment: str) -> Iterator[Server]:
    port, multiprocess = free_port(), folder / "prometheus"
    multiprocess.mkdir()
    last = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, last, "tests.helpers.measured_app:app"],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(multiprocess), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield Server(port, folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("share", ["", "auto"], ids=["a ring each", "one ring"])
@pytest.mark.parametrize("server", COMMANDS)
def test_the_workers_of_one_server_are_told_of_together(server: str, share: str, tmp_path: Path) -> None:
    with serving(COMMANDS[server], tmp_path, MEASURED_APP_SHARE=share) as running:
        shared = WORKERS if share else 0
        found = running.wait_until(
            lambda found: (
                (found.get("server_keys_available_rings"), found.get("server_keys_shared_rings")) == (WORKERS, shared)
            )
        )
        assert found["server_keys_group_members"] == shared
        assert found["server_keys_refresh_period_seconds"] == 300
        assert abs(time.time() - found["server_keys_key_created_timestamp_seconds"]) < 60
        calls = 12
        for _ in range(calls):
            # Each over a connection of its own, so that both workers answer some.
            with sealed_client() as client:
                assert client.post(f"{running.url}/echo", content=b"sealed").content == b"sealed"
        found = running.scrape()
        assert found['server_keys_requests_total{outcome="sealed"}'] == calls
        assert found["server_keys_opening_seconds_count"] == calls
        # That of the body, and the end frame.
        assert found['server_keys_frames_total{direction="sent"}'] == 2 * calls


def test_workers_that_end_leave_counters_and_no_old_keys(tmp_path: Path) -> None:
    with serving(COMMANDS["uvicorn"], tmp_path) as running:
        running.wait_until(lambda found: found.get("server_keys_available_rings") == WORKERS)
        with sealed_client() as client:
            client.post(f"{running.url}/echo", content=b"sealed")
        begun_again = time.time()
        for pid in running.pids():
            os.kill(pid, signal.SIGTERM)  # uvicorn starts others in their place
        found = running.wait_until(
            lambda found: (
                found["server_keys_available_rings"] == WORKERS
                and found["server_keys_key_created_timestamp_seconds"] >= begun_again
            )
        )
        assert found['server_keys_requests_total{outcome="sealed"}'] == 1
