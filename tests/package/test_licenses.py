"""THIRD-PARTY-LICENSES.txt names what the native module is made of, and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PLATFORMS = [f"{processor}-unknown-linux-{libc}" for processor in ("x86_64", "aarch64") for libc in ("gnu", "musl")]
ITEM = re.compile(r"^- ([a-z0-9_-]+ [0-9]\S*)$", re.MULTILINE | re.IGNORECASE)


def linked_crates(platform: str) -> set[str]:
    """Return the crates that are in the module of one platform, with their versions, as Cargo.lock has them."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("cargo, which knows what is linked, is not here")
    # Macros are among them: they run in the compiler, but what they write is linked.
    command = [cargo, "tree", "--locked", "--package=server-keys-binding", "--edges=normal", f"--target={platform}"]
    output = ["--prefix=none", "--no-dedupe", "--format={p}"]
    done = subprocess.run([*command, *output], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=True)
    crates = {" ".join(line.split()[:2]).replace(" v", " ") for line in done.stdout.splitlines()}
    return {crate for crate in crates if not crate.startswith("server-keys-")}


def test_it_names_every_crate_that_is_linked_and_no_other() -> None:
    linked = set().union(*(linked_crates(platform) for platform in PLATFORMS))
    named = set(ITEM.findall((PROJECT / "THIRD-PARTY-LICENSES.txt").read_text()))
    assert {crate.split()[0] for crate in linked} >= {"curve25519-dalek", "pyo3", "rustix"}
    assert named == linked, "run `make licenses`"


def test_it_has_a_license_text_for_each() -> None:
    texts = (PROJECT / "THIRD-PARTY-LICENSES.txt").read_text().split("-" * 80)
    for text in texts[1:]:
        names = ITEM.findall(text)
        assert len(text) > 500 + sum(len(name) for name in names), names


def test_no_text_is_a_form_without_a_name() -> None:
    text = (PROJECT / "THIRD-PARTY-LICENSES.txt").read_text()
    assert not re.findall(r"copyright.*<(?:year|owner|copyright holders?)>.*", text, re.IGNORECASE)
