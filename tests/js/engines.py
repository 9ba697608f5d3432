"""The JavaScript engines that the browser's client is tested in: Chromium and Node."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.helpers.chromium import chromium, needs_chromium
from tests.helpers.servers import running

JS = Path(__file__).parents[2] / "js"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="Node is missing: `apt-get install nodejs` brings it"
)
ENGINES = [pytest.param("chromium", marks=needs_chromium), pytest.param("node", marks=needs_node)]


class Engine(Protocol):
    """Runs JavaScript."""

    def run(self, function: str, **inputs: object) -> Any:
        """Call an async function with `inputs` and `base`, the URL of the modules; return what it resolves to."""


class ChromiumEngine:
    """Runs JavaScript in a page whose server has nothing but the modules."""

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self._url = url

    def run(self, function: str, **inputs: object) -> Any:
        self._page.goto(self._url)  # a new page: what the last run left is gone
        return self._page.evaluate(function, {"base": f"{self._url}/js", **inputs})


class NodeEngine:
    """Runs JavaScript in a Node process of its own."""

    def run(self, function: str, **inputs: object) -> Any:
        given = json.dumps({"base": JS.as_uri(), **inputs})
        script = f"const run = {function.strip()};\nconsole.log(JSON.stringify(await run({given})) ?? null);"
        ran = subprocess.run(
            ["node", "--no-warnings", "--input-type=module", "--eval", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@contextmanager
def engine_named(name: str) -> Iterator[Engine]:
    """Yield one of ENGINES."""
    if name == "node":
        yield NodeEngine()
        return
    blank = Route("/", lambda _: HTMLResponse("<!doctype html><title>blank</title>"))
    with running(Starlette(routes=[blank, Mount("/js", StaticFiles(directory=JS))])) as url, chromium() as browser:
        yield ChromiumEngine(browser.new_page(), url)
