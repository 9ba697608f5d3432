"""Which processes take each other for workers of one server, under real servers and in processes made for it."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server_keys._sharing.siblings import group_of_siblings
from tests.helpers.scripts import run_script
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.sibling_app import MARK

APP = "tests.helpers.sibling_app:app"
UVICORN = ("uvicorn", "--log-level", "warning", "--ws", "none")
GUNICORN = ("gunicorn", "--worker-class", "asgi", "--log-level", "warning", "--control-socket", "{folder}/control")
GRANIAN = ("granian", "--interface", "asgi", "--no-ws", "--log-level", "warning", "--respawn-interval", "0.1")
ADDRESS = ("--host", "127.0.0.1", "--port", "{port}")
BIND = ("--bind", "127.0.0.1:{port}")
OTHER_BINDS = ("--bind", "127.0.0.1:{other_port}", "--bind", "unix:{folder}/socket")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True)
class Report:
    """What a process said of itself at the start of its lifespan."""

    pid: int
    parent: int
    group: str | None


@dataclass(frozen=True)
class Program:
    """Something that runs servers, in a session of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def reports(self, count: int) -> list[Report]:
        """Return what `count` processes said, in the order of their starts; wait until so many have said something."""
        until = time.monotonic() + 60
        while True:
            lines = self.log.read_text().splitlines()
            found = [Report(**json.loads(line.partition(MARK)[2])) for line in lines if MARK in line]
            if len(found) >= count:
                return found[:count]
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path, **options: Any) -> Iterator[Program]:
    """Run a program whose standard output has the reports. What it started ends with it."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        yield Program(process, log)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def module(*words: str, folder: Path) -> list[str]:
    """Return the command that runs a server's module with these arguments and the app."""
    places = {"folder": folder, "port": free_port(), "other_port": free_port()}
    return [sys.executable, "-m", *(word.format(**places) for word in words), APP]


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.helpers.sibling_servers", *words]


def the_group(reports: Sequence[Report]) -> str:
    """Return the group that all of them are in, and that all of one parent's workers are in."""
    (group,) = {report.group for report in reports}
    assert group is not None
    assert len({report.pid for report in reports}) == len(reports)
    assert len({report.parent for report in reports}) == 1
    return group


SERVERS = {
    "uvicorn": (*UVICORN, *ADDRESS, "--workers", "3"),
    "uvicorn-ipv6": (*UVICORN, "--host", "::1", "--port", "{port}", "--workers", "3"),
    "uvicorn-unix": (*UVICORN, "--uds", "{folder}/socket", "--workers", "3"),
    "gunicorn": (*GUNICORN, *BIND, "--workers", "3"),
    "gunicorn-preload": (*GUNICORN, *BIND, *OTHER_BINDS, "--workers", "3", "--preload"),
    "gunicorn-reuse-port": (*GUNICORN, *BIND, "--workers", "3", "--reuse-port"),
    "granian": (*GRANIAN, *ADDRESS, "--workers", "3", "--respawn-failed-workers"),
    "granian-metrics": (
        *(*GRANIAN, *ADDRESS, "--workers", "3", "--respawn-failed-workers"),
        *("--metrics", "--metrics-address", "127.0.0.1", "--metrics-port", "{other_port}"),
    ),
    "granian-unix": (*GRANIAN, "--uds", "{folder}/socket", "--workers", "3", "--respawn-failed-workers"),
}


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_all_workers_are_siblings_also_those_that_replace_killed_ones(command: Sequence[str], tmp_path: Path) -> None:
    with running(module(*command, folder=tmp_path), tmp_path) as program:
        first = program.reports(3)
        group = the_group(first)
        time.sleep(1)  # a server may not replace a worker that dies too early
        os.kill(first[1].pid, signal.SIGKILL)
        assert the_group(program.reports(4)) == group


@pytest.mark.parametrize("binds", [BIND, (*BIND, *OTHER_BINDS)], ids=["one address", "several addresses"])
def test_the_workers_of_hypercorn_are_siblings_also_after_a_reload(binds: Sequence[str], tmp_path: Path) -> None:
    command = module("hypercorn", *binds, "--workers", "3", folder=tmp_path)
    with running(command, tmp_path) as program:
        group = the_group(program.reports(3))
        time.sleep(1)
        program.process.send_signal(signal.SIGHUP)
        assert the_group(program.reports(6)) == group


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_added_and_reloaded_workers_are_siblings_of_the_old(server: str, tmp_path: Path) -> None:
    with running(module(*SERVERS[server], folder=tmp_path), tmp_path) as program:
        group = the_group(program.reports(3))
        program.process.send_signal(signal.SIGTTIN)
        assert the_group(program.reports(4)) == group
        program.process.send_signal(signal.SIGHUP)
        assert the_group(program.reports(7)) == group


