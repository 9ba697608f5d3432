"""A fixture of the tests against a real vLLM. `make test-vllm` runs them, in an environment of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that talks nonsense."""
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, HERE / "tiny_model.py", folder], check=True, capture_output=True)
    return folder
