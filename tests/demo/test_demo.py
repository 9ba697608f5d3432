"""The demo as a process of its own, over HTTP and in the terminal."""

import ast
import json
import os
import posixpath
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi.testclient import TestClient

from examples.demo.app import create_app
from examples.demo.key_history import KeyEvent, KeyHistory, KeyLife
from server_keys import KeyRing, engine
from tests.helpers.demo_process import COMMAND, Demo, running_demo

PROJECT = Path(__file__).parents[2]
CLIENTS_PAGE = PROJECT / "docs" / "client.md"
SMALL_ORDER_POINT = "00" * 32


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--refresh-time-s", "1", "--overlap-s", "1") as demo:
        yield demo


def test_the_examples_use_public_names_only() -> None:
    sources = list((PROJECT / "examples").rglob("*.py"))
    assert PROJECT / "examples" / "demo" / "app.py" in sources
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            private = [name for name in names if name.startswith("server_keys") and "._" in name]
            assert private == [], source


def test_the_first_example_of_the_clients_page_chats(demo: Demo) -> None:
    example = CLIENTS_PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    example = example.replace("http://127.0.0.1:8000", demo.url)
    assert demo.url in example
    done = subprocess.run([sys.executable, "-c", example], check=True, timeout=30, capture_output=True, text=True)
    assert len(done.stdout.split()) > 5


def test_the_proof_is_of_the_secret_that_cryptography_computes(demo: Demo) -> None:
    mine = X25519PrivateKey.generate()
    my_key = mine.public_key().public_bytes_raw()
    status, current, _ = demo.ask("GET", "/key")
    assert status == 200
    assert 0 <= current["replaced_in_s"] <= 1
    asked = {"server_public_key": current["public_key"].upper(), "public_key": my_key.hex()}
    status, answer, _ = demo.ask("POST", "/exchange", asked)
    assert (status, answer["server_public_key"]) == (200, current["public_key"])
    server_key = bytes.fromhex(current["public_key"])
    secret = mine.exchange(X25519PublicKey.from_public_bytes(server_key))
    expected = HKDF(SHA256(), 32, None, b"server-keys demo" + server_key + my_key).derive(secret)
    assert answer["proof"] == expected.hex()
    life = next(life for life in demo.ask("GET", "/keys")[1]["keys"] if life["public_key"] == current["public_key"])
    assert life["agreements"] == 1


def test_an_erased_key_is_refused_with_what_to_do(demo: Demo) -> None:
    my_key = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    asked = {"server_public_key": demo.ask("GET", "/key")[1]["public_key"], "public_key": my_key}
    assert demo.ask("POST", "/exchange", asked)[0] == 200
    demo.wait_for_line(f"{asked['server_public_key'][:8]}… erased")
    status, answer, _ = demo.ask("POST", "/exchange", asked)
    assert status == 409
    assert asked["server_public_key"][:16] in answer["detail"]
    assert "GET /key" in answer["detail"]


@pytest.mark.parametrize("bad", ["", "ab", "zz" * 32, "ab" * 33, 5, None, "\ud800", float("nan"), SMALL_ORDER_POINT])
@pytest.mark.parametrize("field", ["public_key", "server_public_key"])
def test_a_bad_key_is_refused(demo: Demo, field: str, bad: object) -> None:
    good = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    asked = {"server_public_key": demo.ask("GET", "/key")[1]["public_key"], "public_key": good} | {field: bad}
    status, answer, _ = demo.ask("POST", "/exchange", asked)
    # A point of small order is a well-formed server key, but no server key of this demo.
    assert status == (409 if (field, bad) == ("server_public_key", SMALL_ORDER_POINT) else 422)
    assert field in json.dumps(answer) or status == 409


def test_each_page_file_is_served_under_a_policy_that_lets_nothing_else_in(demo: Demo) -> None:
    status, page, headers = demo.ask("GET", "/")
    assert status == 200
    assert headers.get_content_type() == "text/html"
    files = set(re.findall(r'(?:src|href)="([^"#]+)"', page.decode()))
    scripts = {file for file in files if file.endswith(".js")}
    while scripts:  # and the scripts that they import
        script = scripts.pop()
        source = demo.ask("GET", f"/{script}")[1].decode()
        imported = {
            posixpath.normpath(posixpath.join(posixpath.dirname(script), path))
            for path in re.findall(r'from "(\.[^"]+)"', source)
        }
        scripts |= imported - files
        files |= imported
    assert {"main.js", "timeline.js", "js/ehbp.js", "js/server_key.js", "style.css"} <= files
    for file in files:
        status, content, headers = demo.ask("GET", f"/{file}")
        assert status == 200, file
        assert not re.search(rb"""(?:src|href|url|from|import|fetch)\W{0,3}\bhttps?:""", content), file
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_terminal_shows_keys_coming_and_going_and_what_is_left_at_the_end() -> None:
    with running_demo("--refresh-time-s", "0.4", "--overlap-s", "0.2") as demo:
        demo.wait_for_line(r"key +2 [0-9a-f]{8}… came")
        demo.wait_for_line(r"key +1 [0-9a-f]{8}… replaced, accepted for 0.2 s more")
        demo.wait_for_line(r"key +1 [0-9a-f]{8}… erased after 0\.[67]")
    assert f"{engine()}\n" in demo.lines
    assert demo.process.returncode == 0
    stopped = re.search(r"Stopped: (\d+) of (\d+) key pairs of this run are erased", demo.lines[-1])
    assert stopped, demo.lines
    assert stopped[1] == stopped[2]
    assert not any("\x1b" in line or "Traceback" in line for line in demo.lines)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--refresh-time-s", "0"], "--refresh-time-s, --overlap-s: refresh_time must be"),
        (
            ["--refresh-time-s", "nan"],
            "argument --refresh-time-s: must be a finite number of seconds, 0 or more, not 'nan'",
        ),
        (
            ["--refresh-time-s", "8s"],
            "argument --refresh-time-s: must be a finite number of seconds, 0 or more, not '8s'",
        ),
        (["--overlap-s", "9"], "--refresh-time-s, --overlap-s: overlap must be from 0 to the refresh time (8)"),
        (["--overlap-s", "inf"], "argument --overlap-s: must be a finite number of seconds, 0 or more, not 'inf'"),
        (["--word-delay-s", "-1"], "argument --word-delay-s: must be a finite number of seconds, 0 or more, not '-1'"),
        (["--port", "65536"], "a port is a number from 0 to 65535, not '65536'"),
        (["--port", "x"], "a port is a number from 0 to 65535, not 'x'"),
        (["--workers", "0"], "argument --workers: is a number from 1 to 64, not '0'"),
        (["--workers", "three"], "argument --workers: is a number from 1 to 64, not 'three'"),
    ],
)
def test_a_bad_option_ends_the_start(arguments: list[str], complaint: str) -> None:
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert complaint in ended.stderr


