"""What every benchmark gets: the peers checked, its turns, and a way to record what it measures."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.measure import Measure
from benches.peers import check_peers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repetitions", type=int, default=1, help="how often each contestant gets its turn")
    parser.addoption("--lag-time", type=float, default=1.0, help="seconds for which a contestant's loop lag is sampled")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Called before the benchmark's own parameters are applied, so the repetition varies slowest: contestants alternate.
    if "repetition" in metafunc.fixturenames:
        metafunc.parametrize("repetition", range(metafunc.config.getoption("repetitions")), scope="module")


@pytest.fixture(scope="session", autouse=True)
def _checked_peers() -> None:
    check_peers()


@pytest.fixture
def measure(benchmark: BenchmarkFixture, repetition: int) -> Measure:
    return Measure(benchmark, repetition)