def test_the_workers_of_a_socket_that_was_passed_on_are_siblings(tmp_path: Path) -> None:
    # So do systemd, supervisord and circus.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = module(*UVICORN, "--fd", str(listener.fileno()), "--workers", "2", folder=tmp_path)
        with running(command, tmp_path, pass_fds=[listener.fileno()]) as program:
            workers = program.reports(2)
        assert the_group(workers) != ""
        # Two servers of one process on one socket, without workers.
        command = module(*UVICORN, "--fd", str(listener.fileno()), folder=tmp_path)
        (tmp_path / "first").mkdir()
        with (
            running(command, tmp_path / "first", pass_fds=[listener.fileno()]) as first,
            running(command, tmp_path, pass_fds=[listener.fileno()]) as second,
        ):
            both = [*first.reports(1), *second.reports(1)]
            assert the_group(both) != workers[0].group
            assert both[0].parent == os.getpid()


def test_spawned_workers_of_granian_are_siblings(tmp_path: Path) -> None:
    with running(program("spawning_granian", str(free_port())), tmp_path) as granian:
        the_group(granian.reports(2))


def test_the_api_servers_of_vllm_are_siblings(tmp_path: Path) -> None:
    with running(program("api_servers"), tmp_path) as vllm:
        the_group(vllm.reports(2))


def test_the_parent_may_be_the_first_process_of_its_namespace(tmp_path: Path) -> None:
    server = (*UVICORN, *ADDRESS, "--workers", "2")
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user, or this container, may not make pid namespaces")
    with running([*namespace, *module(*server, folder=tmp_path)], tmp_path) as container:
        reports = container.reports(2)
        assert {report.parent for report in reports} == {1}
        group = the_group(reports)
    with running([*namespace, *module(*server, folder=tmp_path)], tmp_path) as container:
        assert the_group(container.reports(2)) != group


def test_one_process_is_alone(tmp_path: Path) -> None:
    with running(module(*UVICORN, *ADDRESS, folder=tmp_path), tmp_path) as server:
        assert server.reports(1)[0].group is None


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_two_apps_that_one_process_starts_are_alone(method: str, tmp_path: Path) -> None:
    with running(program("two_apps", method), tmp_path) as apps:
        assert [report.group for report in apps.reports(2)] == [None, None]


def test_two_servers_of_one_process_are_two_groups(tmp_path: Path) -> None:
    with running(program("two_servers"), tmp_path) as servers:
        groups = [report.group for report in servers.reports(4)]
        assert sorted(groups.count(group) for group in set(groups)) == [2, 2]
        assert None not in groups


def test_two_servers_of_one_shell_are_two_groups(tmp_path: Path) -> None:
    command = " ".join([*module(*UVICORN, folder=tmp_path), "--workers", "2", "--port", "0"])
    with running(["sh", "-c", f"{command} & {command} & wait"], tmp_path) as shell:
        groups = [report.group for report in shell.reports(4)]
        assert sorted(groups.count(group) for group in set(groups)) == [2, 2]
        assert None not in groups


FORKED = """
import ctypes, json, os, socket, sys, threading, time, warnings
from server_keys._sharing.siblings import group_of_siblings

warnings.simplefilter("ignore")  # of sockets that are left open, and of forks beside threads: both are meant


def in_child(action):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def group():
    return group_of_siblings("")
"""


def run_forking(source: str) -> Any:
    """Run a script that has `in_child` and `group`, and return what it printed as JSON."""
    return json.loads(run_script(FORKED + source))


def test_the_name_tells_user_namespace_parent_and_its_start() -> None:
    parent, start, name = run_forking("""
listener = socket.create_server(("127.0.0.1", 0))
start = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
print(json.dumps([os.getpid(), start, in_child(group)]))
""")
    namespace = os.stat("/proc/self/ns/pid").st_ino
    assert re.fullmatch(rf"server-keys-{os.geteuid()}-{namespace}-{parent}-{start}-[0-9a-f]{{16}}", name)