def test_a_busy_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert "--port 0" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("nonsense.invalid", "that name has no address"),
        # RFC 5737 reserves it for documentation, so no machine has it.
        ("192.0.2.1", "this machine does not have that address"),
    ],
)
def test_a_host_that_cannot_be_is_told_from_a_busy_port(host: str, complaint: str) -> None:
    command = [*COMMAND, "--host", host, "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"Cannot listen on {host}" in ended.stderr
    assert complaint in ended.stderr
    assert "--host" in ended.stderr
    assert "--port" not in ended.stderr
    assert "Traceback" not in ended.stderr


# How many lines are read: none before the server has started, six long after.
@pytest.mark.parametrize("lines", [0, 1, 6])
def test_it_ends_quietly_when_nobody_reads_on(lines: int) -> None:
    command = [*COMMAND, "--port", "0", "--refresh-time-s", "0.3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_help_names_every_option() -> None:
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    for option in ("--host", "--port", "--workers", "--refresh-time-s", "--overlap-s", "--word-delay-s"):
        assert option in shown


def test_a_terminal_gets_a_table_that_is_drawn_over_itself() -> None:
    pty = pytest.importorskip("pty", reason="pseudo-terminals exist on POSIX only")
    primary, secondary = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    command = [*COMMAND, "--port", "0", "--refresh-time-s", "0.5"]
    process = subprocess.Popen(command, stdout=secondary, stderr=secondary, env=environment)
    os.close(secondary)
    shown = b""
    try:
        deadline = time.monotonic() + 20
        while b"erased  " not in shown and time.monotonic() < deadline:
            shown += os.read(primary, 65536)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                more = os.read(primary, 65536)
            except OSError:  # Linux raises it when the other end is closed
                break
            if not more:
                break
            shown += more
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        os.close(primary)
    text = shown.decode()
    for state in ("● key", "◐ key", "○ key", "current", "accepted", "erased", "key pairs of this run are erased"):
        assert state in text
    assert "\x1b[6F" in text
    # The cursor is shown again.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


class HeldClock:
    """A clock that the test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_history_tells_the_truth_about_each_pair() -> None:
    clock = HeldClock()
    told: list[tuple[KeyEvent, int]] = []
    history = KeyHistory(on_event=lambda event, life: told.append((event, life.number)), clock=clock)
    with KeyRing(10, overlap_s=4, clock=clock) as ring:
        history.observe(ring)
        clock.now_s = 111
        history.observe(ring)
        clock.now_s = 114
        history.observe(ring)
        clock.now_s = 115.5
        history.observe(ring)
        assert history.unerased == 1
    history.observe(ring)
    assert told == [("came", 1), ("replaced", 1), ("came", 2), ("erased", 1), ("erased", 2)]
    assert history.unerased == 0
    second, first = history.lives
    assert first == KeyLife(1, first.public_key, made_at=100.0, replaced_at=111.0, erased_at=114.0)
    assert second == KeyLife(2, second.public_key, made_at=111.0, erased_at=115.5)


def test_the_history_forgets_old_lives() -> None:
    history = KeyHistory()
    with KeyRing(1000) as ring:
        for _ in range(100):
            ring.refresh()
            history.observe(ring)
    assert history.made == 101
    assert len(history.lives) == 24


def test_the_history_watches_until_the_keys_are_erased_with_the_app() -> None:
    history = KeyHistory()
    with TestClient(create_app(1000, history=history)) as client:
        assert client.get("/keys").json()["keys"][0]["erased_s_ago"] is None
        assert history.unerased == 1
    assert (history.made, history.unerased) == (1, 0)
    assert history.lives[0].erased_at is not None


def test_without_keys_the_answer_says_so() -> None:
    app = create_app(1000)
    with TestClient(app) as client:
        app.state.ephemeral_keys.close()
        answer = client.get("/key")
        assert answer.status_code == 503
        assert "closed" in answer.json()["detail"]
