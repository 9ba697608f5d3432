"""Run all benchmarks, print their ratios, and write the report and its chart."""

import argparse
import importlib
import pkgutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import benches
from benches.chart import draw_chart
from benches.comparison import Comparison
from benches.criterion import run_criterion
from benches.machine import describe_machine
from benches.measure import read_measured
from benches.other_load import OtherLoad
from benches.peers import check_peers
from benches.report import render_calls, render_comparison, render_report, render_targets
from benches.sharing import call_workers
from benches.timing import measure_timing

_ROOT: Final = Path(__file__).parents[1]
_CACHE: Final = _ROOT / ".cache" / "benches"
_REPORT: Final = "RESULTS.md"
_CHART: Final = "results.svg"


@dataclass(frozen=True)
class Effort:
    """How long a run takes."""

    repetitions: int
    seconds: float
    """For one contestant, in one repetition."""
    lag_seconds: float
    """The same, where loop lag is sampled."""


_FULL: Final = Effort(repetitions=7, seconds=0.4, lag_seconds=2)
_QUICK: Final = Effort(repetitions=3, seconds=0.05, lag_seconds=0.3)


def main() -> None:
    arguments = _parse_arguments()
    output: Path = arguments.output
    effort = _QUICK if arguments.quick else _FULL
    check_peers()
    output.mkdir(parents=True, exist_ok=True)
    _CACHE.mkdir(parents=True, exist_ok=True)

    other_load = OtherLoad()
    _say("Benchmarking the core with Criterion")
    core = run_criterion(_ROOT, _CACHE / "criterion", quick=arguments.quick)
    _say("Looking for time that depends on private keys")
    print(*measure_timing(_ROOT), sep="\n")
    _say("Benchmarking what Python sees, side by side")
    measured = read_measured(_run_pytest(effort))
    _say("Calling servers of several workers")
    calls = call_workers(quick=arguments.quick)

    comparisons = _comparisons()
    draw_chart(comparisons, measured, output / _CHART)
    report = render_report(
        comparisons,
        measured,
        core,
        calls,
        machine=f"{describe_machine()}. {other_load.describe()}".rstrip(),
        chart_name=_CHART,
        repetitions=effort.repetitions,
    )
    (output / _REPORT).write_text(report)

    for comparison in comparisons:
        if comparison.title in measured:
            _say(comparison.title)
            print(render_comparison(comparison, measured[comparison.title]))
    _say("Calls to several workers")
    print(render_calls(calls))
    _say("Targets")
    print(render_targets(comparisons, measured))
    _say(f"Written: {output / _REPORT} and {output / _CHART}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches",
        description=(
            "Benchmark server_keys beside cryptography, PyNaCl and plain Python; print the ratios, and write "
            f"{_REPORT} and {_CHART}. Takes about fifteen minutes. Close what else keeps the processors busy."
        ),
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a rough look, in about a minute; leaves the published results alone unless --output names their folder",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where to write (benches/, or with --quick .cache/benches/)"
    )
    arguments = parser.parse_args()
    arguments.output = arguments.output or (_CACHE if arguments.quick else _ROOT / "benches")
    return arguments


def _run_pytest(effort: Effort) -> Path:
    """Run every `bench_*.py`; return pytest-benchmark's JSON."""
    data = _CACHE / "pytest-benchmark.json"
    command = [sys.executable, "-m", "pytest", "benches", "-p", "no:cacheprovider"]
    options = [
        "--override-ini=python_files=bench_*.py",
        "--override-ini=python_functions=bench_*",
        f"--repetitions={effort.repetitions}",
        f"--lag-time={effort.lag_seconds}",
        f"--benchmark-max-time={effort.seconds}",
        # A round that is shorter is repeated within it, so that reading the clock costs nothing.
        "--benchmark-min-time=0.0005",
        "--benchmark-disable-gc",
        "--benchmark-quiet",
        f"--benchmark-json={data}",
    ]
    subprocess.run([*command, *options], cwd=_ROOT, check=True)
    return data


def _comparisons() -> list[Comparison]:
    """What the files `bench_*.py` describe, in their order."""
    names = sorted(found.name for found in pkgutil.iter_modules(benches.__path__) if found.name.startswith("bench_"))
    modules = [importlib.import_module(f"benches.{name}") for name in names]
    return [comparison for module in modules for comparison in module.COMPARISONS]


def _say(line: str) -> None:
    print(f"\n\033[1m==> {line}\033[0m" if sys.stdout.isatty() else f"\n==> {line}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed with status {error.returncode}: its output above says why")
