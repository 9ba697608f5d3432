"""What `server-keys open` tells of itself, on an address of its own: whether it is ready, and its metrics."""

import contextlib
import os
import re
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from server_keys import Signer
from server_keys.client import sealed_client
from server_keys.command.status import status_pages
from server_keys.proxy import OpenOptions
from server_keys.proxy.opening import protected_forwarder
from server_keys.readiness import why_not_ready
from tests.helpers.commands import Running, run_here, serving
from tests.helpers.scrape import samples
from tests.helpers.server_processes import free_port
from tests.helpers.servers import STANDARD, running
from tests.helpers.signed_answers import OtherSigner

LISTEN = ("--listen", "127.0.0.1:0")
SEALED = 'server_keys_requests_total{outcome="sealed"}'
STATUS = ("--status-listen", "127.0.0.1:0")


def status_url(opened: Running) -> str:
    """Return where it tells of itself, as its log says."""
    _ = opened.url
    found = re.search(r"; on (http://\S+): /ready", opened.log)
    assert found is not None, opened.log
    return found[1]


def metrics_of(opened: Running) -> dict[str, float]:
    answer = httpx2.get(f"{status_url(opened)}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


def wait_until(opened: Running, is_it: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    until = time.monotonic() + 30
    while not is_it(found := metrics_of(opened)):
        assert time.monotonic() < until, (found, opened.log)
        time.sleep(0.1)
    return found


def test_it_is_ready_when_it_serves_and_counts_what_it_opens(upstream: str) -> None:
    with serving("open", "--to", upstream, *LISTEN, *STATUS) as opened:
        ready = httpx2.get(f"{status_url(opened)}/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        assert ready.headers["Cache-Control"] == "no-store"
        with sealed_client() as client:
            assert client.post(f"{opened.url}/x", content=b"x").json()["body"] == "x"
        assert httpx2.post(f"{opened.url}/x", content=b"x").status_code == 400
        found = wait_until(opened, lambda found: found[SEALED] == 1)  # counted when it has ended
        assert found["server_keys_available_rings"] == 1
        assert found['server_keys_refusals_total{reason="plaintext"}'] == 1
        assert found['server_keys_opened_requests_total{wire="v1"}'] == 1
        # Who asks for these pages is not among its requests.
        assert sum(found[name] for name in found if name.startswith("server_keys_requests_total")) == 3


def test_prometheus_gets_the_format_that_it_asks_for(upstream: str) -> None:
    with serving("open", "--to", upstream, *LISTEN, *STATUS) as opened:
        accept = "application/openmetrics-text; version=1.0.0"
        answer = httpx2.get(f"{status_url(opened)}/metrics", headers={"Accept": accept})
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
        assert list(text_string_to_metric_families(httpx2.get(f"{status_url(opened)}/metrics").text))


def test_these_paths_belong_to_the_upstream_where_requests_come_in(upstream: str) -> None:
    with serving("open", "--to", upstream, "--allow-plaintext", *LISTEN, *STATUS) as opened:
        own = status_url(opened)
        for path in ("/ready", "/metrics", "/else"):
            passed_on = httpx2.get(f"{opened.url}{path}")
            assert passed_on.json()["target"] == path
            # A name in the request does not lead to the pages.
            named = httpx2.get(f"{opened.url}{path}", headers={"Host": own.removeprefix("http://")})
            assert named.json()["target"] == path
        with sealed_client() as client:
            assert client.post(f"{opened.url}/metrics", content=b"x").json()["target"] == "/metrics"


@pytest.mark.parametrize("path", ["/", "/else", "/ready/", "/metrics/x", "/.well-known/hpke-keys"])
def test_nothing_is_passed_on_from_its_own_address(path: str, upstream: str) -> None:
    with serving("open", "--to", upstream, "--allow-plaintext", *LISTEN, *STATUS) as opened:
        own = status_url(opened)
        named = {"Host": opened.url.removeprefix("http://")}
        for headers in ({}, named):
            answer = httpx2.get(f"{own}{path}", headers=headers, follow_redirects=False)
            assert answer.status_code in (307, 404)
            assert "target" not in answer.text
        assert httpx2.post(f"{own}/ready", content=b"x").status_code == 405


def test_without_the_option_nothing_else_is_listened_on(upstream: str) -> None:
    with serving("open", "--to", upstream, "--allow-plaintext", *LISTEN) as opened:
        assert httpx2.get(f"{opened.url}/ready").json()["target"] == "/ready"
        assert "/ready" not in opened.log
        assert len(_listening_sockets(opened)) == 1


def test_a_proxy_on_a_unix_socket_tells_of_itself_on_a_port(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "open.sock"
    options = ("--listen", f"unix:{path}", "--allow-plaintext")
    with serving("open", "--to", upstream, *options, *STATUS) as opened:
        assert httpx2.get(f"{status_url(opened)}/ready").json() == {"ready": True}
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/ready").json()["target"] == "/ready"


def test_it_is_not_ready_while_no_key_is_signed_and_says_why(upstream: str) -> None:
    def sign(message: bytes) -> bytes:
        raise OSError("the KMS is away")

    signer = Signer(OtherSigner(bytes(32)).public_key, sign, timeout_s=1)
    app = protected_forwarder(OpenOptions(to=upstream, share=None, identity=signer))

    async def why() -> str | None:
        return why_not_ready(app)

    pages = status_pages(why, PlainTextResponse("", 404))

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["type"] == "lifespan" else pages)(scope, receive, send)

    with running(served, STANDARD) as url:
        until = time.monotonic() + 20
        while "KMS" not in (answer := httpx2.get(f"{url}/ready")).text:
            assert time.monotonic() < until, answer.text
            time.sleep(0.02)
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert "none is signed" in answer.json()["reason"]


def test_several_workers_are_told_of_together(upstream: str) -> None:
    options = (*LISTEN, *STATUS, "--workers", "2")
    # This folder is meant for the server behind.
    with serving("open", "--to", upstream, *options, environment={"PROMETHEUS_MULTIPROC_DIR": "/no/such"}) as opened:
        wait_until(opened, lambda found: found.get("server_keys_shared_rings") == 2)
        assert httpx2.get(f"{status_url(opened)}/ready").json() == {"ready": True}
        calls = 12
        for _ in range(calls):
            with sealed_client() as client:  # over a connection of its own: both workers answer some
                assert client.post(f"{opened.url}/x", content=b"x").status_code == 200
        folders = _metrics_folders(opened)
        assert len(folders) == 1
        assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
        wait_until(opened, lambda found: found[SEALED] == calls)
    assert not folders[0].exists()


def test_a_worker_that_is_killed_leaves_counters_and_no_old_keys(upstream: str) -> None:
    with serving("open", "--to", upstream, *LISTEN, *STATUS, "--workers", "2") as opened:
        wait_until(opened, lambda found: found.get("server_keys_available_rings") == 2)
        with sealed_client() as client:
            client.post(f"{opened.url}/x", content=b"x")
        wait_until(opened, lambda found: found[SEALED] == 1)
        killed_at = time.time()
        for pid in _workers(opened):
            os.kill(pid, signal.SIGKILL)  # uvicorn starts others in their place
        found = wait_until(
            opened,
            lambda found: (
                found["server_keys_available_rings"] == 2
                and found["server_keys_key_created_timestamp_seconds"] >= killed_at
            ),
        )
        assert found[SEALED] == 1


def test_without_prometheus_client_it_is_ready_and_says_what_metrics_need(upstream: str) -> None:
    with _without_prometheus() as environment:
        with serving("open", "--to", upstream, *LISTEN, *STATUS, environment=environment) as opened:
            assert httpx2.get(f"{status_url(opened)}/ready").json() == {"ready": True}
            answer = httpx2.get(f"{status_url(opened)}/metrics")
            assert answer.status_code == 404
            assert "extra `metrics`" in answer.text
            assert "extra `metrics`" in opened.log
        with serving("open", "--to", upstream, *LISTEN, *STATUS, "--workers", "2", environment=environment) as opened:
            assert httpx2.get(f"{status_url(opened)}/ready").json() == {"ready": True}


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ("{free}", 2, "--to: http://{free} is where this proxy itself listens (--status-listen {free})"),
        ("9090", 2, "--status-listen must be HOST:PORT, such as 127.0.0.1:8011, not '9090'"),
        ("unix:/tmp/status.sock", 2, "--status-listen must be HOST:PORT, such as 127.0.0.1:8011, not 'unix:"),
        ("http://127.0.0.1:1", 2, "--status-listen must be"),
        ("{taken}", 1, "cannot listen on {taken}"),
        ("127.0.0.2:{port}", 2, "must have another port than --listen"),
        ("127.0.0.1:{port}", 1, "cannot listen on 127.0.0.1:{port}"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(given: str, status: int, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {
            "free": f"127.0.0.1:{free_port()}",
            "taken": f"127.0.0.1:{taken.getsockname()[1]}",
            "port": free_port(),
        }
        listen = f"127.0.0.1:{names['port']}"
        done = run_here(
            "open", "--to", f"http://{names['free']}", "--listen", listen, "--status-listen", given.format(**names)
        )
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(r"server-keys.*\n", done.stderr)
    assert says.format(**names) in done.stderr


def test_a_machine_without_room_for_the_metrics_of_workers_is_one_line(
    upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    done = run_here("open", "--to", upstream, *LISTEN, *STATUS, "--workers", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"server-keys.*: cannot make a folder for the metrics .*TMPDIR.*\n", done.stderr)


@contextlib.contextmanager
def _without_prometheus() -> Iterator[dict[str, str]]:
    """Yield variables with which Python finds no prometheus_client."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text("import sys\nsys.modules['prometheus_client'] = None\n")
        yield {"PYTHONPATH": folder}


def _workers(opened: Running) -> list[int]:
    """Return the workers: the children that serve, without multiprocessing's own."""
    pid = opened.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _metrics_folders(opened: Running) -> list[Path]:
    found = set()
    for pid in _workers(opened):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(b"PROMETHEUS_MULTIPROC_DIR="):
                found.add(Path(variable.partition(b"=")[2].decode()))
    return sorted(found)


def _listening_sockets(opened: Running) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{opened.process.pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)) if descriptor.exists() else None
        inodes |= {found[1]} if found else set()
    listening = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {words[9] for words in listening if words[3] == "0A" and words[9] in inodes}
