"""The files that PyPI gets, in the folder `release`. `make test-release` builds them and runs these tests."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def release() -> Path:
    """The folder that `make wheels` and `make sdist` write to."""
    return PROJECT / "release"


@pytest.fixture
def use_the_wheel() -> Path:
    """A program that uses the package with nothing beside it but its dependencies."""
    return PROJECT / "tests/package/use_the_wheel.py"
