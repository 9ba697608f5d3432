"""Hosts whose secret cannot be used do not start, and nobody ever sees a secret."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hosts import SECRET, Hosts, hosts
from tests.helpers.trials import Keys
from tests.helpers.valkey import VALKEY, StoreServer, store_server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    folder = tmp_path / "store"
    folder.mkdir()
    with store_server(VALKEY, folder) as server:
        yield server


@pytest.fixture
def group(store: StoreServer, tmp_path: Path) -> Iterator[Hosts]:
    with hosts(tmp_path, store.url, keys=Keys(1.0)) as group:
        yield group


def test_a_host_whose_secret_cannot_be_used_does_not_start_and_says_why_in_one_line(
    group: Hosts, tmp_path: Path
) -> None:
    def file(name: str, text: str, mode: int) -> Path:
        path = tmp_path / f"{name}.secret"
        path.write_text(text)
        path.chmod(mode)
        return path

    cases = {
        "readable": (file("readable", SECRET, 0o644), "can be read or written by every user"),
        "writable": (file("writable", SECRET, 0o620), "can be written by its group"),
        "short": (file("short", SECRET[:40], 0o600), "has fewer than 64 hex digits"),
        "no_hex": (file("no_hex", f"password: {SECRET}", 0o600), "has characters that are no hex digits"),
        "three": (file("three", "\n".join([SECRET, "a1" * 32, "b2" * 32]), 0o600), "has more than 2 secrets"),
        "missing": (tmp_path / "missing.secret", "does not exist"),
        "folder": (tmp_path, "is no regular file"),
    }
    for name, (path, _) in cases.items():
        group.start(f"of_{name}", secret=path)
    for name, (path, reason) in cases.items():
        server = group.running[f"of_{name}"]
        assert server.process.wait(60) not in (0, None), name
        (line,) = [line for line in server.log.splitlines() if str(path) in line]
        assert reason in line, line
        assert not server.of("serves")
    assert_no_secret(group, "password:")


def test_a_secret_in_the_environment_is_shown_nowhere(store: StoreServer, group: Hosts) -> None:
    store.administrator.config_set("requirepass", "hunter2")
    share = f"valkey://:hunter2@127.0.0.1:{store.port}"
    environment = {"SERVER_KEYS_GROUP_SECRET": SECRET, "SERVER_KEYS_GROUP_SECRET_FILE": ""}
    group.start("a", share=share, environment=environment)
    group.start("b", share=share, environment=environment)
    group.wait_for_one_ring()
    made = group.wait_for_epochs(1)
    lines = "\n".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in group.living)
    assert made.pid in group.living
    assert "uvicorn" in lines
    assert_no_secret(group, "hunter2", lines)
    assert all(state.more["store"] == f"valkey://127.0.0.1:{store.port}/0" for state in group.states().values())


def assert_no_secret(group: Hosts, *more: str) -> None:
    """Assert that nothing that servers wrote, nor the last of `more`, shows a secret."""
    first, *texts = more
    for text in (group.everything_written(), *texts):
        assert SECRET not in text
        assert SECRET[:40] not in text
        assert first not in text
