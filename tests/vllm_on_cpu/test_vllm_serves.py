"""Real vLLM servers with keys: started in each of the ways, talked to, and ended. Each start may take a minute."""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import BadRequestError, OpenAI

from server_keys.client import SealedTransport
from tests.helpers.scrape import samples
from tests.helpers.wire_tap import WireTap, tapped
from tests.vllm_on_cpu.vllm_server import (
    API_SERVER_MODULE,
    CONSOLE_SCRIPT,
    ENTRYPOINT,
    MODEL_NAME,
    VLLM_SERVE,
    Keys,
    VllmServer,
)


def openai(server: VllmServer, tap: WireTap | None) -> OpenAI:
    """Return a client of `server`, in the clear; with a `tap` on the wire, sealed."""
    if tap is None:
        return OpenAI(base_url=f"{server.url}/v1", api_key="none")
    sealing = httpx2.Client(transport=SealedTransport())
    return OpenAI(base_url=f"{tap.url}/v1", api_key="none", http_client=sealing, max_retries=0)


def chat(server: VllmServer, text: str, tokens: int, tap: WireTap | None = None) -> tuple[str, set[str]]:
    """Return what the model says, streamed, and the key ids that its server had meanwhile."""
    key_ids = set()
    with openai(server, tap) as client:
        stream = client.chat.completions.create(
            model=MODEL_NAME,
            messages=[{"role": "user", "content": text}],
            max_tokens=tokens,
            temperature=0,
            stream=True,
        )
        said = []
        for event in stream:
            said.append(event.choices[0].delta.content or "")
            key_ids.add(server.keys()["key_id"])
    return "".join(said), key_ids


def complete(server: VllmServer, text: str, tap: WireTap | None = None) -> str:
    with openai(server, tap) as client:
        completion = client.completions.create(model=MODEL_NAME, prompt=text, max_tokens=16, temperature=0)
    return str(completion.choices[0].text)


def see_a_rotation(server: VllmServer) -> tuple[Keys, Keys, float]:
    """Return the keys of one process before and after one rotation, and the seconds that lay between at most."""
    asked_at = time.monotonic()
    before = server.keys()
    end = asked_at + 30
    while time.monotonic() < end:
        asked_again_at = time.monotonic()
        after = server.keys()
        between_s = time.monotonic() - asked_at
        if after["pid"] == before["pid"]:
            if after["refreshes"] == before["refreshes"] + 1:
                return before, after, between_s
            before, asked_at = after, asked_again_at
        time.sleep(0.02)
    raise AssertionError(f"no rotation within 30 s after {before}")


def assert_rotates(server: VllmServer) -> None:
    before, after, between_s = see_a_rotation(server)
    assert after["previous_key_id"] == before["key_id"] != after["key_id"]
    assert after["age_s"] <= between_s
    assert after["failures"] == 0


def assert_talks(server: VllmServer) -> None:
    assert len(complete(server, "Who are you?")) == 16
    said, _ = chat(server, "Who are you?", 24)
    assert len(said) == 24
    assert chat(server, "Who are you?", 24)[0] == said


def assert_tells_of_its_keys(server: VllmServer, processes: int) -> None:
    """Assert that vLLM's own `/metrics` tells of the keys of all processes, and that the readiness check says yes."""
    assert json.loads(server.get("/health/keys")) == {"ready": True}
    before = samples(server.get("/metrics").decode())
    assert before["server_keys_available_rings"] == processes
    assert abs(time.time() - before["server_keys_key_created_timestamp_seconds"]) < 30
    with tapped(server.port) as tap:
        for _ in range(6):
            complete(server, "Who are you?", tap)
    after = samples(server.get("/metrics").decode())
    for name, more in (
        ('server_keys_requests_total{outcome="sealed"}', 6),
        ("server_keys_opening_seconds_count", 6),
        # That of the body, and the end frame.
        ('server_keys_frames_total{direction="received"}', 12),
    ):
        assert after[name] - before[name] == more, name


def assert_ended_cleanly(server: VllmServer, status: int) -> None:
    assert status == 0, server.log[-6000:]
    # An exception that nobody caught. What vLLM caught and logged has a level: it may lose sight of its own engine.
    assert re.search(r"^(\(.+ pid=\d+\) )?Traceback", server.log, re.MULTILINE) is None, server.log[-6000:]
    assert not re.search(r'File ".*server_keys', server.log)


def keys_of_one_epoch(server: VllmServer) -> tuple[Keys, Keys]:
    """Return what two processes hold while they publish the same key."""
    for _ in range(20):
        first, second = server.keys_by_process(2).values()
        if first["key_id"] == second["key_id"]:
            return first, second
    raise AssertionError(f"two processes publish different keys: {first} {second}")


def assert_all_erased(reports: list[Keys], count: int) -> None:
    assert len(reports) == count
    for report in reports:
        assert (report["closed"], report["tasks"]) == ([True], 0)
        assert len(report["erased"]) >= 2
        assert all(report["erased"])


