"""The checks of the plugin before a server of vLLM starts, and the warnings of every start.

The checks hang on what is served: vLLM's own app, however its server is started, and nobody else's.
"""

import json
from pathlib import Path

import pytest

from tests.helpers.fake_vllm import make_fake_vllm, refused, run, servers, write

PLUGIN = {"VLLM_PLUGINS": "other,server_keys"}
REFRESH_TIME = "SERVER_KEYS_REFRESH_TIME_S"
ENTRYPOINT = ["-m", "server_keys.vllm", "model"]
SERVE = ["-m", "vllm.entrypoints.cli.main", "serve", "model"]
OWN_SCRIPT_WITH_VLLM_S_SERVER = ["own.py"]
STARTS = {
    "vllm serve": ("0.32.0", SERVE),
    "vllm serve, older": ("0.28.0", SERVE),
    "vllm serve, one process": ("0.32.0", [*SERVE, "--api-server-count", "1"]),
    "vllm launch": ("0.32.0", ["-m", "vllm.entrypoints.cli.main", "launch", "model"]),
    "python -m": ("0.32.0", ["-m", "vllm.entrypoints.openai.api_server"]),
    "python -m, newer": ("0.32.0", ["-m", "vllm.entrypoints.launchers.api_server.entry"]),
    "python -m, older": ("0.28.0", ["-m", "vllm.entrypoints.openai.api_server"]),
    "a script that runs vLLM's server": ("0.32.0", OWN_SCRIPT_WITH_VLLM_S_SERVER),
}
OWN_SCRIPT = """
import argparse, asyncio
from vllm.entrypoints.launchers.api_server.entry import make_arg_parser, run_server

args = make_arg_parser(argparse.ArgumentParser()).parse_args()
asyncio.run(run_server(args))
"""
# As vLLM's example of an own server does: an app of its own around the engine.
EMBEDDING = """
import asyncio
from fastapi import FastAPI
from server_keys import protect
from vllm.plugins import load_general_plugins

async def run_server():
    async with app.router.lifespan_context(app):
        print(app.state.ephemeral_keys.period_s)

def main():
    load_general_plugins()  # Creating the engine's arguments does.
    asyncio.run(run_server())

app = protect(FastAPI(), 7)
main()
"""


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The arguments for Python that start a server, whose vLLM is in `tmp_path`."""
    version, command = STARTS[request.param]
    make_fake_vllm(tmp_path, version)
    write(tmp_path, "own", OWN_SCRIPT)
    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_fake_vllm(tmp_path, "0.32.0")
    return tmp_path


class TestRefusals:
    def test_none_where_nobody_asked(self, folder: Path) -> None:
        assert {server["key_id"] for server in servers(run(folder, SERVE))} == {None}

    def test_none_where_a_service_of_kubernetes_has_a_name_like_ours(self, start: list[str], tmp_path: Path) -> None:
        service = {
            "SERVER_KEYS_SERVICE_HOST": "10.0.0.1",
            "SERVER_KEYS_SERVICE_PORT": "8000",
            "SERVER_KEYS_SERVICE_PORT_HTTP": "8000",
            "SERVER_KEYS_PORT": "tcp://10.0.0.1:8000",
            "SERVER_KEYS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "SERVER_KEYS_PORT_8000_TCP_PROTO": "tcp",
            "SERVER_KEYS_OPEN_PORT_8000_TCP_ADDR": "10.0.0.1",
        }
        assert {server["key_id"] for server in servers(run(tmp_path, start, **service))} == {None}
        line = refused(run(tmp_path, start, **service, SERVER_KEYS_SHARE="none"))
        assert "SERVER_KEYS_SHARE is set, but" in line

    def test_a_wrong_setting(self, start: list[str], tmp_path: Path) -> None:
        line = refused(run(tmp_path, start, **PLUGIN, SERVER_KEYS_REFRESH_TIME_S="-3"))
        assert f"{REFRESH_TIME} must be a number of seconds from 0.01 to 31622400 (366 days), not '-3' (vLLM 0." in line

    def test_keys_set_but_the_plugin_not_listed(self, start: list[str], tmp_path: Path) -> None:
        line = refused(run(tmp_path, start, SERVER_KEYS_REFRESH_TIME_S="60"))
        assert f"{REFRESH_TIME} is set, but vLLM loads no endpoint plugin that VLLM_PLUGINS does not list" in line
        assert "set VLLM_PLUGINS=server_keys, or start with server-keys-vllm" in line

    @pytest.mark.parametrize("command", [SERVE, ["-m", "vllm.entrypoints.openai.api_server"]])
    def test_a_vllm_without_endpoint_plugins(self, tmp_path: Path, command: list[str]) -> None:
        make_fake_vllm(tmp_path, "0.20.2")
        line = refused(run(tmp_path, command, **PLUGIN))
        assert "no endpoint plugins, 0.26 is the first that has: start it with server-keys-vllm (vLLM 0.20.2)" in line

    def test_the_rust_front_end(self, folder: Path) -> None:
        line = refused(run(folder, SERVE, **PLUGIN, VLLM_USE_RUST_FRONTEND="1"))
        assert "VLLM_USE_RUST_FRONTEND serves without FastAPI" in line

    def test_grpc(self, folder: Path) -> None:
        assert "--grpc serves without FastAPI" in refused(run(folder, [*SERVE, "--grpc"], **PLUGIN))


class TestOtherPrograms:
    """They use vLLM, and serve no app of its."""

    def test_engines_without_a_server(self, folder: Path) -> None:
        result = run(folder, [*SERVE, "--headless"], SERVER_KEYS_REFRESH_TIME_S="60")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    @pytest.mark.parametrize("name", ["api_server", "entry", "serve"])
    @pytest.mark.parametrize("refresh_time", ["60", "-3"])
    def test_an_app_of_its_own_around_the_engine(self, folder: Path, name: str, refresh_time: str) -> None:
        write(folder, name, EMBEDDING)
        result = run(folder, [f"{name}.py", "serve"], SERVER_KEYS_REFRESH_TIME_S=refresh_time)
        assert (result.returncode, result.stdout, result.stderr) == (0, "7.0\n", "")

    def test_an_app_of_its_own_beside_vllm_s_server_that_is_not_started(self, folder: Path) -> None:
        write(folder, "api_server", "import vllm.entrypoints.launchers.api_server.entry\n" + EMBEDDING)
        result = run(folder, ["api_server.py"], SERVER_KEYS_REFRESH_TIME_S="60")
        assert (result.returncode, result.stdout, result.stderr) == (0, "7.0\n", "")


ALL_OFF = json.dumps({"version": 1})
ONLY_ERRORS = json.dumps({"version": 1, "root": {"level": "ERROR", "handlers": []}})
REQUEST_PARAMETERS = "--enable-log-requests writes the parameters of requests to vLLM's log in plaintext"
PROMPTS = "--enable-log-requests writes prompts to vLLM's log in plaintext"
AT_DEBUG = "the log level DEBUG writes requests to /v1/messages, their answers, and the output that tool parsers read"
OUTPUTS = "--enable-log-outputs writes responses to vLLM's log in plaintext"
RESPONSES = "VLLM_DEBUG_LOG_API_SERVER_RESPONSE writes responses to vLLM's log in plaintext"
STORE = "VLLM_ENABLE_RESPONSES_API_STORE keeps responses, and gives them in plaintext to whoever asks"
TOKEN_IDS = "--kv-events-config publishes the token ids of prompts in plaintext"
BOTH_LOGS = ["--enable-log-requests", "--enable-log-outputs"]


class TestWarnings:
    @pytest.mark.parametrize(
        ("options", "environment", "warnings"),
        [
            ([], {}, []),
            (["--enable-log-requests"], {}, [REQUEST_PARAMETERS]),
            (["--enable-log-requests"], {"VLLM_LOGGING_LEVEL": "DEBUG"}, [PROMPTS, AT_DEBUG]),
            ([], {"VLLM_LOGGING_LEVEL": "DEBUG"}, [AT_DEBUG]),
            ([], {"VLLM_LOGGING_LEVEL": "DEBUG", "SERVER_KEYS_PROTECT": "0"}, []),
            (BOTH_LOGS, {}, [REQUEST_PARAMETERS, OUTPUTS]),
            (BOTH_LOGS, {"VLLM_LOGGING_LEVEL": "WARNING"}, []),
            ([], {"VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "true"}, [RESPONSES]),
            ([], {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, [STORE]),
            ([], {"VLLM_ENABLE_RESPONSES_API_STORE": "1", "SERVER_KEYS_REQUIRE_SEALED": "1"}, [STORE]),
            ([], {"VLLM_ENABLE_RESPONSES_API_STORE": "0", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "false"}, []),
            (['--kv-events-config={"enable_kv_cache_events": true}'], {}, [TOKEN_IDS]),
            (['--kv-events-config={"enable_kv_cache_events": false}'], {}, []),
            (BOTH_LOGS, {"VLLM_ENABLE_RESPONSES_API_STORE": "1", "SERVER_KEYS_PROTECT": "0"}, []),
        ],
    )
    def test_the_entrypoint_warns_once_of_what_is_not_sealed(
        self, folder: Path, options: list[str], environment: dict[str, str], warnings: list[str]
    ) -> None:
        result = run(folder, [*ENTRYPOINT, *options], **environment)
        assert len(servers(result)) == 2
        assert_warned(result.stderr, warnings)

    def test_entrypoint_and_plugin_at_once_warn_once(self, folder: Path) -> None:
        result = run(folder, [*ENTRYPOINT, *BOTH_LOGS], **PLUGIN)
        assert len(servers(result)) == 2
        assert_warned(result.stderr, [REQUEST_PARAMETERS, OUTPUTS])

    def test_every_start_with_the_plugin_has_keys_and_warns(self, start: list[str], tmp_path: Path) -> None:
        environment = {"VLLM_ENABLE_RESPONSES_API_STORE": "1", "SERVER_KEYS_REFRESH_TIME_S": "7", **PLUGIN}
        result = run(tmp_path, [*start, "--enable-log-requests"], **environment)
        started = servers(result)
        for server in started:
            assert server["period_s"] == 7
            assert server["publishes_key"]
        # Each process that serves says it.
        assert_warned(result.stderr, [REQUEST_PARAMETERS, STORE] * len(started))

    @pytest.mark.parametrize("configuration", [ALL_OFF, ONLY_ERRORS])
    @pytest.mark.parametrize("command", [ENTRYPOINT, SERVE, ["-m", "vllm.entrypoints.openai.api_server"]])
    def test_a_configuration_of_the_log_that_disables_loggers_hides_nothing(
        self, folder: Path, command: list[str], configuration: str
    ) -> None:
        (folder / "log.json").write_text(configuration)
        environment = {
            "VLLM_ENABLE_RESPONSES_API_STORE": "1",
            "VLLM_LOGGING_CONFIG_PATH": str(folder / "log.json"),
            **PLUGIN,
        }
        result = run(folder, command, **environment)
        assert_warned(result.stderr, [STORE] * (1 if command is ENTRYPOINT else len(servers(result))))


def assert_warned(stderr: str, warnings: list[str]) -> None:
    lines = sorted(line for line in stderr.splitlines() if line.startswith("server-keys: "))
    assert len(lines) == len(warnings), stderr
    for line, warning in zip(lines, sorted(warnings), strict=True):
        assert line.startswith(f"server-keys: {warning}")
        assert line.endswith(", whether they travel sealed or not")
