"""`make demo`, and what else builds, on a machine that cannot run it."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")


def script(path: Path, source: str) -> Path:
    path.write_text(source)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    "goal", ["demo", "wheel", "dev", "test", "test-python", "test-oldest", "test-wheel", "test-vllm", "lint", "bench"]
)
def test_an_old_python_is_refused_before_anything_is_made_or_compiled(tmp_path: Path, goal: str) -> None:
    # A Python that calls itself 3.10, and tools that leave a note when they are called.
    old_python = script(
        tmp_path / "python3.10",
        f"""#!{sys.executable}
import sys
sys.version_info, sys.version = (3, 10, 13, "final", 0), "3.10.13 (main)"
assert sys.argv[1] == "-c", sys.argv
exec(sys.argv[2])
""",
    )
    calls = tmp_path / "calls"
    for tool in ("cargo", "maturin", "rustc"):
        script(tmp_path / tool, f'#!/bin/sh\necho "$0 $*" >> {calls}\n')
    # `make test` passes its own variables on to a make that it starts.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    began = time.monotonic()
    done = subprocess.run(
        ["make", goal, f"PYTHON={old_python}", f"VENV={tmp_path}/venv"],
        cwd=PROJECT,
        env=environment | {"PATH": f"{tmp_path}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert f"Python 3.11 or newer is needed, and {old_python} is 3.10.13." in done.stderr
    assert f"make PYTHON=python3.12 {goal}" in done.stderr
    assert time.monotonic() - began < 10
    assert not list(tmp_path.glob("venv*/bin"))
    assert not calls.exists()
