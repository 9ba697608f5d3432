"""Keys under uvicorn in processes of their own: signals, stopped processes, workers, refreshes that fail."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.key_server import NO_KEYS

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A running uvicorn."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def key(self) -> dict[str, Any]:
        status, answer = self.ask()
        assert status == 200, answer
        return answer

    def ask(self) -> tuple[int, dict[str, Any]]:
        connection = self.connection()
        try:
            connection.request("GET", "/key")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def wait_until(self, is_it: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask until an answer is the one that is waited for."""
        until = time.monotonic() + 20
        while not is_it(*(answer := self.ask())):
            assert time.monotonic() < until, answer
            time.sleep(0.02)
        return answer[1]

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> tuple[list[dict[str, Any]], str]:
        """Stop it and return what its processes report of their ends, and what stands on stderr."""
        self.process.send_signal(sent)
        # uvicorn ends by the signal that stopped it, after a clean shutdown.
        assert self.process.wait(20) in (0, -sent)
        reports = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        return reports, (self.folder / "stderr").read_text()


@contextmanager
def serving(
    folder: Path, period_s: float, *, app: str = "app", workers: int = 1, share: str | None = None
) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, (folder / "stderr").open("wb") as stderr:
        port = listener.getsockname()[1]
        options = ["--fd", str(listener.fileno()), "--log-level", "warning", "--workers", str(workers)]
        options += ["--loop", "asyncio", "--http", "h11"]
        warnings = ["-W", "error"]
        if workers > 1:  # the process above the workers leaves the listening socket to the system
            warnings += ["-W", "ignore:unclosed <socket:ResourceWarning"]
        process = subprocess.Popen(
            [sys.executable, *warnings, "-m", "uvicorn", f"tests.helpers.key_server:{app}", *options],
            cwd=ROOT,
            env=os.environ
            | {"KEY_SERVER_PERIOD_S": str(period_s), "KEY_SERVER_FOLDER": str(folder)}
            | ({"KEY_SERVER_SHARE": share} if share else {}),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            yield Server(process, port, folder)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_keys_erased_and_nothing_on_stderr(tmp_path: Path, sent: signal.Signals) -> None:
    with serving(tmp_path, 0.2) as server:
        server.wait_until(lambda _, answer: answer["refreshes"] >= 3)
        reports, stderr = server.stop(sent)
    assert stderr == ""
    (report,) = reports
    assert report["seen"] >= 2
    assert report["erased"] == report["seen"]
    assert report["refreshing"] == []


def test_keys_refresh_while_nobody_asks(tmp_path: Path) -> None:
    with serving(tmp_path, 0.2) as server:
        before = server.key()
        time.sleep(1)
        after = server.key()
    # 1 s are five periods; a busy machine may be late for one of them, and asking makes at most one.
    assert after["refreshes"] - before["refreshes"] >= 3
    assert before["accepted"][0] not in after["accepted"]


def test_the_first_request_after_a_stop_longer_than_the_period_sees_a_fresh_pair(tmp_path: Path) -> None:
    with serving(tmp_path, 0.5) as server:
        before = server.key()
        connection = server.connection()
        server.process.send_signal(signal.SIGSTOP)
        try:
            connection.request("GET", "/key")
            time.sleep(1.2)
            server.process.send_signal(signal.SIGCONT)
            after = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        reports, stderr = server.stop()
    assert after["accepted"][0] not in before["accepted"]
    # Longer than the period and the overlap: the old pair is not accepted any more, either.
    assert before["accepted"][0] not in after["accepted"]
    assert after["age_s"] < 0.5
    assert stderr == ""
    assert reports[0]["erased"] == reports[0]["seen"]


@pytest.mark.parametrize("share", [None, "auto"])
def test_two_workers_have_keys_of_their_own_or_share_them_and_stop_cleanly(tmp_path: Path, share: str | None) -> None:
    key_of: dict[int, str] = {}

    def note(_status: int, answer: dict[str, Any]) -> bool:
        assert key_of.setdefault(answer["pid"], answer["accepted"][0]) == answer["accepted"][0]
        return len(key_of) == 2

    with serving(tmp_path, 300, workers=2, share=share) as server:
        server.wait_until(note)
        reports, stderr = server.stop()
    assert len(set(key_of.values())) == (1 if share else 2)
    assert server.process.pid not in key_of
    assert stderr == ""
    assert [(report["seen"], report["erased"], report["refreshing"]) for report in reports] == [(1, 1, [])] * 2


def test_refreshes_that_fail_for_a_while(tmp_path: Path) -> None:
    no_keys = tmp_path / NO_KEYS
    with serving(tmp_path, 0.8, app="failing_app") as server:
        server.key()
        no_keys.touch()
        # It goes on serving while the pair in use lasts, and says in its status why it was not replaced,
        failing = server.wait_until(lambda status, answer: status == 200 and answer["last_error"] is not None)
        assert failing["last_error"] == "MemoryError: a test took all memory for keys"
        # then it hands out nothing and says why,
        refused = server.wait_until(lambda status, _: status == 503)
        assert "MemoryError: a test took all memory for keys" in refused["detail"]
        # and begins again by itself.
        no_keys.unlink()
        again = server.wait_until(lambda status, _: status == 200)
        assert again["last_error"] is None
        assert again["failures"] >= 2
        assert failing["accepted"][0] not in again["accepted"]
        server.wait_until(lambda _, answer: answer["refreshes"] > again["refreshes"])
        reports, stderr = server.stop()
    assert reports[0]["erased"] == reports[0]["seen"]
    assert stderr.splitlines()
    assert all(line.startswith("key refresh failed (") for line in stderr.splitlines()), stderr