@pytest.mark.parametrize(
    "listener",
    [
        'socket.create_server(("127.0.0.1", 0))',
        'socket.create_server(("::1", 0), family=socket.AF_INET6)',
        'bound(socket.AF_INET, ("127.0.0.1", 0))',
        'bound(socket.AF_INET6, ("::1", 0))',
        'bound(socket.AF_UNIX, "")',
        r'bound(socket.AF_UNIX, f"\0server-keys-{os.getpid()}")',
        'bound(socket.AF_UNIX, f"/tmp/server-keys-{os.getpid()}")',
        r'bound(socket.AF_UNIX, f"\0server-keys-{os.getpid()}", listens=True)',
    ],
)
def test_a_bound_stream_socket_makes_siblings(listener: str) -> None:
    first, second, alone, other = run_forking(f"""
def bound(family, name, listens=False):
    sock = socket.socket(family)
    sock.bind(name)
    if listens:
        sock.listen()
    elif family == socket.AF_UNIX and name.startswith("/"):
        os.unlink(name)
    return sock

def alone():
    listener.close()
    return group()

listener = {listener}
groups = [in_child(group), in_child(group), in_child(alone)]
listener.close()
listener = {listener}
print(json.dumps([*groups, in_child(group)]))
""")
    assert first == second != other
    assert alone is None
    assert None not in (first, other)


def test_connections_and_sockets_of_other_kinds_make_no_siblings() -> None:
    assert (
        run_forking(r"""
import struct

def connection(family, name):
    with socket.socket(family) as listener:
        listener.bind(name)
        listener.listen()
        client = socket.socket(family)
        client.connect(listener.getsockname())
        return client, listener.accept()[0]

def broken(breaks, keeps):
    breaks.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    breaks.close()
    try:
        keeps.recv(1)
    except ConnectionResetError:
        return keeps
    raise AssertionError("not broken")

def closed_by_peer(client, server):
    client.close()
    return server

tcp = socket.AF_INET, ("127.0.0.1", 0)
unix = socket.AF_UNIX, f"\0server-keys-{os.getpid()}"
held = [
    *connection(*tcp), *connection(*unix), broken(*connection(*tcp)), broken(*reversed(connection(*tcp))),
    closed_by_peer(*connection(*tcp)), closed_by_peer(*connection(*unix)),
    socket.socket(), socket.socket(socket.AF_UNIX), *socket.socketpair(), socket.socket(type=socket.SOCK_DGRAM),
]
# The peer of a connection that does not come about: nobody answers for this address.
held.append(socket.socket())
held[-1].setblocking(False)
held[-1].connect_ex(("192.0.2.1", 9))
for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    held.append(socket.socket(socket.AF_UNIX, kind))
    held[-1].bind(f"\0server-keys-{os.getpid()}-{kind}")
held.append(socket.socket(type=socket.SOCK_DGRAM))
held[-1].bind(("127.0.0.1", 0))
print(json.dumps(in_child(group)))
""")
        is None
    )


def test_sockets_that_only_one_of_them_holds_do_not_matter() -> None:
    plain, with_own, later = run_forking("""
listener = socket.create_server(("127.0.0.1", 0))
other = socket.create_server(("127.0.0.1", 0))

def with_own():
    other.close()
    return [socket.create_server(("127.0.0.1", 0)) for _ in range(3)] and group()

def plain():
    other.close()
    return group()

groups = [in_child(plain), in_child(with_own)]
opened_later = socket.socket(socket.AF_UNIX), socket.socket()
print(json.dumps([*groups, in_child(plain)]))
""")
    assert plain == with_own == later
    assert plain is not None


def test_more_descriptors_of_a_socket_and_their_order_do_not_matter() -> None:
    names = run_forking("""
listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]

def moved():
    copies = [listener.dup() for listener in reversed(listeners)]
    listeners[0].close()
    return group()

print(json.dumps([in_child(group), in_child(moved)]))
""")
    assert names[0] == names[1] is not None


def test_those_who_ask_for_something_else_are_no_siblings() -> None:
    names = run_forking("""
listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps([in_child(lambda: group_of_siblings(asked)) for asked in ("", "x", "x", "\\ud800")]))
""")
    assert names[1] == names[2]
    assert len({*names, None}) == 4


def test_no_descriptor_is_opened_closed_or_changed() -> None:
    before, after = run_forking("""
listener = socket.create_server(("127.0.0.1", 0))
pair = socket.socketpair()
socket.setdefaulttimeout(5)  # a Python socket over a descriptor would make it non-blocking

def look():
    descriptors = [int(name) for name in os.listdir("/proc/self/fd")][:-1]  # the last is the listing's own
    return [[number, os.readlink(f"/proc/self/fd/{number}"), os.get_blocking(number)] for number in descriptors]

def around():
    before = look()
    assert group()
    return before, look()

print(json.dumps(in_child(around)))
""")
    assert before == after
    assert len(before) > 5


