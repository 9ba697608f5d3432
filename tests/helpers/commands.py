"""`server-keys` in processes of its own, as an operator starts it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx2
from click.testing import CliRunner

from server_keys.command import cli

COMMAND = [sys.executable, "-W", "error", "-m", "server_keys.command"]
_STARTED = re.compile(r"listens on (\S+?),")


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_here(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command in this process: a hundred starts of Python take a minute."""
    result = CliRunner(catch_exceptions=False).invoke(_Whole(), list(arguments), env=environment)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


class _Whole(click.Group):
    """The command as it ends a process, for click's runner."""

    def main(self, args: Any = None, *_: Any, **__: Any) -> NoReturn:
        cli.run(args)


class Running:
    """A command that serves."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it said on stderr."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        return self._wait_for(_STARTED)[1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def resident_mib(self) -> float:
        """How much memory it has now."""
        return self._memory_mib("VmRSS")

    @property
    def most_resident_mib(self) -> float:
        """How much memory it had at most."""
        return self._memory_mib("VmHWM")

    def wait_for(self, words: str) -> None:
        """Wait until its log has `words`."""
        self._wait_for(re.compile(re.escape(words)))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def _wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        until = time.monotonic() + 30
        while (found := pattern.search(self.log)) is None:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)
        return found

    def _memory_mib(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


@contextlib.contextmanager
def serving(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a command that serves; at the end it must stop when it is told to, and must have logged no traceback."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, *arguments], env=_environment(environment), stdout=output, stderr=output
            )
        running = Running(process, log)
        try:
            yield running
            if process.poll() is None:
                assert running.stop() == 0, running.log
            assert "Traceback" not in running.log
            assert "a request failed" not in running.log  # whatever failed had no word of its own
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def sealing_chain(
    upstream: str, *, opening: Sequence[str] = (), sealing: Sequence[str] = ()
) -> Iterator[tuple[Running, Running]]:
    """Run `server-keys seal` before `server-keys open` before `upstream`, and yield both."""
    with (
        serving("open", "--to", upstream, "--listen", "127.0.0.1:0", *opening) as opened,
        serving("seal", "--to", opened.url, "--listen", "127.0.0.1:0", *sealing) as sealed,
    ):
        httpx2.get(sealed.url)  # both serve now, and have loaded what they need
        yield sealed, opened


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVER_KEYS_")}
    return {**kept, **(more or {})}
