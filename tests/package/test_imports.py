"""Imports run one way, and nothing is imported that is not needed."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.scripts import run_script

PACKAGE = Path(__file__).parents[2] / "python" / "server_keys"

BASE = {"_native", "errors", "_checks", "_clock", "_log"}
KEYS = BASE | {"_keys"}
# What a ring is made of, without what an app adds.
RING = {
    f"_keys.{name}"
    for name in ("epoch_pairs", "fork", "own_pairs", "pair_source", "replays", "retries", "ring", "schedule")
}
SERVER = KEYS | {"_sharing.key_plan", "_sealing", "_additions", "middleware", "build_app"}
# What an operator measures.
OPERATIONS = {"metrics", "readiness"}
# The parts of the package (modules and folders), and for each the others that it may import.
MAY_IMPORT = {
    "_native": set[str](),
    "errors": {"_native"},
    "_checks": set[str](),
    "_clock": set[str](),
    "_log": set[str](),
    "_keys": BASE | {"_sharing.join", "_sharing.key_plan"},
    "_outermost": set[str](),
    "_sharing": BASE | RING,
    "_sealing": KEYS,
    "_additions": KEYS | {"_sharing.key_plan", "_sealing", "_outermost"},
    "middleware": {"_sealing"},
    "build_app": SERVER - {"build_app"},
    "_ring_gauges": KEYS,
    "metrics": KEYS | {"_ring_gauges", "_sealing.recorder", "_sealing.refusals"},
    "readiness": KEYS,
    "client": BASE
    | {f"_sealing.{name}" for name in ("identity", "key_entries", "key_signature", "place", "protocol", "wire_v1")},
    # Both ends of a proxy: the client's transport, the server's middleware.
    "proxy": SERVER | {"client"},
    # What an operator types: it configures and runs the proxy.
    "command": BASE
    | {f"_sealing.{name}" for name in ("identity", "key_entries", "key_signature", "protocol")}
    | {"server_keys", "_sharing.share", "client", "proxy"}
    | OPERATIONS,
    "vllm": SERVER | OPERATIONS | {"server_keys", "_sharing", "_sharing.share"},
    "__main__": {"server_keys"},
}
# The packages of others, and for each the parts that may import it.
MAY_BE_IMPORTED_BY = {
    "fastapi": {"_keys.app_ring", "_keys.lifespan", "_keys.startup", "_outermost", "_additions", "middleware"}
    | {"build_app", "vllm", "proxy.opening", "command.workers_metrics"}
    | OPERATIONS,
    "starlette": {"_keys.app_ring", "_keys.startup", "_outermost", "_additions", "_sealing"}
    | {"readiness", "proxy"}
    | {f"command.{name}" for name in ("observed", "served_app", "serving", "status", "workers_metrics")},
    "click": {"command"},
    "uvicorn": {"command.serving", "command.http_protocol"},
    "opentelemetry": {"_sealing.spans"},
    "prometheus_client": {"metrics", "command.workers_metrics"},
    "httpx": {"client"},
    "httpx2": {"client", "proxy", "command.check", "command.doctor"},
    "valkey": {"_sharing.valkey"},
    "vllm": {"vllm"},
}


def modules() -> dict[str, Path]:
    """The package's modules by their names in it, `__init__` left out: it imports on demand."""
    paths = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    names = (path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules, and the names in modules, that a module imports anywhere in its source."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Return the modules of the package that a module imports."""
    known = {**modules(), "_native": PACKAGE}
    found = set()
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "server_keys":
            module = rest if rest in known else rest.rpartition(".")[0]
            found.add(module or "server_keys")
    return found


def is_in(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("module", sorted(modules()))
def test_each_part_imports_only_those_below_it(module: str) -> None:
    part = module.split(".")[0]
    own = {part} | MAY_IMPORT[part]
    assert not {name for name in own_imports(modules()[module]) if not is_in(name, own)}


@pytest.mark.parametrize("module", sorted(modules()))
def test_each_foreign_package_is_known_to_few(module: str) -> None:
    packages = {name.split(".")[0] for name in imports(modules()[module])} - {"server_keys"}
    foreign = packages - set(sys.stdlib_module_names)
    assert foreign <= set(MAY_BE_IMPORTED_BY)
    assert not {package for package in foreign if not is_in(module, MAY_BE_IMPORTED_BY[package])}


def test_no_import_leads_back() -> None:
    graph = {name: own_imports(path) - {"server_keys"} for name, path in modules().items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    "module", ["server_keys", "server_keys.client", "server_keys.client.httpx2", "server_keys.client.httpx"]
)
def test_the_client_needs_no_web_framework(module: str) -> None:
    run_script(f"""
        import sys
        import {module}

        assert not {{"fastapi", "starlette", "pydantic"}} & set(sys.modules)
    """)


def test_the_ring_needs_no_web_framework() -> None:
    run_script("""
        import sys
        from server_keys import KeyRing

        assert KeyRing(300).current.public_key
        assert not {"fastapi", "starlette", "pydantic"} & set(sys.modules)
    """)
