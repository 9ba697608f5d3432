"""The Compose and Kubernetes files of the examples are what Compose and Kubernetes take, and their proxies run."""

import re
from pathlib import Path
from urllib.request import urlopen

import compose_spec
import httpx2
import kubernetes_validate
import pytest

from server_keys.client import sealed_client
from tests.examples.conftest import Server
from tests.examples.manifests import COMPOSE, KUBERNETES, Container, containers, documents
from tests.helpers.commands import serving
from tests.helpers.servers import STANDARD, running
from tests.helpers.upstream_app import Upstream

PROXIES = [container for container in containers() if container.command[:1] == ("server-keys",)]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_compose_takes_the_file(path: Path) -> None:
    compose = compose_spec.PyCompose.from_yaml(path.read_text())
    compose.validate()
    assert compose.service_names() == list(documents(path)[0]["services"])


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.parent.name)
def test_kubernetes_takes_the_file(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_mistake_is_found_in_either() -> None:
    with pytest.raises(ValueError, match="networ_mode"):
        compose_spec.PyCompose.from_yaml("services:\n  a:\n    image: b\n    networ_mode: host\n")
    document = documents(KUBERNETES[0])[0]
    document["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("proxy", PROXIES, ids=str)
def test_the_proxy_of_the_file_passes_a_sealed_request_on(proxy: Container, server: Server) -> None:
    options = dict(zip(proxy.command[2::2], proxy.command[3::2], strict=True))
    assert set(options) >= {"--to", "--listen"}
    own = {option: "127.0.0.1:0" for option in options if option in ("--listen", "--status-listen")}
    given = options | {"--to": server.url} | own
    with serving(proxy.command[1], *(word for option in given.items() for word in option)) as running:
        url = running.url
        question = {"model": "toy-rambler", "messages": [{"role": "user", "content": "Hello"}]}
        if proxy.command[1] == "open":  # it opens, so the server behind sees plaintext
            assert urlopen(f"{url}/.well-known/hpke-keys").status == 200
            with sealed_client(key_url=f"{url}/.well-known/hpke-keys") as client:
                answer = client.post(f"{url}/v1/chat/completions", json=question)
                assert "Ehbp-Response-Nonce" in answer.headers
            assert server.calls == [("/v1/chat/completions", False)]
        else:
            with httpx2.Client() as client:
                answer = client.post(f"{url}/v1/chat/completions", json=question)
            assert server.sealed_chats() == 1
        assert answer.json()["choices"][0]["message"]["content"]


def test_plaintext_is_on_no_network() -> None:
    assert {str(proxy) for proxy in PROXIES} == {
        "open_webui/compose/seal",
        "proxy/compose/open",
        "proxy/kubernetes/open",
    }
    for proxy in PROXIES:
        option = "--to" if proxy.command[1] == "open" else "--listen"
        words = dict(zip(proxy.command[2::2], proxy.command[3::2], strict=True))
        assert re.fullmatch(r"(http://)?127\.0\.0\.1:\d+", words[option]), proxy
        if proxy.file.name == "compose.yaml":
            others = [service for name, service in documents(proxy.file)[0]["services"].items() if name != proxy.name]
            assert [other["network_mode"] for other in others] == [f"service:{proxy.name}"]


def test_the_probe_asks_where_the_proxy_tells_of_itself() -> None:
    (path,) = [path for path in KUBERNETES if path.parent.name == "proxy"]
    (deployment,) = [each for each in documents(path) if each["kind"] == "Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    ports = {port.get("name"): port["containerPort"] for port in container["ports"]}
    probe = container["readinessProbe"]["httpGet"]
    assert container["args"] == ["--status-listen", f"0.0.0.0:{ports[probe['port']]}"]
    (service,) = [each for each in documents(path) if each["kind"] == "Service"]
    assert [port["port"] for port in service["spec"]["ports"]] == [ports[None]]
    with (
        running(Upstream(), STANDARD) as url,
        serving("open", "--to", url, "--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0") as opened,
    ):
        _ = opened.url
        own = opened.log.partition("; on ")[2].partition(": /ready")[0]
        assert httpx2.get(own + probe["path"]).status_code == 200


def test_the_model_listens_where_its_proxy_asks() -> None:
    models = [container for container in containers() if container.name == "model"]
    assert len(models) == 2
    for model in models:
        words = model.command
        listens = f"http://{words[words.index('--host') + 1]}:{words[words.index('--port') + 1]}"
        (proxy,) = [proxy for proxy in PROXIES if proxy.file == model.file]
        assert proxy.command[proxy.command.index("--to") + 1] == listens


def test_open_webui_asks_its_proxy() -> None:
    (seal,) = [proxy for proxy in PROXIES if proxy.command[1] == "seal"]
    settings = documents(seal.file)[0]["services"]["open-webui"]["environment"]
    listens = seal.command[seal.command.index("--listen") + 1]
    assert settings["OPENAI_API_BASE_URL"] == f"http://{listens}/v1"
    assert settings["ENABLE_PERSISTENT_CONFIG"] == "false"
