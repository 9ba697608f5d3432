"""Running the core's Criterion benchmarks (`core.rs`), and reading what they measured."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benches.measured import Estimate

_NS: float = 1e-9


@dataclass(frozen=True)
class CoreBenchmark:
    """One function of the Rust crate, without Python around it."""

    name: str
    time: Estimate
    """The median, in seconds, with its 95% confidence interval."""


def run_criterion(root: Path, folder: Path, *, quick: bool) -> list[CoreBenchmark]:
    """Compile and run `benches/core.rs`.

    Args:
        root: the Cargo workspace.
        folder: where Criterion keeps its data; emptied first.
        quick: take fewer samples.

    Raises:
        FileNotFoundError: there is no cargo.
        subprocess.CalledProcessError: cargo failed; its output says why.
    """
    shutil.rmtree(folder, ignore_errors=True)
    command = ["cargo", "bench", "--locked", "-p", "server-keys-core", "--bench", "core", "--", "--noplot"]
    subprocess.run(
        [*command, *(["--quick"] if quick else [])],
        cwd=root,
        env=os.environ | {"CRITERION_HOME": str(folder.resolve())},
        check=True,
    )
    return sorted((_read(estimates) for estimates in folder.glob("**/new/estimates.json")), key=lambda read: read.name)


def _read(estimates: Path) -> CoreBenchmark:
    median = json.loads(estimates.read_text())["median"]
    interval = median["confidence_interval"]
    return CoreBenchmark(
        name=json.loads(estimates.with_name("benchmark.json").read_text())["full_id"],
        time=Estimate(median["point_estimate"] * _NS, interval["lower_bound"] * _NS, interval["upper_bound"] * _NS),
    )
