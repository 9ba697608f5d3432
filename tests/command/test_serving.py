"""How the commands serve: their sockets, signals, workers, and what their log tells."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import httpx2
import pytest

from server_keys._native import RequestSealer
from server_keys._sealing.key_entries import keys_of
from server_keys.client import sealed_client
from tests.helpers.commands import COMMAND, Running, run, sealing_chain, serving
from tests.helpers.upstream_app import Upstream


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_proxy(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "seal.sock"
    old = os.umask(0)
    try:
        with serving("seal", "--to", upstream, "--listen", f"unix:{path}") as sealed:
            assert sealed.url == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://localhost/x").json()["target"] == "/x"
                assert client.get("http://evil/x").status_code == 421
            again = run("seal", "--to", upstream, "--listen", f"unix:{path}")
            assert again.returncode == 1
            assert "in use" in again.stderr
    finally:
        os.umask(old)
    assert not path.exists()


def test_a_socket_that_a_killed_proxy_left_is_taken_over_and_other_files_are_not(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "seal.sock"
    with serving("seal", "--to", upstream, "--listen", f"unix:{path}") as sealed:
        _ = sealed.url
        sealed.stop(signal.SIGKILL)
    assert path.exists()
    with serving("seal", "--to", upstream, "--listen", f"unix:{path}") as sealed:
        _ = sealed.url
    path.write_text("mine")
    done = run("seal", "--to", upstream, "--listen", f"unix:{path}")
    assert done.returncode == 1
    assert "no socket" in done.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_and_ends_without_standard_streams(upstream: str, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "open.sock"
    arguments = ["open", "--to", upstream, "--listen", f"unix:{path}", "--workers", workers]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, *arguments]
    with subprocess.Popen(shell) as process:
        try:
            wait_for(path)
            with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://localhost/x").json()["target"] == "/x"
        finally:
            process.terminate()
        assert process.wait(30) == 0


def wait_for(path: Path) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as tried:
            if tried.connect_ex(str(path)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_upstream_may_listen_on_a_unix_socket(upstream_app: Upstream, tmp_path: Path) -> None:
    path = str(tmp_path / "model.sock")
    with (
        serving("open", "--to", f"unix:{path}", "--listen", "127.0.0.1:0") as opened,
        socket.socket(socket.AF_UNIX) as listener,
        sealed_client() as client,
    ):
        assert client.post(opened.url, content=b"x").status_code == 502
        listener.bind(path)
        with _served(upstream_app, listener):
            assert client.post(f"{opened.url}/x", content=b"x").json()["body"] == "x"


def test_localhost_is_every_loopback_address(upstream: str) -> None:
    from tests.helpers.server_processes import free_port

    port = free_port()
    with serving("seal", "--to", upstream, "--listen", f"localhost:{port}") as sealed:
        _ = sealed.url
        for family, kind, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as connection:
                connection.connect(address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_may_end_when_the_proxy_is_told_to_stop(
    number: signal.Signals, upstream: str, upstream_app: Upstream
) -> None:
    upstream_app.released = 1
    with (
        sealing_chain(upstream) as (sealed, opened),
        httpx2.Client(timeout=20) as client,
        client.stream("POST", f"{sealed.url}/steps", content=b"x") as response,
    ):
        events = response.iter_bytes()
        assert next(events) == b"data: 0\n\n"
        for each in (sealed, opened):
            each.process.send_signal(number)
        time.sleep(0.5)
        for each in (sealed, opened):
            assert each.process.poll() is None
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", each.port), timeout=5)
        upstream_app.released = -1
        assert b"".join(events) == b"data: end\n\n"
        for each in (sealed, opened):
            assert each.process.wait(10) == 0, each.log


def wait_until_nobody_listens(command: Running) -> None:
    """Wait until a command shuts down: signals that come before that may become one."""
    until = time.monotonic() + 20
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < until:
            socket.create_connection(("127.0.0.1", command.port)).close()
            time.sleep(0.02)
        raise AssertionError("it goes on to listen")


def test_a_second_interrupt_cuts_a_stream_off_at_once(upstream: str, upstream_app: Upstream) -> None:
    upstream_app.released = 1
    with (
        sealing_chain(upstream) as (sealed, opened),
        httpx2.Client(timeout=20) as client,
        client.stream("POST", f"{sealed.url}/steps", content=b"x") as response,
    ):
        events = response.iter_bytes()
        next(events)
        for each in (sealed, opened):
            each.process.send_signal(signal.SIGINT)
            wait_until_nobody_listens(each)
        began_at = time.monotonic()
        for each in (sealed, opened):
            assert each.process.poll() is None
            each.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx2.RemoteProtocolError):
            b"".join(events)
        for each in (sealed, opened):
            assert each.process.wait(10) == 0, each.log
            assert "Traceback" not in each.log
        assert time.monotonic() - began_at < 10


def test_a_stream_that_does_not_end_is_cut_off_when_the_time_is_over(upstream: str, upstream_app: Upstream) -> None:
    upstream_app.released = 1
    grace = ("--grace-s", "1")
    with (
        sealing_chain(upstream, opening=grace, sealing=grace) as (sealed, opened),
        httpx2.Client(timeout=20) as client,
        client.stream("POST", f"{sealed.url}/steps", content=b"x") as response,
    ):
        events = response.iter_bytes()
        next(events)
        began_at = time.monotonic()
        for each in (sealed, opened):
            each.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx2.RemoteProtocolError):
            b"".join(events)
        for each in (sealed, opened):
            assert each.process.wait(10) == 0, each.log
        assert time.monotonic() - began_at < 6


def test_workers_have_one_ring_and_end_with_their_parent(upstream: str) -> None:
    with serving("open", "--to", upstream, "--listen", "127.0.0.1:0", "--workers", "2") as opened:
        url = opened.url
        keys = {httpx2.get(f"{url}/.well-known/hpke-keys", timeout=30).content for _ in range(20)}
        assert len(keys) == 1
        for _ in range(20):
            with sealed_client() as client:
                assert client.post(url, content=b"x").status_code == 200
        children = _children(opened)
        assert len(children) >= 2
        opened.stop(signal.SIGKILL)
        _wait_until_gone(children)


@pytest.mark.parametrize(
    ("options", "statuses"),
    [
        ((), [200, 409]),
        (("--sealed-replay", "allow"), [200, 200]),
        (("--sealed-replay", "refuse-everywhere", "--sealed-store-away", "refuse"), [200, 409]),
    ],
)
def test_a_request_that_comes_twice_is_passed_on_as_the_operator_says(
    upstream: str, options: tuple[str, ...], statuses: list[int]
) -> None:
    with serving("open", "--to", upstream, "--listen", "127.0.0.1:0", *options) as opened, httpx2.Client() as client:
        sealer = RequestSealer(keys_of(client.get(f"{opened.url}/.well-known/hpke-keys").content).x25519)
        request = client.build_request(
            "POST",
            opened.url,
            content=sealer.seal(b"x"),
            headers={"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()},
        )
        assert [client.send(request).status_code for _ in range(2)] == statuses


@pytest.mark.parametrize("is_bounded", [True, False])
def test_what_half_sent_requests_hold_together_is_bounded_as_the_operator_says(upstream: str, is_bounded: bool) -> None:
    frame_bytes = 1024 * 1024
    bound = ("--sealed-max-buffered-bytes", str(4 * frame_bytes)) if is_bounded else ()
    options = ("--listen", "127.0.0.1:0", "--max-frame-bytes", str(frame_bytes), *bound)
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nEhbp-Encapsulated-Key: {bytes(32).hex()}\r\nContent-Length: {frame_bytes}\r\n"
    )
    half_sent = f"{head}\r\n".encode() + frame_bytes.to_bytes(4, "big") + bytes(frame_bytes - 5)
    with serving("open", "--to", upstream, *options) as opened, contextlib.ExitStack() as connections:
        address = httpx2.URL(opened.url)
        for _ in range(8):
            connection = connections.enter_context(socket.create_connection((address.host, address.port), 10))
            connection.sendall(half_sent)
        with sealed_client() as client:
            assert client.post(opened.url, content=bytes(100_000)).status_code == 200
        until = time.monotonic() + (10 if is_bounded else 0)
        while time.monotonic() < until and "max_buffered_bytes" not in opened.log:
            time.sleep(0.05)
        assert ("max_buffered_bytes" in opened.log) == is_bounded


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_is_one_line_and_status_1(upstream: str, tmp_path: Path, workers: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)  # keys are not left where everybody may write
    share = ("--key-share", f"file://{shared}", "--workers", workers)
    done = run("open", "--to", upstream, "--listen", "127.0.0.1:0", *share)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("server-keys: the start failed")
    assert str(shared) in done.stderr
    assert "Traceback" not in done.stderr


def test_no_level_of_the_log_has_anything_of_a_request(upstream: str) -> None:
    options = ("--log-level", "debug")
    with sealing_chain(upstream, opening=options, sealing=options) as (sealed, opened), httpx2.Client() as client:
        headers = {"Authorization": "Bearer MARKED", "X-Marked": "MARKED"}
        for path in ("/MARKED?q=MARKED", "/broken?MARKED", "/redirect"):
            for url in (sealed.url, opened.url):
                with contextlib.suppress(httpx2.RemoteProtocolError):
                    client.post(f"{url}{path}", content=b"MARKED", headers=headers)
        with socket.create_connection(("127.0.0.1", sealed.port)) as connection:
            connection.sendall(b"MARKED\r\n\r\n")
            connection.recv(1000)
        assert "MARKED" not in sealed.log + opened.log
        assert "broke off" in sealed.log
        assert "broke off" in opened.log


class _served:  # noqa: N801
    """Serves an app on a socket that is bound."""

    def __init__(self, app: Upstream, listener: socket.socket) -> None:
        import uvicorn

        config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))

    def __enter__(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)


def _children(running: Running) -> list[int]:
    pid = running.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_until_gone(pids: list[int]) -> None:
    until = time.monotonic() + 15
    while alive := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
