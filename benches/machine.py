"""What the figures were measured on, without anything that names the machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from server_keys import engine


def describe_machine() -> str:
    """One line: processor, versions of the languages and of the peers."""
    return "; ".join(
        [
            f"{_cpu_model()}, {_cpus()}, {platform.system()}",
            f"{platform.python_implementation()} {platform.python_version()}, {_rustc()}",
            f"server_keys {version('server-keys')} ({str(engine()).rstrip('.')})",
            f"cryptography {version('cryptography')} ({backend.openssl_version_text().split(' ', 2)[0]} "
            f"{backend.openssl_version_text().split(' ', 2)[1]})",
            f"PyNaCl {version('PyNaCl')}; tinfoil-ehbp {version('tinfoil-ehbp')}; hpke-http {version('hpke-http')}",
        ]
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _cpus() -> str:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "1 core" if count == 1 else f"{count} cores"


def _rustc() -> str:
    stated = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(stated.split()[:2])
