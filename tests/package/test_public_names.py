"""The names that `server_keys` offers: where they are found, their signatures, and what importing them brings."""

import ast
import importlib
import importlib.metadata
import inspect
import operator
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import server_keys
from server_keys import _native, errors, middleware
from tests.helpers.scripts import run_script

# These must not come along: vLLM, and packages that send or serve HTTP.
HEAVY = (
    "vllm",
    "torch",
    "prometheus_client",
    "opentelemetry",
    "httpx",
    "httpx2",
    "httpcore",
    "requests",
    "aiohttp",
    "openai",
    "uvicorn",
    "cryptography",
)


def test_all_is_the_truth() -> None:
    promised = {name for names in server_keys._HOMES.values() for name in names}
    assert set(server_keys.__all__) == promised
    assert server_keys.__all__ == sorted(server_keys.__all__)
    assert len(server_keys.__all__) == len(set(server_keys.__all__))
    assert set(server_keys.__all__) <= set(dir(server_keys))


def test_type_checkers_see_each_name_where_it_is_at_run_time() -> None:
    # At run time nothing of the block under TYPE_CHECKING is executed.
    tree = ast.parse(Path(server_keys.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    for name in server_keys.__all__:
        module = seen.pop(name)
        assert module is not None
        assert getattr(importlib.import_module(module), name) is getattr(server_keys, name), name
    assert set(seen.values()) == {"server_keys"}  # its public modules


def test_the_version_is_that_of_the_distribution() -> None:
    assert server_keys.__version__ == importlib.metadata.version("server-keys")
    assert "__version__" in dir(server_keys)


@pytest.mark.parametrize("module", ["build_app", "errors", "metrics", "middleware", "readiness"])
def test_public_modules_are_there_without_an_import_of_their_own(module: str) -> None:
    run_script(f"""
        import server_keys

        assert server_keys.{module}.__name__ == "server_keys.{module}"
    """)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'server_keys' has no attribute 'KeyRong'"):
        server_keys.KeyRong  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_error_is_in_errors_and_in_its_tree() -> None:
    assert errors.__doc__ is not None
    assert sorted(errors.__all__) == errors.__all__
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, Exception)
        assert f"- `{name}`" in errors.__doc__, name
    assert {name for name in server_keys.__all__ if name.endswith("Error")} <= set(errors.__all__)


def test_every_public_function_and_class_explains_itself() -> None:
    for name in server_keys.__all__:
        value = getattr(server_keys, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, name


def test_native_names_say_the_same_to_editors_and_to_help() -> None:
    stub = Path(_native.__file__).with_name("_native.pyi")
    said = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in server_keys.__all__:
            said[node.name] = ast.get_docstring(node)
            members = node.body if isinstance(node, ast.ClassDef) else []
            said |= {
                f"{node.name}.{member.name}": ast.get_docstring(member)
                for member in members
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__")
            }
    assert {"Engine", "KeyPair", "KeyPair.exchange", "generate_key_pairs", "EntropyError"} <= set(said)
    for name, docstring in said.items():
        assert inspect.getdoc(operator.attrgetter(name)(server_keys)) == docstring, name


@pytest.mark.parametrize(
    ("function", "parameters", "is_coroutine"),
    [
        (server_keys.ephemeral_key_lifespan_factory, ["refresh_time"], False),
        (server_keys.inject_key_lifespan, ["build_app_func", "key_refresh_time_s"], False),
        (server_keys.periodic_refresh, ["app", "period"], True),
    ],
)
def test_the_documented_signatures(function: Callable[..., object], parameters: list[str], is_coroutine: bool) -> None:
    of_function = inspect.signature(function).parameters.values()
    positional = [parameter for parameter in of_function if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert [parameter.name for parameter in positional] == parameters
    assert all(parameter.default is parameter.empty for parameter in positional)
    others = [parameter for parameter in of_function if parameter not in positional]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)
    assert all(parameter.default is not parameter.empty for parameter in others)
    assert inspect.iscoroutinefunction(function) is is_coroutine


def test_build_app_func_is_importable_from_the_middleware() -> None:
    assert middleware.BuildAppFunc is server_keys.BuildAppFunc


def test_native_names_are_found_where_they_say() -> None:
    native = [getattr(_native, name) for name in _native.__all__]
    errors = [value for value in native if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(errors) == 12
    for value in (*errors, _native.Engine, _native.KeyPair):
        assert getattr(importlib.import_module(value.__module__), value.__name__) is value
    for error in errors:
        assert type(pickle.loads(pickle.dumps(error("why")))) is error


def test_importing_brings_neither_vllm_nor_an_http_client() -> None:
    code = (
        "import sys\n"
        "import server_keys\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "print('server_keys.client' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[]", "False"]


@pytest.mark.parametrize("name", ["SealedTransport", "AsyncSealedTransport"])
def test_the_client_says_what_it_lacks(name: str) -> None:
    code = f"import sys\nsys.modules['httpx2'] = None\nfrom server_keys.client import {name}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {name} is for httpx2, which is not installed")
    assert "pip install httpx2;" in last
    assert f"server_keys.client.httpx.{name}" in last


def test_importing_makes_no_key_starts_no_thread_and_opens_nothing() -> None:
    run_script("""
        import os, threading
        from pathlib import Path

        before = os.listdir("/proc/self/fd")
        import server_keys

        assert os.listdir("/proc/self/fd") == before
        assert threading.active_count() == 1
        assert " wf" not in Path("/proc/self/smaps").read_text(), "there is memory for keys before any key"
    """)
