"""Real vLLM servers that were asked for keys and cannot have them: they end, and say why."""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.vllm_on_cpu.vllm_server import ENTRYPOINT, VLLM_SERVE, VllmServer

PLUGIN = {"VLLM_PLUGINS": "server_keys"}
Refused = Callable[..., tuple[int, list[str]]]

LOADING = "EngineCore"  # the name of the process that loads the model, in each of its log lines


@pytest.fixture
def refused(model: Path, tmp_path: Path) -> Refused:
    """Start a server that is to end before it loads the model; return its exit status and what server-keys said."""

    def start(command: Sequence[str], *options: str, **environment: str) -> tuple[int, list[str]]:
        with VllmServer(command, model, tmp_path, *options, environment=environment) as server:
            status, lines = server.ends_by_itself(within_s=120)
            assert LOADING not in server.log
            assert "Traceback" not in server.log
            return status, lines

    return start


def test_a_wrong_setting_for_the_plugin(refused: Refused) -> None:
    status, lines = refused(VLLM_SERVE, SERVER_KEYS_REFRESH_TIME_S="nan", **PLUGIN)
    assert status == 1
    (line,) = lines
    reason = "SERVER_KEYS_REFRESH_TIME_S must be a number of seconds from 0.01 to 31622400 (366 days), not 'nan'"
    assert line.startswith(f"server-keys: {reason} (vLLM 0.")


def test_keys_asked_for_by_a_variable_but_the_plugin_not_listed(refused: Refused) -> None:
    status, (line,) = refused(VLLM_SERVE, SERVER_KEYS_REFRESH_TIME_S="60")
    assert status == 1
    assert "set VLLM_PLUGINS=server_keys, or start with server-keys-vllm (vLLM 0." in line


def test_grpc_with_the_plugin(refused: Refused, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("grpc: true\n")
    status, (line,) = refused(VLLM_SERVE, "--config", str(config), **PLUGIN)
    assert status == 1
    assert line.startswith("server-keys: --grpc serves without FastAPI")


def test_the_rust_front_end_with_the_plugin(refused: Refused) -> None:
    status, (line,) = refused(VLLM_SERVE, VLLM_USE_RUST_FRONTEND="1", **PLUGIN)
    assert status == 1
    assert line.startswith("server-keys: VLLM_USE_RUST_FRONTEND serves without FastAPI")


def test_a_wrong_setting_in_the_entrypoints_configuration_file(refused: Refused, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("key-refresh-time-s: -1\n")
    status, (line,) = refused(ENTRYPOINT, "--config", str(config))
    assert status == 2
    assert line.endswith("--key-refresh-time-s must be a number of seconds from 0.01 to 31622400 (366 days), not '-1'")


@pytest.mark.parametrize(
    ("option", "environment"),
    [("--key-refresh-time-s=inf", {}), ("--grpc", {}), ("-O0", {"VLLM_USE_RUST_FRONTEND": "1"})],
)
def test_the_entrypoint_within_a_second(refused: Refused, option: str, environment: dict[str, str]) -> None:
    before_s = cpu_time_of_children_s()
    status, lines = refused(ENTRYPOINT, option, **environment)
    assert cpu_time_of_children_s() - before_s < 1.0
    assert status != 0
    assert len(lines) == 1


def cpu_time_of_children_s() -> float:
    """Return the CPU time of all processes that were run and have ended: no busy machine prolongs it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_no_key_no_server(model: Path, tmp_path: Path) -> None:
    # Another plugin of the same server breaks what makes keys, as a machine without a random source would.
    package = tmp_path / "package"
    info = package / "no_random_source-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: no-random-source\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\nno_random_source = no_random_source:install\n")
    (package / "no_random_source.py").write_text(NO_RANDOM_SOURCE)
    plugins = "server_keys,no_random_source"
    with VllmServer(
        VLLM_SERVE, model, tmp_path, python_path=[package], environment={"VLLM_PLUGINS": plugins}
    ) as server:
        status, lines = server.ends_by_itself(within_s=300)
        assert status == 1
        (line,) = lines
        assert line.startswith("server-keys: no key pair can be made: EntropyError: the pool is dry (vLLM 0.")
        assert "Application startup complete" not in server.log


NO_RANDOM_SOURCE = """
import server_keys

class NoKeyPair:
    @staticmethod
    def generate():
        raise server_keys.EntropyError("the pool is dry")

def install():
    server_keys.KeyPair = NoKeyPair
"""
