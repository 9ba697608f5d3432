"""Checks what a release depends on: the crates' licenses and sources, and advisories about crates and packages.

All checks run even if one fails, so that those that need no network have been seen. `make audit` runs it.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def deny(program: str, *checks: str) -> bool:
    """Let cargo-deny run some of its checks. Return whether they passed."""
    command = [program, "--locked", "--all-features", "--config=rust/deny.toml", "check", *checks]
    return subprocess.run(command, cwd=PROJECT, check=False).returncode == 0


def requirements() -> list[str]:
    """Return what the package and its extras need. Whoever has vLLM chose its version before."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name != "vllm"]
    return [requirement for group in [project["dependencies"], *extras] for requirement in group]


def packages_have_no_advisory() -> bool:
    """Let pip-audit ask PyPI about what the package needs. Return whether it knew all, and of no advisory."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements()))
        file.flush()
        # Not strict, it passes packages of which PyPI knows nothing.
        command = [sys.executable, "-m", "pip_audit", "--strict", "--progress-spinner=off", "--requirement", file.name]
        return subprocess.run(command, check=False).returncode == 0


def main(cargo_deny: str) -> int:
    """Run all checks and say how each of them ended."""
    passed = {
        "licenses, bans and sources of crates": deny(cargo_deny, "licenses", "bans", "sources"),
        "advisories about crates (RustSec)": deny(cargo_deny, "advisories"),
        "advisories about packages (PyPI)": packages_have_no_advisory(),
    }
    print()
    for check, good in passed.items():
        print(f"{check}: {'passed' if good else 'FAILED, or could not be had: see above'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
