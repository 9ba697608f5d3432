"""The source distribution has all that a build needs, and builds."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.release.conftest import PROJECT

# What must be there beside the sources: their licenses, and the versions of all crates.
COMPANIONS = {
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    "THIRD-PARTY-LICENSES.txt",
    "pyproject.toml",
}


@pytest.fixture
def sdist(release: Path) -> Path:
    """The source distribution."""
    (found,) = release.glob("*.tar.gz")
    return found


def names_in(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_it_has_every_source_and_nothing_that_was_made_of_them(sdist: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "python", "rust/binding", "rust/core"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert names_in(sdist) == COMPANIONS | set(tracked.stdout.splitlines())


def test_pip_builds_and_installs_it_and_it_works(sdist: Path, use_the_wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True, timeout=60)
    python = tmp_path / "bin/python"
    # Crates that were compiled before need not be again: what the sdist lacks is missing all the same.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(PROJECT / "target")}
    subprocess.run([python, "-m", "pip", "install", "--quiet", sdist], env=environment, check=True, timeout=900)
    command = [str(python), "-W", "error", "-I", str(use_the_wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert " works from " in done.stdout
