"""Draws docs/dashboard.png: `python -m benches.dashboard`, with a `prometheus` on the path. It takes three minutes.

Two servers that share their keys serve chats while clients with strange keys come, the store goes away, and one client
sends plaintext. A real Prometheus scrapes them, and answers the expressions of docs/grafana-dashboard.json. Only the
drawing is not Grafana's.
"""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import matplotlib as mpl

from server_keys import KeyRing
from server_keys.client import sealed_client
from tests.helpers.sealed_requests import Client
from tests.helpers.server_processes import ROOT, free_port

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
PICTURE = ROOT / "docs" / "dashboard.png"
REFRESH_S = 20
STRANGERS_S = (45, 60)
STORE_AWAY_S = (75, 125)
PLAINTEXT_S = (130, 140)
END_S = 160
RATE_INTERVAL = "10s"
STEP_S = 1


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url).status_code == 200:
                return
        assert time.monotonic() < until, url
        time.sleep(0.2)


def call(urls: list[str], folder: Path) -> None:
    """Be the clients, and everything that happens, for the time of the run."""
    began, calls = time.monotonic(), 0

    def within(times: tuple[int, int]) -> bool:
        return times[0] <= time.monotonic() - began < times[1]

    with sealed_client() as client:
        while time.monotonic() - began < END_S:
            calls += 1
            url = urls[calls % len(urls)]
            client.post(f"{url}/stream", content=b"%d" % (20 + calls % 60)).raise_for_status()
            if within(STRANGERS_S):
                stranger = Client(KeyRing(300).current)
                httpx2.post(f"{url}/echo", headers=dict(stranger.headers), content=stranger.seal(b"x")[0])
            if within(PLAINTEXT_S):
                httpx2.post(f"{url}/echo", content=b"in the clear")
            if within(STORE_AWAY_S) and folder.is_dir():
                shutil.rmtree(folder)
                folder.write_text("no folder")
            elif not within(STORE_AWAY_S) and folder.is_file():
                folder.unlink()
            time.sleep(0.05)


def answers(prometheus: str, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """Return the series that Prometheus answers to an expression of the dashboard."""
    for name, value in {"$__rate_interval": RATE_INTERVAL, "$job": ".*", "$instance": ".*"}.items():
        expression = expression.replace(name, value)
    query = {"query": expression, "start": str(start), "end": str(end), "step": str(STEP_S)}
    answer = httpx2.get(f"{prometheus}/api/v1/query_range", params=query).json()
    assert answer["status"] == "success", (expression, answer)
    series: list[dict[str, Any]] = answer["data"]["result"]
    return series


def legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def draw(prometheus: str, start: float, end: float) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(16, height * 0.46), layout=None)
    for panel in panels:
        at = panel["gridPos"]
        bottom = 1 - (at["y"] + at["h"] - 0.9) / (height + 1.5) - 1.5 / (height + 1.5)
        box = (at["x"] / 24 + 0.035, bottom, at["w"] / 24 - 0.05, (at["h"] - 2.6) / (height + 1.5))
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=10, loc="left")
        lines = [
            (legend(target["legendFormat"], series["metric"]), series["values"])
            for target in panel["targets"]
            for series in answers(prometheus, target["expr"], start, end)
        ]
        if panel["type"] == "stat":
            axes.axis("off")
            axes.text(0.5, 0.4, shown(float(lines[0][1][-1][1]), panel["fieldConfig"]["defaults"]["unit"]), size=24)
            continue
        for name, values in lines:
            axes.plot([at_s - start for at_s, _ in values], [float(value) for _, value in values], label=name, lw=1.2)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # the legend has its place above the lines
        axes.set_xlim(0, end - start)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.set_ylabel(panel["fieldConfig"]["defaults"]["unit"], fontsize=7)
        if lines:
            axes.legend(fontsize=7, loc="upper left", ncols=3, framealpha=0.7)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    figure.text(
        0.01,
        1 - 1 / (height + 1.5),
        f"The panels of docs/grafana-dashboard.json, answered by a real Prometheus over {end - start:.0f} s of a "
        f"real run on {today}, and drawn by matplotlib (not by Grafana).\n"
        f"Two servers share keys (refresh time {REFRESH_S} s). "
        f"Strange keys from {STRANGERS_S[0]} s to {STRANGERS_S[1]} s, the store away from {STORE_AWAY_S[0]} s to "
        f"{STORE_AWAY_S[1]} s, plaintext from {PLAINTEXT_S[0]} s to {PLAINTEXT_S[1]} s.",
        size=10,
    )
    figure.savefig(PICTURE, dpi=75)


def shown(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "percentunit" else f"{value:.3g}"


def main() -> None:
    program = shutil.which("prometheus")
    assert program is not None, "prometheus is missing: apt-get install prometheus"
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        ports = [free_port() for _ in range(3)]
        share = folder / "group"
        environment = {"MEASURED_APP_SHARE": f"file://{share}", "MEASURED_APP_REFRESH_S": str(REFRESH_S)}
        for port in ports[:2]:
            command = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--port", str(port)]
            stack.enter_context(running([*command, "tests.helpers.measured_app:app"], **environment))
        targets = [f"127.0.0.1:{port}" for port in ports[:2]]
        scrape = {"job_name": "chat", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
        # YAML takes JSON.
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
        listening = f"127.0.0.1:{ports[2]}"
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        stack.enter_context(running([program, *options, f"--web.listen-address={listening}", "--log.level=error"]))
        for target in targets:
            wait_for(f"http://{target}/ready")
        wait_for(f"http://{listening}/-/ready")
        start = time.time()
        clients = threading.Thread(target=call, args=([f"http://{target}" for target in targets], share))
        clients.start()
        clients.join()
        draw(f"http://{listening}", start, time.time())


if __name__ == "__main__":
    main()