@pytest.fixture(scope="module")
def entrypoint_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("entrypoint")
    options = [
        "--key_refresh_time_s",
        "3",
        "--key-overlap-s",
        "3",
        "--api-server-count",
        "2",
        "--shutdown-timeout",
        "30",
    ]
    with VllmServer(ENTRYPOINT, model, folder, *options) as server:
        yield server.wait_until_ready()


class TestEntrypointWithTwoApiServers:
    def test_both_processes_serve_one_ring(self, entrypoint_server: VllmServer) -> None:
        for keys in keys_of_one_epoch(entrypoint_server):
            assert (keys["period_s"], keys["overlap_s"], keys["refreshing_tasks"]) == (3.0, 3.0, 1)
            assert keys["sharing"]["shared"]
            assert keys["sharing"]["members"] == 2

    def test_500_sealed_calls_over_new_connections_meet_no_refusal(self, entrypoint_server: VllmServer) -> None:
        answers: Counter[tuple[str, int]] = Counter()
        pids = set()

        class Counting(httpx2.HTTPTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                response = super().handle_request(request)
                answers[request.url.path, response.status_code] += 1
                return response

        inner = Counting(limits=httpx2.Limits(max_keepalive_connections=0))
        prompt = {"model": MODEL_NAME, "prompt": "Who are you?", "max_tokens": 1}
        began = entrypoint_server.keys()["sharing"]["epoch"]
        with httpx2.Client(transport=SealedTransport(inner), timeout=60) as client:
            for _ in range(500):
                assert client.post(f"{entrypoint_server.url}/v1/completions", json=prompt).status_code == 200
                pids.add(entrypoint_server.keys()["pid"])
        assert len(pids) == 2, "one process answered all"
        assert entrypoint_server.keys()["sharing"]["epoch"] >= began + 2
        assert answers["/v1/completions", 200] == 500
        assert {status for _, status in answers} == {200}

    def test_keys_rotate(self, entrypoint_server: VllmServer) -> None:
        assert_rotates(entrypoint_server)

    def test_it_talks(self, entrypoint_server: VllmServer) -> None:
        assert_talks(entrypoint_server)

    def test_it_talks_sealed(self, entrypoint_server: VllmServer) -> None:
        in_the_clear = complete(entrypoint_server, "Who are you?")
        with tapped(entrypoint_server.port) as tap:
            for _ in range(4):
                assert complete(entrypoint_server, "Who are you?", tap) == in_the_clear
            heard = tap.heard
        # Each client asked for the key once: both processes accept it.
        assert heard.count(b"GET /.well-known/hpke-keys") == 4
        assert heard.count(b"POST /v1/completions") == 4

    def test_its_metrics_tell_of_both_processes(self, entrypoint_server: VllmServer) -> None:
        assert_tells_of_its_keys(entrypoint_server, 2)
        found = samples(entrypoint_server.get("/metrics").decode())
        assert (found["server_keys_shared_rings"], found["server_keys_group_members"]) == (2, 2)

    def test_sigterm_ends_it_cleanly_and_erases_every_key(self, entrypoint_server: VllmServer) -> None:
        status, reports = entrypoint_server.end(signal.SIGTERM)
        assert_ended_cleanly(entrypoint_server, status)
        assert_all_erased(reports, 2)


@pytest.fixture(scope="module")
def plugin_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("plugin")
    environment = {"VLLM_PLUGINS": "server_keys", "SERVER_KEYS_REFRESH_TIME_S": "2"}
    with VllmServer(VLLM_SERVE, model, folder, environment=environment) as server:
        yield server.wait_until_ready()


class TestPluginWithOneProcess:
    def test_keys_rotate(self, plugin_server: VllmServer) -> None:
        keys = plugin_server.keys()
        assert (keys["period_s"], keys["overlap_s"], keys["refreshing_tasks"]) == (2.0, 2.0, 1)
        assert_rotates(plugin_server)

    def test_it_talks_across_rotations(self, plugin_server: VllmServer) -> None:
        assert_talks(plugin_server)
        key_ids: set[str] = set()
        end = time.monotonic() + 30
        while len(key_ids) < 2 and time.monotonic() < end:
            said, during = chat(plugin_server, "Tell me a long story.", 400)
            assert len(said) == 400
            key_ids = during
        assert len(key_ids) >= 2

    def test_a_sealed_chat_across_a_rotation_says_nothing_to_the_wire(self, plugin_server: VllmServer) -> None:
        prompt, tokens = "Where did the smugglers hide the violin?", 400
        in_the_clear, _ = chat(plugin_server, prompt, tokens)
        with tapped(plugin_server.port) as tap:
            key_ids: set[str] = set()
            end = time.monotonic() + 30
            while len(key_ids) < 2 and time.monotonic() < end:
                said, key_ids = chat(plugin_server, prompt, tokens, tap)
                assert said == in_the_clear
            assert len(key_ids) >= 2
            assert complete(plugin_server, prompt, tap) == complete(plugin_server, prompt)
            heard = tap.heard
        assert heard.count(b"/v1/chat/completions") >= 1
        assert heard.lower().count(b"ehbp-response-nonce: ") >= 2
        assert len(heard) > 2 * tokens
        for length, text in ((12, prompt), (12, in_the_clear)):
            for start in range(len(text) - length):
                assert text[start : start + length].encode() not in heard

    def test_its_metrics_tell_of_its_keys(self, plugin_server: VllmServer) -> None:
        assert_tells_of_its_keys(plugin_server, 1)

    def test_sigint_ends_it_cleanly_and_erases_every_key(self, plugin_server: VllmServer) -> None:
        status, reports = plugin_server.end(signal.SIGINT)
        assert_ended_cleanly(plugin_server, status)
        assert_all_erased(reports, 1)


@pytest.fixture(scope="module")
def doubled_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("doubled")
    environment = {"VLLM_PLUGINS": "server_keys", "SERVER_KEYS_REFRESH_TIME_S": "60"}
    options = ["--key-refresh-time-s", "4", "--require-sealed", "--api-server-count", "2"]
    with VllmServer(CONSOLE_SCRIPT, model, folder, *options, environment=environment) as server:
        yield server.wait_until_ready()


class TestConsoleScriptAndPluginAtOnce:
    def test_nothing_is_doubled(self, doubled_server: VllmServer) -> None:
        assert doubled_server.log.count("Loaded endpoint plugin server_keys") == 2
        for keys in keys_of_one_epoch(doubled_server):
            assert (keys["period_s"], keys["overlap_s"], keys["refreshing_tasks"]) == (4.0, 4.0, 1)

    def test_keys_rotate(self, doubled_server: VllmServer) -> None:
        assert_rotates(doubled_server)

    def test_it_takes_sealed_bodies_alone(self, doubled_server: VllmServer) -> None:
        with pytest.raises(BadRequestError, match="this server takes bodies sealed with EHBP only"):
            complete(doubled_server, "Who are you?")
        with tapped(doubled_server.port) as tap:
            assert len(complete(doubled_server, "Who are you?", tap)) == 16

    def test_sigterm_ends_it_cleanly_though_vllm_kills_its_api_servers(self, doubled_server: VllmServer) -> None:
        status, _ = doubled_server.end(signal.SIGTERM)
        assert_ended_cleanly(doubled_server, status)


# As in vLLM's documentation of VLLM_LOGGING_CONFIG_PATH: it disables the loggers that it does not name.
LOGGING = {
    "version": 1,
    "handlers": {"stderr": {"class": "logging.StreamHandler", "level": "INFO", "stream": "ext://sys.stderr"}},
    "loggers": {"vllm": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}


@pytest.fixture(scope="module")
def leaking_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that is started in the old way, and told to give away what travels sealed."""
    folder = tmp_path_factory.mktemp("leaking")
    (folder / "logging.json").write_text(json.dumps(LOGGING))
    environment = {
        "VLLM_PLUGINS": "server_keys",
        "SERVER_KEYS_REQUIRE_SEALED": "1",
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
        "VLLM_LOGGING_CONFIG_PATH": str(folder / "logging.json"),
    }
    options = ["--enable-log-requests", "--enable-log-outputs"]
    with VllmServer(API_SERVER_MODULE, model, folder, *options, environment=environment) as server:
        yield server.wait_until_ready()


class TestPluginUnderTheOldCommand:
    def test_it_says_what_does_not_stay_sealed(self, leaking_server: VllmServer) -> None:
        said = re.findall(r"server-keys: .*", leaking_server.log)
        for begin in (
            "server-keys: --enable-log-requests writes the parameters of requests to vLLM's log in plaintext",
            "server-keys: --enable-log-outputs writes responses to vLLM's log in plaintext",
            "server-keys: VLLM_ENABLE_RESPONSES_API_STORE keeps responses",
        ):
            assert [line for line in said if line.startswith(begin)]
        assert len(said) == 3

    def test_vllm_logs_the_response_and_not_the_prompt(self, leaking_server: VllmServer) -> None:
        with tapped(leaking_server.port) as tap:
            said, _ = chat(leaking_server, "Where did the smugglers hide the violin?", 24, tap)
        assert repr(said) in leaking_server.log
        assert "smugglers" not in leaking_server.log

    def test_a_stored_response_is_fetched_in_plaintext_but_by_version_1(self, leaking_server: VllmServer) -> None:
        with tapped(leaking_server.port) as tap, openai(leaking_server, tap) as client:
            made = client.responses.create(model=MODEL_NAME, input="Who are you?", max_output_tokens=32)
            assert len(made.output_text) == 32
            assert client.responses.retrieve(made.id).output_text == made.output_text
        plaintext = json.dumps(made.output_text).encode()
        assert plaintext not in tap.heard
        assert plaintext in leaking_server.get(f"/v1/responses/{made.id}")
