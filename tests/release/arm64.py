"""A Python for 64-bit ARM that runs here: Debian's, in a folder of its own, under QEMU's user mode."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

QEMU = "qemu-aarch64-static"
FOLDER = Path(__file__).parents[2] / ".cache/arm64"
ROOT = FOLDER / "root"
PYTHON = ROOT / "usr/bin/python3"


def command() -> list[str]:
    """Return the command of a Python for 64-bit ARM, fetched if need be, or skip the test that asks for it."""
    if platform.machine() == "aarch64":
        pytest.skip("this machine is one of 64-bit ARM: its own Python has used the wheel")
    missing = [name for name in (QEMU, "apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no Python for 64-bit ARM without {', '.join(missing)}: apt-get install qemu-user-static")
    if not PYTHON.exists():
        _fetch()
    return [QEMU, "-L", str(ROOT), str(PYTHON)]


def version() -> str:
    """Return the version of that Python, such as `3.11`."""
    return PYTHON.resolve().name.removeprefix("python")


def site_packages() -> Path:
    """Return the folder in which that Python looks for packages that others than Debian installed."""
    return ROOT / f"usr/local/lib/python{version()}/dist-packages"


def _fetch() -> None:
    # A state of its own for apt: the machine's list of installed packages and of processors stays as it is.
    shutil.rmtree(FOLDER, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "root"):
        (FOLDER / folder).mkdir(parents=True)
    (FOLDER / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": FOLDER / "state",
        "Dir::State::status": FOLDER / "status",
        "Dir::Cache": FOLDER / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*apt, "update"], env=environment, check=True, timeout=300)
    packages = ["python3", "libc6"]
    install = [*apt, "install", "--yes", "--download-only", "--no-install-recommends", *packages]
    subprocess.run(install, env=environment, check=True, timeout=300)
    for package in (FOLDER / "cache/archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, ROOT], check=True, timeout=60)