def test_descriptors_may_close_meanwhile() -> None:
    names = run_forking("""
listener = socket.create_server(("127.0.0.1", 0))
busy = True

def churn():
    while busy:
        for sock in [socket.create_server(("127.0.0.1", 0)) for _ in range(20)]:
            sock.close()

def hurried():
    global busy
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=churn)
    thread.start()
    names = {group() for _ in range(200)}
    busy = False
    thread.join()
    return list(names)

thread = threading.Thread(target=churn)
names = in_child(hurried)
sys.setswitchinterval(1e-6)
thread.start()
names += in_child(lambda: list({group() for _ in range(200)}))
busy = False
thread.join()
print(json.dumps(names))
""")
    assert names[0] == names[-1] is not None
    assert set(names) == {names[0]}


def test_a_process_whose_parent_died_is_alone() -> None:
    orphan, worker = run_forking("""
import ctypes
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: this process adopts orphans

def parent():
    listener = socket.create_server(("127.0.0.1", 0))
    ours, theirs = os.pipe()
    me = os.getpid()
    if os.fork() == 0:
        worker = group()
        os.write(theirs, b"x")
        while os.getppid() == me:
            time.sleep(0.01)
        os.write(answer, json.dumps([group(), worker]).encode())
        os._exit(0)
    os.read(ours, 1)

read, answer = os.pipe()
in_child(parent)
os.wait()
print(os.read(read, 1000).decode())
""")
    assert orphan is None
    assert worker is not None


def test_processes_that_share_a_port_are_siblings() -> None:
    first, second, other_port, unshared = run_forking("""
def serves(port, reuse_port=True):
    with socket.create_server(("127.0.0.1", port), reuse_port=reuse_port) as listener:
        return group()

with socket.create_server(("127.0.0.1", 0), reuse_port=True) as probe:
    port = probe.getsockname()[1]
print(json.dumps([in_child(lambda: serves(*of)) for of in [(port,), (port,), (0,), (port, False)]]))
""")
    assert first == second != other_port
    assert None not in (first, other_port)
    assert unshared is None


@needs_root
def test_workers_of_another_users_server_are_siblings() -> None:
    # As gunicorn's option --user does.
    plain, with_own, other = run_forking("""
NOBODY = 65534
listener = socket.create_server(("127.0.0.1", 0))

def plain():
    os.setuid(NOBODY)
    try:
        os.listdir(f"/proc/{os.getppid()}/fd")
    except PermissionError:
        return group()

def with_own():
    os.setuid(NOBODY)
    own = socket.create_server(("127.0.0.1", 0))
    return group()

groups = [in_child(plain), in_child(with_own)]
listener.close()
listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps([*groups, in_child(plain)]))
""")
    assert plain == with_own
    assert plain.startswith("server-keys-65534-")
    assert other not in (plain, None)


@needs_root
def test_workers_of_a_server_that_gave_up_root_are_siblings() -> None:
    first, second, alone = run_forking("""
os.setuid(65534)  # from now on the system shows nobody its descriptors
listener = socket.create_server(("127.0.0.1", 0))

def alone():
    listener.close()
    return group()

print(json.dumps([in_child(group), in_child(group), in_child(alone)]))
""")
    assert first == second is not None
    assert alone is None


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "no /proc here")


@pytest.mark.parametrize(
    "break_system",
    [
        lambda patch: patch.setattr(os, "listdir", refuse),
        lambda patch: patch.setattr(os, "stat", refuse),
        lambda patch: patch.setattr("builtins.open", refuse),
        lambda patch: patch.setitem(sys.modules, "ctypes", None),
    ],
    ids=["no /proc/self/fd", "no /proc/self/ns", "no /proc/self/stat", "no ctypes"],
)
def test_where_the_system_does_not_tell_a_process_is_alone(
    break_system: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="server_keys")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A parent that holds the socket, too.
        monkeypatch.setattr("server_keys._sharing.siblings.sockets_of", lambda _: {os.fstat(listener.fileno()).st_ino})
        assert group_of_siblings("") is not None
        with monkeypatch.context() as patch:
            break_system(patch)
            assert group_of_siblings("") is None
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "counts as its server's only one" in record.message
