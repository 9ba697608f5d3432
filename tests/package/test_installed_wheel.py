"""The wheel is complete, and says the truth about itself."""

import importlib.metadata
import json
import sysconfig
import tomllib
from pathlib import Path

import pytest

import server_keys
from server_keys import _native

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "python"


def is_built_in_place() -> bool:
    """Whether `make dev` brought the package here (PEP 660)."""
    origin = importlib.metadata.distribution("server-keys").read_text("direct_url.json")
    return bool(json.loads(origin or "{}").get("dir_info", {}).get("editable"))


pytestmark = pytest.mark.skipif(
    is_built_in_place(), reason="the package is built in place: `make test` tests the wheel"
)


def installed_files() -> set[Path]:
    files = importlib.metadata.files("server-keys")
    assert files is not None
    return {Path(file) for file in files}


def test_the_tests_see_it() -> None:
    installed = Path(server_keys.__file__).parent
    assert installed.is_relative_to(sysconfig.get_path("platlib"))
    assert Path(_native.__file__).parent == installed
    assert {Path("server_keys/py.typed"), Path("server_keys/_native.pyi")} <= installed_files()


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


def test_the_licences_of_what_is_linked_in_are_in_it() -> None:
    licenses = {file.name for file in installed_files() if "licenses" in file.parts}
    assert {"LICENSE", "THIRD-PARTY-LICENSES.txt"} <= licenses


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
