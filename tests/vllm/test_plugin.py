"""The plugin as vLLM's loader sees it, without a vLLM."""

import asyncio
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import server_keys.vllm.hooks
from server_keys import EntropyError, KeyRing
from server_keys.vllm.hooks import with_keys
from server_keys.vllm.settings import Settings
from tests.helpers.fake_vllm import write

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

    settings = Settings(7.0, 7.0, protect=True)  # the entrypoint leaves its own in the environment, for the plugin
    app = with_keys(with_keys(build_app, settings), settings)(None)
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
