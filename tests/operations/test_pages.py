"""What the pages for operators say in code does what they say."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from server_keys import protect
from server_keys.client import AsyncSealedTransport
from tests.helpers.scrape import samples
from tests.helpers.scripts import run_script
from tests.helpers.server_processes import ROOT

PAGES = ("operations.md", "behind-a-proxy.md", "testing.md")


def page(name: str) -> str:
    """Return the text of a page in docs/."""
    return (ROOT / "docs" / name).read_text()


def code_of(name: str, language: str = "python") -> list[str]:
    """Return the blocks of code of a page in docs/."""
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


def test_the_app_of_the_page_operations_has_metrics_and_a_readiness_check() -> None:
    (code,) = code_of("operations.md")
    end = """
from fastapi.testclient import TestClient

with TestClient(app) as client:
    print(client.get("/ready").status_code)
    print(client.get("/metrics").text)
"""
    ready, _, scrape = run_script(code + end).partition("\n")
    assert ready == "200"
    assert samples(scrape)["server_keys_available_rings"] == 1


def test_the_paths_that_the_page_operations_opens_suffice_where_version_1_is_required() -> None:
    (code,) = code_of("operations.md")
    (protected,) = re.findall(r"`(protect\(app, required=.*?\))`", page("operations.md"))
    end = """
from fastapi.testclient import TestClient

with TestClient(app) as client:
    print([client.get(path).status_code for path in ("/ready", "/metrics", "/other")])
"""
    changed = code.replace("\nprotect(app)\n", f"\n{protected}\n")
    assert changed != code
    assert run_script(f"{changed}\nimport logging\nlogging.disable()\n{end}") == "[200, 200, 400]\n"


def test_the_probe_of_the_page_operations_asks_for_the_path_of_its_app() -> None:
    (probe,) = code_of("operations.md", "yaml")
    assert "path: /ready," in probe
    assert 'add_api_route("/ready", ready)' in code_of("operations.md")[0]


def test_the_tests_of_the_page_testing_pass(tmp_path: Path) -> None:
    app, tests = code_of("testing.md")
    (tmp_path / "chat.py").write_text(app)
    (tmp_path / "test_chat.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_chat.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tests.count('def test_')} passed" in done.stdout


def test_the_openai_sdk_talks_to_an_app_as_the_page_testing_says() -> None:
    assert 'AsyncOpenAI(base_url="http://chat/v1", api_key="unused", http_client=client)' in page("testing.md")
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": request["messages"][0]["content"][::-1]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}

    protect(app, required=True)

    async def main() -> str | None:
        transport = AsyncSealedTransport(httpx2.ASGITransport(app))
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://chat") as client,
            AsyncOpenAI(base_url="http://chat/v1", api_key="unused", http_client=client) as openai,
        ):
            answer = await openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
            content: str | None = answer.choices[0].message.content
            return content

    assert asyncio.run(main()) == "cba"


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    for target, _, anchor in re.findall(r"\]\(((?!https?://)[^)#]*)(#([^)]*))?\)", page(name)):
        path = (ROOT / "docs" / name).parent / target if target else ROOT / "docs" / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, (
                anchor
            )
