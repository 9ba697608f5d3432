"""Whether the time of a batch of keys depends on the keys: what `timing.rs` measures."""

import subprocess
from pathlib import Path
from typing import Final

_COMMAND: Final = (
    *("cargo", "test", "--locked", "--release", "-p", "server-keys-core", "--lib"),
    *("--", "--ignored", "--nocapture", "timing::"),
)


def measure_timing(root: Path) -> list[str]:
    """Compile and run `timing.rs`, and return its findings, a line each. They gate nothing.

    Args:
        root: the Cargo workspace.

    Raises:
        FileNotFoundError: there is no cargo.
        subprocess.CalledProcessError: cargo failed; its output says why.
    """
    output = subprocess.run(_COMMAND, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [line for line in output.splitlines() if "Welch's t" in line]
