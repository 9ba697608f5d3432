"""The page on many processes shows the example files as they are, and a store that is run as it says serves a group."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest

from server_keys._keys.schedule import Schedule
from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys._sharing.pace import Pace
from server_keys._sharing.share import SECRET_FILE_VARIABLE, SECRET_VARIABLE, SHORTEST_SHARED_S
from server_keys.client import sealed_client
from server_keys.vllm.options import SHARE
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.valkey import KINDS, StoreKind
from tests.sharing.test_valkey_login import NARROWEST

EXAMPLES = ROOT / "examples" / "sharing"
PAGE = (ROOT / "docs" / "many-processes.md").read_text()
PASSWORD = "0123456789abcdef"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix != ".py"))
def test_the_page_shows_the_file(name: str) -> None:
    shown = re.search(rf"`examples/sharing/{re.escape(name)}`:\n\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    assert shown
    assert shown[1] == (EXAMPLES / name).read_text()


def test_the_user_is_the_one_that_was_tested_to_have_enough_and_nothing_too_much() -> None:
    rules = (EXAMPLES / "users.acl").read_text().splitlines()[1].split()[2:]
    assert sorted(rule for rule in rules if not rule.startswith("#")) == sorted(
        {rule for rule in NARROWEST if not rule.startswith(">")} - {"resetkeys"}
    )


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_variables_and_paths_are_those_that_the_package_knows(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert set(re.findall(r"SERVER_KEYS_\w+", text)) == {SHARE.variable, SECRET_FILE_VARIABLE}
    assert KEY_CONFIG_PATH in text
    assert SECRET_VARIABLE in PAGE


def test_the_figures_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([\d.]+) s \| ([\d.]+) s \| ([\d.]+) s \| ([\d.]+) s \| ([\d.]+) s \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for row in rows:
        period_s, overlap_s, *told = map(float, row)
        pace = Pace(Schedule(period_s, overlap_s))
        assert told == [pace.poll_s, pace.lead_s, pace.life_s]
    default = Pace(Schedule(300.0, 300.0))
    assert f"{int(default.lead_s + 300 - 3 * default.poll_s)} s by default" in PAGE
    assert default.life_s == 10.5 * 60
    assert "ten and a half minutes by default" in PAGE
    assert f"at least {SHORTEST_SHARED_S} s" in PAGE


@contextlib.contextmanager
def documented_store(kind: StoreKind, folder: Path) -> Iterator[int]:
    """Run a store with the documented files, whose places and password are a test's, and yield its port."""
    port = free_port()
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    acl = (EXAMPLES / "users.acl").read_text().replace("SHA256-OF-THE-PASSWORD", digest)
    (folder / "users.acl").write_text(acl)
    configuration = (EXAMPLES / "valkey.conf").read_text().replace("/etc/valkey", str(folder))
    (folder / "valkey.conf").write_text(configuration)
    (folder / "data").mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder / "data")]
    program = [kind.program_or_skip(), str(folder / "valkey.conf"), *options]
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(program, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        assert process.wait(10) == 0, (folder / "store.log").read_text()


@contextlib.contextmanager
def example_server(store: str, secret: Path, log: Path) -> Iterator[str]:
    """Run the example's app with two workers, and yield its URL when it serves."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "examples.sharing.server:app", "--port", str(port), "--workers", "2"]
    environment = os.environ | {SHARE.variable: store, SECRET_FILE_VARIABLE: str(secret)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while log.read_text().count("Application startup complete") < 2:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_two_servers_of_the_example_have_one_ring_through_the_documented_store(kind: StoreKind, tmp_path: Path) -> None:
    secret = tmp_path / "group.secret"
    secret.write_text(os.urandom(32).hex())
    secret.chmod(0o400)
    with (
        documented_store(kind, tmp_path) as port,
        example_server(share := f"valkey://server-keys:{PASSWORD}@127.0.0.1:{port}", secret, tmp_path / "a") as first,
        example_server(share, secret, tmp_path / "b") as second,
    ):
        keys = {urlopen(url + KEY_CONFIG_PATH).read() for url in [first, second] * 10}
        assert len(keys) == 1
        limits = httpx2.Limits(max_keepalive_connections=0)
        with sealed_client(key_url=f"{first}{KEY_CONFIG_PATH}", limits=limits) as client:
            for _ in range(10):
                answer = client.post(f"{second}/hello", json={"name": "Ada"})
                assert json.loads(answer.text) == "Hello, Ada"
    logs = (tmp_path / "a").read_text() + (tmp_path / "b").read_text()
    assert "a process joined the key group in valkey://127.0.0.1" in logs, logs
    assert "cannot share keys" not in logs
    assert PASSWORD not in logs
    assert list((tmp_path / "data").iterdir()) == [], "the store wrote something to disk"
