"""Servers that stand for hosts: each runs the app of `trial_app.py`, and all share one ring through a store."""

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server_keys._clock import boot_time
from tests.helpers.server_processes import free_port, has_nginx, nginx
from tests.helpers.trials import PATIENCE_S, UVICORN, Event, Keys, Trial, started

SECRET = secrets.token_hex(32)


def secret_file(folder: Path, *texts: str) -> Path:
    """Write a file with these secrets, or with the one that all tests of a run have."""
    folder.mkdir(exist_ok=True)
    path = folder / f"secret-{secrets.token_hex(4)}"
    path.touch(0o600)
    path.write_text("\n".join(texts or (SECRET,)))
    return path


@dataclass
class Hosts:
    """The hosts that run, by name. A test starts them, kills them, and asks what their processes told."""

    folder: Path
    share: str
    keys: Keys = field(default_factory=Keys)
    secret: Path | None = None
    workers: int = 1
    running: dict[str, Trial] = field(default_factory=dict)
    gone: dict[str, Trial] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _stacks: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def start(
        self,
        name: str,
        *,
        share: str | None = None,
        keys: Keys | None = None,
        secret: Path | None = None,
        environment: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> Trial:
        """Start a host, and do not wait for it."""
        assert name not in self.running
        keys = keys or self.keys
        chosen = Keys(keys.period_s, keys.overlap_s, share or self.share, keys.way, keys.refreshes_every_s)
        variables = {"SERVER_KEYS_GROUP_SECRET_FILE": str(secret or self.secret or secret_file(self.folder))}
        stack = contextlib.ExitStack()
        self._stacks[name] = stack
        self._stack.push(stack)
        server = stack.enter_context(
            started(
                self.folder / name,
                chosen,
                workers=self.workers,
                server=UVICORN,
                environment={**variables, **(environment or {})},
            )
        )
        self.running[name] = server
        return server

    def start_all(self, names: Sequence[str], **more: Any) -> None:
        """Start hosts at once, and wait until all processes have the ring of the group."""
        for name in names:
            self.start(name, **more)
        self.wait_for_one_ring()

    def end(self, name: str) -> None:
        """End a host as an operator does."""
        self.gone[name] = self.running.pop(name)
        self._stacks.pop(name).close()

    def close(self) -> None:
        self._stack.close()

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.running.values()]

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.running.values()]

    @property
    def events(self) -> list[Event]:
        """What all processes told, those that are gone, too, in the order of time."""
        servers = (*self.gone.values(), *self.running.values())
        return sorted((event for server in servers for event in server.events), key=lambda event: event.at)

    @property
    def living(self) -> list[int]:
        """The processes that serve now."""
        found = []
        for server in self.running.values():
            ended = {event.pid for event in server.of("ended")}
            found += [e.pid for e in server.of("serves") if e.pid not in ended and _lives(e.pid)]
        return found

    def wait_for(self, reached: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        """Wait until `reached()` is true, and return what it returns."""
        until = time.monotonic() + within_s
        while not (found := reached()):
            if time.monotonic() >= until:
                logs = "\n".join(f"{name}: {server.log[-1500:]}" for name, server in self.running.items())
                last = "\n".join(map(str, self.events[-15:]))
                pytest.fail(f"{what}: does not come within {within_s} s\n{logs}\n{last}")
            time.sleep(0.02)
        return found

    def states(self) -> dict[int, Event]:
        """The keys of each process that lives, as it told last."""
        living = self.living
        return {event.pid: event for event in self.events if event.event == "keys" and event.pid in living}

    def wait_for_newcomers(self, before: set[int], count: int) -> set[int]:
        """Wait until so many processes serve that were not there before."""
        self.wait_for(lambda: len({*self.living} - before) == count, f"{count} new processes")
        return {*self.living} - before

    def is_one_ring(self) -> bool:
        """Whether all processes publish one key, which is the group's."""
        living, states = self.living, self.states()
        if len(living) < self.workers * len(self.running) or len(states) != len(living):
            return False
        return all(s.is_shared for s in states.values()) and len({s.more["current"] for s in states.values()}) == 1

    def wait_for_one_ring(self, within_s: float = PATIENCE_S) -> float:
        """Wait until all processes publish the group's key, and return when that was."""
        self.wait_for(self.is_one_ring, "one ring", within_s)
        return boot_time()

    def all_states(self, *, since: float = 0.0) -> list[Event]:
        """All that processes told of their keys."""
        return [event for event in self.events if event.event == "keys" and event.at >= since]

    def logged(self, text: str, *, level: str | None = None, since: float = 0.0) -> list[Event]:
        """The lines of the package's log that contain `text`."""
        return [
            event
            for event in self.events
            if event.event == "log"
            and event.at >= since
            and text in event.more["message"]
            and level in (None, event.more["level"])
        ]

    def made(self, *, since: float = 0.0) -> list[Event]:
        """The lines that tell of an epoch that was made."""
        return self.logged("made epoch", since=since)

    def wait_for_epochs(self, count: int, *, since: float | None = None) -> Event:
        """Wait until so many epochs were made from now on, and return the line of the last one."""
        began = boot_time() if since is None else since
        within_s = PATIENCE_S + 2 * count * self.keys.period_s
        self.wait_for(lambda: len(self.made(since=began)) >= count, f"{count} epochs", within_s)
        return self.made(since=began)[count - 1]

    def longest_acceptance_s(self) -> float:
        """Return for how long the group's key that was accepted longest was seen anywhere."""
        of_group = {event.more["message"].split("key ")[-1].split(",")[0] for event in self.made()}
        first: dict[str, float] = {}
        longest = 0.0
        states: dict[int, Event] = {}
        for event in self.all_states():
            if before := states.get(event.pid):
                # What a process accepted it accepted until shortly before it told of something else.
                seen = [before.at - first[key] for key in before.more["accepted"] if key[:16] in of_group]
                longest = max([longest, *seen])
            for key in event.more["accepted"]:
                first.setdefault(key, event.at)
            states[event.pid] = event
        return longest

    def lacks(self, *, longer_than_s: float = 0.3, since: float = 0.0) -> list[str]:
        """Return where a process did not accept, for longer than that, what another one published."""
        spans = self._spans(since)
        found = []
        for (pid, publisher), (other, acceptor) in itertools.permutations(spans.items(), 2):
            for begin, end, state in publisher:
                for from_s, to_s, accepted in acceptor:
                    lacked_s = min(end, to_s) - max(begin, from_s)
                    if lacked_s > longer_than_s and state.more["current"] not in accepted.more["accepted"]:
                        found.append(f"{other} lacked for {lacked_s:.2f} s what {pid} published: {state}; {accepted}")
        return found

    def _spans(self, since: float) -> dict[int, list[tuple[float, float, Event]]]:
        ends = {event.pid: event.at for event in self.events}
        for pid in self.living:
            ends[pid] = boot_time()
        spans: dict[int, list[tuple[float, float, Event]]] = {}
        for event in self.all_states(since=since):
            before = spans.setdefault(event.pid, [])
            if before:
                begin, _, state = before[-1]
                before[-1] = (begin, event.at, state)
            before.append((event.at, ends[event.pid], event))
        return spans

    def everything_written(self) -> str:
        """All that servers printed and logged."""
        return "\n".join(
            path.read_text(errors="replace") for name in ("log", "events") for path in self.folder.glob(f"*/{name}")
        )


@contextlib.contextmanager
def hosts(folder: Path, share: str, *, keys: Keys | None = None, workers: int = 1) -> Iterator[Hosts]:
    """Let a test start hosts, and end all of them."""
    found = Hosts(folder, share, keys or Keys(), secret_file(folder), workers)
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def nginx_before(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run nginx that takes these servers in turn, and yield its URL."""
    if not has_nginx():
        pytest.skip("nginx is missing: `apt-get install nginx-light` brings it")
    port = free_port()
    folder.mkdir()
    servers = " ".join(f"server 127.0.0.1:{each} max_fails=0;" for each in ports)
    passes = 'proxy_pass http://hosts; proxy_http_version 1.1; proxy_set_header Connection "";'
    # One connection to each host at most is kept: the turns go on.
    http = (
        f"upstream hosts {{ {servers} }} server {{ listen 127.0.0.1:{port}; "
        f"client_max_body_size 0; location / {{ {passes} }} }}"
    )
    with nginx(folder, http, port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def haproxy_before(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run HAProxy that takes these servers in turn, and yield its URL."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("HAProxy is missing: `apt-get install haproxy` brings it")
    port = free_port()
    folder.mkdir()
    servers = "\n".join(f"  server host{each} 127.0.0.1:{each}" for each in ports)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend all\n  bind 127.0.0.1:{port}\n  default_backend hosts\n"
        f"backend hosts\n  balance roundrobin\n{servers}\n"
    )
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([program, "-db", "-f", str(configuration)], stdout=output, stderr=output)
    try:
        until = time.monotonic() + 30
        while not _accepts(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def kill(*pids: int) -> None:
    """Kill processes as nobody can prepare for."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def memory_bytes(pid: int) -> int:
    """Return the memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
