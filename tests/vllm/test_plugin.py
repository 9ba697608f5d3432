"""The plugin as vLLM's loader sees it, without a vLLM."""

import argparse
import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import server_keys.vllm.hooks
from server_keys import EntropyError, KeyRing
from server_keys.vllm.hooks import with_keys
from server_keys.vllm.settings import Settings
from tests.helpers.fake_vllm import make_fake_vllm, write

REFRESH_TIME = "SERVER_KEYS_REFRESH_TIME_S"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (REFRESH_TIME, "SERVER_KEYS_OVERLAP_S", "VLLM_PLUGINS", "VLLM_USE_RUST_FRONTEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plugin() -> Any:
    return entry_point("vllm.endpoint_plugins")()


def entry_point(group: str) -> Any:
    """Load the one entry point of the installed wheel in `group`, as vLLM does."""
    (found,) = distribution("server-keys").entry_points.select(group=group)
    assert found.name == "server_keys"
    return found.load()


def keys_while_it_lives(app: FastAPI) -> tuple[KeyRing, float, float, int]:
    async def live() -> tuple[KeyRing, float, float, int]:
        async with app.router.lifespan_context(app):
            ring = app.state.ephemeral_keys
            tasks = [task for task in asyncio.all_tasks() if task.get_name() == "server_keys refresh"]
            return ring, ring.period_s, ring.overlap_s, len(tasks)

    return asyncio.run(live())


def test_the_plugin_gives_the_app_keys(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REFRESH_TIME, "7")
    app = FastAPI()
    plugin.attach_router(app)
    ring, period_s, overlap_s, tasks = keys_while_it_lives(app)
    assert isinstance(ring, KeyRing)
    assert ring.status.closed
    assert (period_s, overlap_s, tasks) == (7.0, 7.0, 1)
    asyncio.run(plugin.init_state(None, app.state, None))
    assert plugin.name == "server_keys"
    assert plugin.required_tasks is None


def test_plugin_and_entrypoint_at_once_double_nothing(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REFRESH_TIME, "7")

    def build_app(args: Any) -> FastAPI:
        app = FastAPI()
        plugin.attach_router(app)
        return app

    app = with_keys(with_keys(build_app, Settings(60.0, 60.0, protect=True)), Settings(90.0, 90.0, protect=True))(None)
    assert keys_while_it_lives(app)[1:] == (7.0, 7.0, 1)


def test_wrapping_keeps_the_name_and_the_docstring() -> None:
    def build_app(args: Any, supported_tasks: Any = None) -> FastAPI:
        """Build it."""
        return FastAPI()

    build_app_with_keys = with_keys(build_app, Settings(60.0, 60.0, protect=True))
    assert build_app_with_keys.__name__ == "build_app"
    assert build_app_with_keys.__doc__ == "Build it."


@pytest.mark.parametrize("value", ["nan", "0", "soon"])
def test_a_wrong_setting_ends_the_process(plugin: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(REFRESH_TIME, value)
    with pytest.raises(SystemExit, match=f"server-keys: {REFRESH_TIME} must be .*, not '{value}'"):
        plugin.attach_router(FastAPI())


def test_no_key_ends_the_process(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoKeyPair:
        @staticmethod
        def generate() -> None:
            raise EntropyError("the pool\nis dry")

    monkeypatch.setattr(server_keys.vllm.hooks, "KeyPair", NoKeyPair)
    with pytest.raises(
        SystemExit, match=r"^server-keys: no key pair can be made: EntropyError: the pool is dry \(.+\)$"
    ):
        plugin.attach_router(FastAPI())


def test_a_broken_installation_ends_the_process(tmp_path: Path) -> None:
    # vLLM logs an Exception of the import or of the factory, and serves: only attach_router may fail.
    write(tmp_path, "server_keys.broken", "")
    (tmp_path / "server_keys" / "__init__.py").write_text("raise ImportError('not for this machine')")
    load = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import server_keys_vllm_plugin
plugin = server_keys_vllm_plugin.EndpointPlugin()
try:
    plugin.attach_router(None)
except Exception:
    print("vLLM would go on")
"""
    result = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    reason = "the plugin for vLLM cannot be imported: ImportError: not for this machine"
    assert result.stderr == f"server-keys: {reason}\n"


class TestStart:
    """The check that vLLM calls in each process, before a model is loaded."""

    @pytest.fixture
    def check(self) -> Callable[[], None]:
        check: Callable[[], None] = entry_point("vllm.general_plugins")
        return check

    @pytest.fixture
    def vllm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A vLLM in front of which `vllm serve` was called."""
        make_fake_vllm(tmp_path, "0.32.0")
        write(tmp_path, "vllm.plugins.endpoint_plugins.interface", "")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["/usr/bin/vllm", "serve", "model"])
        yield tmp_path
        for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
            del sys.modules[name]

    def test_nobody_asked(self, check: Callable[[], None], vllm: Path) -> None:
        check()

    def test_asked_by_name(self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_PLUGINS", "other,server_keys")
        check()

    def test_a_wrong_setting(self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_PLUGINS", "server_keys")
        monkeypatch.setenv(REFRESH_TIME, "-3")
        with pytest.raises(SystemExit, match=f"{REFRESH_TIME} must be a finite number of seconds above zero, not '-3'"):
            check()

    def test_keys_set_but_the_plugin_not_listed(
        self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(REFRESH_TIME, "60")
        with pytest.raises(
            SystemExit, match=f"{REFRESH_TIME} is set, but .* set VLLM_PLUGINS=server_keys, or start with"
        ):
            check()

    @pytest.mark.parametrize("argv", [["/usr/bin/vllm", "bench", "serve"], ["my_offline_inference.py"], ["-c"]])
    def test_no_server_no_business_of_ours(
        self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
    ) -> None:
        monkeypatch.setenv(REFRESH_TIME, "-3")
        monkeypatch.setattr(sys, "argv", argv)
        check()

    def test_a_vllm_without_endpoint_plugins(
        self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VLLM_PLUGINS", "server_keys")
        (vllm / "vllm" / "plugins" / "endpoint_plugins" / "__init__.py").unlink()
        (vllm / "vllm" / "plugins" / "endpoint_plugins" / "interface.py").unlink()
        (vllm / "vllm" / "plugins" / "endpoint_plugins").rmdir()
        importlib.invalidate_caches()
        with pytest.raises(SystemExit, match=r"no endpoint plugins, 0\.26 is the first .* server-keys-vllm"):
            check()

    def test_the_rust_front_end(self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_PLUGINS", "server_keys")
        monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
        with pytest.raises(SystemExit, match="VLLM_USE_RUST_FRONTEND serves without FastAPI"):
            check()

    def test_grpc(self, check: Callable[[], None], vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_PLUGINS", "server_keys")
        serve = importlib.import_module("vllm.entrypoints.cli.serve")
        check()
        args = argparse.Namespace(grpc=True)
        with pytest.raises(SystemExit, match="--grpc serves without FastAPI"):
            serve.ServeSubcommand.cmd(args)
