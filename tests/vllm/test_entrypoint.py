"""The alternative entrypoint, run as a process beside packages that are laid out like vLLM."""

import os
import re
import resource
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.fake_vllm import (
    APP,
    BUILD_APP,
    ENTRY,
    OLD,
    RENDER,
    SIGNATURES,
    make_fake_vllm,
    refused,
    servers,
    write,
)
from tests.helpers.fake_vllm import run as run_python
from tests.helpers.signed_answers import OtherSigner

SCRIPT = str(Path(sys.executable).parent / "server-keys-vllm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python(folder, ["-m", "server_keys.vllm", *arguments], **environment)


def cpu_time_of_children_s() -> float:
    """Return the CPU time of all processes that were run and have ended: no busy machine prolongs it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("version", SIGNATURES)
def test_each_api_server_process_has_keys_of_its_own(folder: Path, version: str) -> None:
    make_fake_vllm(folder, version)
    first, second = servers(run(folder, "model"))
    assert first["pid"] != second["pid"]
    assert len(first["key_id"]) == 16
    assert first["key_id"] != second["key_id"]
    assert first["period_s"] == first["overlap_s"] == 300
    for child in (first, second):
        assert child["publishes_key"]
        assert child["takes_plaintext"]


def test_the_console_script_is_the_same(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    first, second = servers(run_python(folder, [SCRIPT, "model", "--key-refresh-time-s=7"]))
    assert first["period_s"] == second["period_s"] == 7
    assert first["key_id"] != second["key_id"]


def test_options_override_the_environment_and_reach_the_servers(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    result = run(
        folder, "model", "--key-refresh-time-s", "9.5", SERVER_KEYS_REFRESH_TIME_S="60", SERVER_KEYS_OVERLAP_S="4"
    )
    assert {(child["period_s"], child["overlap_s"]) for child in servers(result)} == {(9.5, 4.0)}


def test_a_setting_in_the_environment_needs_no_plugin(folder: Path) -> None:
    # vLLM loads the plugin's check at the start wherever VLLM_PLUGINS is not set.
    make_fake_vllm(folder, "0.32.0")
    for count in ("1", "2"):
        started = servers(run(folder, "model", "--api-server-count", count, SERVER_KEYS_REFRESH_TIME_S="60"))
        assert [server["period_s"] for server in started] == [60] * int(count)
        assert all(server["publishes_key"] for server in started)


def test_keys_alone(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    first, second = servers(run(folder, "model", "--no-protect"))
    assert first["key_id"]
    assert not first["publishes_key"]
    assert not second["publishes_key"]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--require-sealed"], {}),
        ([], {"SERVER_KEYS_REQUIRE_SEALED": "1"}),
        (["--require-v1", "--sealed-place", "suffix", "--open-paths", ""], {}),
        ([], {"SERVER_KEYS_REQUIRE_V1": "1"}),
    ],
)
def test_sealed_bodies_alone(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    make_fake_vllm(folder, "0.32.0")
    for child in servers(run(folder, "model", *arguments, **environment)):
        assert child["publishes_key"]
        assert not child["takes_plaintext"]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_it_ends_quietly_when_nobody_reads_on(option: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as nobody:
        command = [sys.executable, "-m", "server_keys.vllm", option]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_help_shows_the_options_without_vllm_within_a_second(folder: Path) -> None:
    for help_option in ("--help", "-h"):
        before_s = cpu_time_of_children_s()
        # Help is wanted most where something is wrong.
        result = run(folder, "model", help_option, SERVER_KEYS_REFRESH_TIME_S="nan")
        assert cpu_time_of_children_s() - before_s < 1.0
        assert result.returncode == 0
        assert result.stderr == ""
        assert result.stdout.startswith("usage: server-keys-vllm ")
        for text in (
            "--key-refresh-time-s",
            "--key-overlap-s",
            "--require-sealed",
            "--require-v1",
            "--sealed-place PLACE",
            "--sealed-replay REPLAY",
            "--sealed-max-buffered-bytes BYTES",
            "/health,/health/keys,/ping,/metrics by default",
            "--key-share SHARE",
            "--group-secret-file PATH",
            "--key-identity PATH",
            "SERVER_KEYS_SHARE",
            "SERVER_KEYS_REFRESH_TIME_S",
            "300 by default",
            "--help=all",
            "--version",
        ):
            assert text in result.stdout


def test_the_help_of_vllm_has_the_options_too(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    shown = run(folder, "--help=all").stdout
    assert shown.startswith("usage: server-keys-vllm ")
    for text in ("--key-overlap-s", "SERVER_KEYS_OVERLAP_S", "--require-sealed", "--key-share SHARE", "--grpc"):
        assert text in shown


def test_the_version_without_vllm_and_beside_it(folder: Path) -> None:
    result = run(folder, "--version")
    assert result.returncode == 0
    assert result.stdout.startswith(f"server-keys-vllm {version('server-keys')} (no vLLM is installed: ")
    make_fake_vllm(folder, "0.32.0")
    write(folder, "vllm.__init__", "raise AssertionError('imported')")
    info = folder / "vllm-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    assert run(folder, "--version").stdout == f"server-keys-vllm {version('server-keys')} (vLLM 0.32.0)\n"


def test_vllm_sees_no_argument_that_it_does_not_know(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    result = run(folder, "model", "--key-refresh-time-s", "9", "--key-share", "none", "--api-server-count", "1")
    child = servers(result)[0]
    assert child["args"] == [
        "api_server_count",
        "enable_log_outputs",
        "enable_log_requests",
        "grpc",
        "headless",
        "kv_events_config",
        "model_tag",
    ]


def test_vllm_s_own_usage_errors_are_vllm_s(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    result = run(folder, "model", "--no-such-option")
    assert result.returncode == 2
    assert "unrecognized arguments: --no-such-option" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "name", "value"),
    [
        (["--key-refresh-time-s", "nan"], {}, "--key-refresh-time-s", "nan"),
        (["--key-refresh-time-s=-inf"], {"SERVER_KEYS_REFRESH_TIME_S": "60"}, "--key-refresh-time-s", "-inf"),
        ([], {"SERVER_KEYS_REFRESH_TIME_S": "0"}, "SERVER_KEYS_REFRESH_TIME_S", "0"),
    ],
)
def test_a_wrong_refresh_time_ends_the_start_within_a_second(
    folder: Path, arguments: list[str], environment: dict[str, str], name: str, value: str
) -> None:
    # No vLLM at all: it is refused before one is looked for.
    before_s = cpu_time_of_children_s()
    result = run(folder, "model", *arguments, **environment)
    assert cpu_time_of_children_s() - before_s < 1.0
    assert result.returncode == 2
    usage, error = result.stderr.splitlines()
    assert usage.startswith("usage: server-keys-vllm ")
    reason = f"{name} must be a number of seconds from 0.01 to 31622400 (366 days), not {value!r}"
    assert error == f"server-keys-vllm: error: {reason}"


def test_without_vllm(folder: Path) -> None:
    line = refused(run(folder, "model"))
    assert line.startswith("server-keys: `vllm serve` cannot be run: ModuleNotFoundError: No module named 'vllm'")
    # No index has server-keys, so its extra is told by what it asks for.
    assert re.search(r'no vLLM is installed: pip install "vllm[^" ]+<0\.34[^" ]*" "uvicorn>=0\.50"\)$', line)


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--grpc"], {}, "--grpc serves without FastAPI"),
        (["--grp"], {}, "--grpc serves without FastAPI"),
        ([], {"VLLM_USE_RUST_FRONTEND": "1"}, "VLLM_USE_RUST_FRONTEND serves without FastAPI"),
        (["--omni"], {}, "--omni hands over to another package's server"),
    ],
)
def test_servers_without_an_app_that_holds_keys_are_refused(
    folder: Path, arguments: list[str], environment: dict[str, str], reason: str
) -> None:
    make_fake_vllm(folder, "0.32.0")
    assert reason in refused(run(folder, "model", *arguments, **environment))


def test_a_vllm_whose_build_app_is_elsewhere_is_refused(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    for module in (APP, ENTRY, RENDER):
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        path.write_text(path.read_text().replace("build_app", "assemble_app"))
    write(folder, OLD, "from vllm.entrypoints.launchers.app import assemble_app")
    line = refused(run(folder, "model"))
    assert "UnsupportedVllmError: there is no build_app in vllm.entrypoints.launchers.app or " in line
    assert line.endswith("(vLLM 0.32.0)")


def test_a_vllm_that_serves_with_another_build_app_is_refused(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    entry = folder.joinpath(*ENTRY.split(".")).with_suffix(".py")
    own_build_app = BUILD_APP.format(signature=SIGNATURES["0.32.0"])
    entry.write_text(entry.read_text().replace(f"from {APP} import build_app", own_build_app))
    line = refused(run(folder, "model"))
    assert f"{ENTRY} does not use the build_app of {APP}" in line


def test_a_vllm_that_does_not_serve_with_what_it_defines_is_refused(folder: Path) -> None:
    make_fake_vllm(folder, "0.28.0")
    write(folder, APP, BUILD_APP.format(signature="args"))
    line = refused(run(folder, "model"))
    assert f"there is no {ENTRY}" in line


def test_a_vllm_that_cannot_be_imported_is_refused(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    write(folder, "vllm.entrypoints.cli.launch", "def cmd_init(): return []")
    write(folder, RENDER, "import no_such_thing")
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in refused(run(folder, "model"))


@pytest.mark.parametrize("how", ["option", "variable"])
def test_an_identity_that_cannot_be_used_ends_the_start_in_one_line(folder: Path, how: str) -> None:
    make_fake_vllm(folder, "0.32.0")
    path = folder / "server.key"
    path.write_bytes(OtherSigner(bytes(32)).pem)
    path.chmod(0o644)
    arguments = ["--key-identity", str(path)] if how == "option" else []
    result = run(folder, "model", *arguments, **({} if arguments else {"SERVER_KEYS_IDENTITY": str(path)}))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = set(result.stderr.splitlines())
    assert line.startswith(f'server-keys: the identity file "{path}" can be read or written by every user')


def test_no_key_no_server(folder: Path) -> None:
    make_fake_vllm(folder, "0.32.0")
    write(folder, "sitecustomize", BREAK_THE_RANDOM_SOURCE)
    result = run(folder, "model")
    assert result.returncode == 1
    assert result.stdout == ""
    lines = set(result.stderr.splitlines())
    assert lines == {"server-keys: no key pair can be made: EntropyError: the pool is dry (vLLM 0.32.0)"}


BREAK_THE_RANDOM_SOURCE = """
import server_keys

class NoKeyPair:
    @staticmethod
    def generate() -> None:
        raise server_keys.EntropyError("the pool is dry")

server_keys.KeyPair = NoKeyPair
"""
