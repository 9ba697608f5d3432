"""Servers of several workers that run the app of `trial_app.py`, and what their workers tell of themselves."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from server_keys._clock import boot_time
from tests.helpers.server_processes import ROOT, free_port

APP = "tests.helpers.trial_app:app"
EPOCH, XWING_EPOCH, ONE_TIME, X25519_ONE_TIME = b"e", b"E", b"o", b"O"
"""What a private key is for that `traced_app.py` writes down."""
PATIENCE_S = 60.0
"""More than what a busy machine needs for anything that is waited for."""


@dataclass(frozen=True)
class Keys:
    """How the app gets its keys."""

    period_s: float = 1.0
    overlap_s: float | None = None
    share: str | None = "auto"
    way: str = "protect"
    """`protect`, `inject` (with the middleware), `factory` (the lifespan alone), or `task` (no lifespan)."""
    refreshes_every_s: float | None = None
    """The period of a task `periodic_refresh` in each process; None for no such task."""
    squatted: list[str] = field(default_factory=list)
    """Folders in which somebody else has taken the place of the group before it starts."""


@dataclass(frozen=True)
class Event:
    """A line that a worker told."""

    event: str
    """`starts`, `serves` and `ended` of its lifespan, `keys` at each change of them, `log`."""
    pid: int
    at: float
    """When, in seconds of the clock that all processes of the machine have."""
    more: dict[str, Any]

    @property
    def is_shared(self) -> bool:
        return bool(self.more.get("shared"))


@dataclass
class Trial:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    _read: int = 0
    _events: list[Event] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server printed."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def events(self) -> list[Event]:
        """All that the workers told until now."""
        path = self.folder / "events"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    told = json.loads(line)
                    self._events.append(Event(told.pop("event"), told.pop("pid"), told.pop("at"), told))
        return self._events

    def of(self, event: str, *, pid: int | None = None, since: float = 0.0) -> list[Event]:
        """The events of one kind, of one process or of all, from a time on."""
        return [
            each
            for each in self.events
            if each.event == event and (pid is None or each.pid == pid) and each.at >= since
        ]

    def wait_for(self, reached: Callable[[], Any], what: str) -> Any:
        """Wait until `reached()` is true, and return what it returns."""
        until = time.monotonic() + PATIENCE_S
        while not (found := reached()):
            assert self.process.poll() is None, f"the server ended: {self.log}"
            assert time.monotonic() < until, f"{what} does not come: {self.log}\n{self.last_events()}"
            time.sleep(0.02)
        return found

    def workers(self, count: int, *, since: float = 0.0) -> list[int]:
        """Wait until `count` workers serve that began to from a time on, and return their process ids."""
        self.wait_for(lambda: len(self.of("serves", since=since)) >= count, f"{count} workers")
        # A single worker of uvicorn opens its port when its app has started.
        self.wait_for(self._listens, f"a server at port {self.port}")
        return [event.pid for event in self.of("serves", since=since)]

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def state(self, pid: int) -> Event:
        """Return the keys that a process has, as it told last."""
        found: list[Event] = self.wait_for(lambda: self.of("keys", pid=pid), f"keys of {pid}")
        return found[-1]

    def wait_for_one_ring(self, pids: Sequence[int]) -> None:
        """Wait until all of these processes publish the group's key, and the same."""
        self.wait_for(lambda: self.is_one_ring(pids), "one ring")

    def is_one_ring(self, pids: Sequence[int]) -> bool:
        states = [self.state(pid) for pid in pids]
        return all(state.is_shared for state in states) and len({state.more["current"] for state in states}) == 1

    def published(self, *, since: float = 0.0) -> list[str]:
        """The keys that were published from a time on, each once, in their order."""
        return list(dict.fromkeys(event.more["current"] for event in self.of("keys", since=since)))

    def wait_for_keys(self, count: int, *, since: float = 0.0) -> None:
        """Wait until so many keys were published from a time on."""
        self.wait_for(lambda: len(self.published(since=since)) >= count, f"{count} keys")

    def wait_for_epoch(self) -> Event:
        """Wait until a worker makes an epoch, and return its line of the log. It is not published yet."""
        since = self.now()
        made: list[Event] = self.wait_for(lambda: self.logged("made epoch", since=since), "an epoch")
        return made[-1]

    def logged(self, text: str, *, level: str | None = None, since: float = 0.0) -> list[Event]:
        """The lines of the package's log that contain `text`."""
        return [
            event
            for event in self.of("log", since=since)
            if text in event.more["message"] and level in (None, event.more["level"])
        ]

    def start_took_s(self, pid: int) -> float:
        """Return how long the lifespan of a process took to start."""
        (starts,), (serves,) = self.of("starts", pid=pid), self.of("serves", pid=pid)
        return serves.at - starts.at

    def longest_acceptance_s(self) -> float:
        """Return for how long the key that was accepted longest was seen anywhere."""
        first: dict[str, float] = {}
        longest = 0.0
        states: dict[int, Event] = {}
        for event in self.of("keys"):
            if (before := states.get(event.pid)) is not None:
                longest = max(longest, *(event.more["same_until"] - first[key] for key in before.more["accepted"]))
            for key in event.more["accepted"]:
                first.setdefault(key, event.at)
            states[event.pid] = event
        return longest

    @staticmethod
    def now() -> float:
        """The time on the clock of the events."""
        return boot_time()

    def last_events(self) -> str:
        return "\n".join(str(event) for event in self.events[-12:])


def is_soon(took_s: float, within_s: float) -> bool:
    """Tell whether something was as quick as it has to be. Where others keep the machine busy, it may take longer."""
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return took_s <= within_s * max(crowd, 1.0)


UVICORN = ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", "--ws", "none")


@contextlib.contextmanager
def trial(
    folder: Path,
    keys: Keys,
    *,
    workers: int = 2,
    server: Sequence[str] = UVICORN,
    app: str = APP,
    environment: dict[str, str] | None = None,
) -> Iterator[Trial]:
    """Run a server of so many workers, and wait until all of them serve. What it started ends with it."""
    with started(folder, keys, workers=workers, server=server, app=app, environment=environment) as running:
        running.workers(workers)
        yield running


@contextlib.contextmanager
def started(
    folder: Path,
    keys: Keys,
    *,
    workers: int = 2,
    server: Sequence[str] = UVICORN,
    app: str = APP,
    environment: dict[str, str] | None = None,
) -> Iterator[Trial]:
    """Run a server of so many workers."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    words = [word.format(port=port, folder=folder, app=app) for word in server]
    command = [sys.executable, "-m", *words, *(["--workers", str(workers)] if workers > 1 else [])]
    if app not in command:
        command.append(app)
    variables = {"TRIAL": json.dumps(asdict(keys)), "TRIAL_FOLDER": str(folder), **(environment or {})}
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **variables},
        )
    try:
        yield Trial(process, folder, port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
