"""The wheel is complete, and says the truth about itself."""

import importlib.metadata
import tomllib
from pathlib import Path

from server_keys import _native

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "python"


def installed_files() -> set[Path]:
    files = importlib.metadata.files("server-keys")
    assert files is not None
    return {Path(file) for file in files}


def test_every_source_file_is_in_it() -> None:
    sources = {
        path.relative_to(SOURCES)
        for path in SOURCES.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    assert Path("server_keys/py.typed") in sources
    assert sources <= installed_files(), sources - installed_files()


def test_nothing_else_of_the_project_is_in_it() -> None:
    packages = {file.parts[0] for file in installed_files() if ".dist-info" not in file.parts[0]}
    assert packages - {".."} == {folder.name for folder in SOURCES.iterdir()}  # `..` holds the console scripts


def test_one_wheel_serves_every_python_from_3_11_on() -> None:
    assert Path(_native.__file__).name == "_native.abi3.so"
    assert importlib.metadata.metadata("server-keys")["Requires-Python"] == ">=3.11"


def test_both_languages_have_one_version() -> None:
    workspace = tomllib.loads((PROJECT / "Cargo.toml").read_text())["workspace"]
    assert importlib.metadata.version("server-keys") == workspace["package"]["version"]


def test_every_entry_point_names_something_that_is_there() -> None:
    entry_points = importlib.metadata.distribution("server-keys").entry_points
    assert {entry_point.group for entry_point in entry_points} == {
        "console_scripts",
        "vllm.endpoint_plugins",
        "vllm.general_plugins",
    }
    for entry_point in entry_points:
        assert callable(entry_point.load()), entry_point
