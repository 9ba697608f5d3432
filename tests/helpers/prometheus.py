"""A real Prometheus that scrapes servers each second, and answers the expressions of the dashboard."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from tests.helpers.served_command import running_command
from tests.helpers.server_processes import free_port

RATE_INTERVAL = "10s"
_PROGRAM = shutil.which("prometheus")


def has_prometheus() -> bool:
    """Return whether there is one."""
    return _PROGRAM is not None


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def answers(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """Return the series that an expression of the dashboard has, with a value for each second.

        Args:
            expression: it may have Grafana's variables.
            start: seconds since 1970.
            end: seconds since 1970.
        """
        for name, value in {"$__rate_interval": RATE_INTERVAL, "$job": ".*", "$instance": ".*"}.items():
            expression = expression.replace(name, value)
        query = {"query": expression, "start": str(start), "end": str(end), "step": "1"}
        answer = httpx2.get(f"{self._url}/api/v1/query_range", params=query).json()
        assert answer["status"] == "success", (expression, answer)
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series


@contextlib.contextmanager
def scraping(targets: list[str], folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `HOST:PORT`s. Its files are in a folder."""
    assert _PROGRAM is not None, "prometheus is missing: apt-get install prometheus"
    scrape = {"job_name": "chat", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    # YAML takes JSON.
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
    port = free_port()
    listening = f"127.0.0.1:{port}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = [_PROGRAM, *options, f"--web.listen-address={listening}", "--log.level=error"]
    with running_command(command, port, folder / "prometheus.log", folder=folder):
        wait_for(f"http://{listening}/-/ready")
        yield Prometheus(f"http://{listening}")


def wait_for(url: str) -> None:
    """Wait until a URL answers with 200."""
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url).status_code == 200:
                return
        assert time.monotonic() < until, url
        time.sleep(0.2)
