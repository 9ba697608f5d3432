"""The site, built once for the tests of this folder."""

import functools
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from docs.site.build import build
from tests.helpers.chromium import chromium


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("Zensical is missing: `pip install --group docs` brings it")
    folder = tmp_path_factory.mktemp("site") / "html"
    build(folder)
    return folder


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture(scope="session")
def url(site: Path) -> Iterator[str]:
    """The URL of the site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# Not for the session: while it is open, `asyncio.run` works nowhere in the process.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with chromium() as browser:
        yield browser
