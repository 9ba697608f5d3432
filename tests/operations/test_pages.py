"""What the pages for operators say in code does what they say."""

import re

from tests.helpers.scrape import samples
from tests.helpers.scripts import run_script
from tests.helpers.server_processes import ROOT


def code_of(page: str, language: str = "python") -> list[str]:
    """Return the blocks of code of a page in docs/."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


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


def test_the_probe_of_the_page_operations_asks_for_the_path_of_its_app() -> None:
    (probe,) = code_of("operations.md", "yaml")
    assert "path: /ready," in probe
    assert 'add_api_route("/ready", ready)' in code_of("operations.md")[0]
