"""Draws docs/dashboard.png: `python -m benches.dashboard`, with a `prometheus` on the path. It takes three minutes.

Two servers that share their keys and have an identity serve chats while all happens that the panels are for: the
signer goes away, strange keys come, requests are sent twice, the store goes away, a client sends plaintext, others
leave half of a frame. A real Prometheus scrapes them, and answers the expressions of docs/grafana-dashboard.json. Only
the drawing is not Grafana's.
"""

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import matplotlib as mpl

from server_keys import KeyRing
from server_keys.client import sealed_client
from tests.helpers.prometheus import Prometheus, scraping, wait_for
from tests.helpers.sealed_requests import Client, ClientV1
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.signed_answers import OtherSigner

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
PICTURE = ROOT / "docs" / "dashboard.png"
REFRESH_S = 20
SIGNER_AWAY_S = (15, 38)
STRANGERS_S = (45, 55)
REPLAYS_S = (62, 70)
STORE_AWAY_S = (78, 125)
PLAINTEXT_S = (130, 138)
HALF_SENT_S = (142, 158)
END_S = 170
MIB = 1024 * 1024
MAX_BUFFERED_BYTES = 64 * MIB
# Each leaves 1 MiB: more than a server keeps.
HALF_SENT = 80
# The caption's height, in the units of Grafana's grid.
CAPTION = 2.5
# In a panel with more lines, those that stay at zero are left out.
MOST_LINES = 6


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def call(urls: list[str], folder: Path, seed: Path) -> None:
    """Be the clients, and everything that happens, for the time of the run.

    Args:
        urls: the servers.
        folder: where they share their keys.
        seed: the file of what signs.
    """
    began, calls = time.monotonic(), 0
    idle: list[socket.socket] = []

    def within(times: tuple[int, int]) -> bool:
        return times[0] <= time.monotonic() - began < times[1]

    with sealed_client(identity=OtherSigner(seed.read_bytes()).identity) as client:
        while time.monotonic() - began < END_S:
            calls += 1
            url = urls[calls % len(urls)]
            client.post(f"{url}/stream", content=b"%d" % (20 + calls % 60))
            if within(SIGNER_AWAY_S) and seed.exists():
                seed.rename(seed.with_suffix(".away"))
            elif not within(SIGNER_AWAY_S) and not seed.exists():
                seed.with_suffix(".away").rename(seed)
            if within(STRANGERS_S):
                stranger = Client(KeyRing(300).current)
                httpx2.post(f"{url}/echo", headers=dict(stranger.headers), content=stranger.seal(b"x")[0])
            if within(REPLAYS_S):
                answer = httpx2.get(f"{url}/.well-known/hpke-keys").content
                recorded = ClientV1.of_answer(answer, "POST", "/echo")
                body = b"".join(recorded.seal(b"x"))
                for _ in range(2):
                    httpx2.post(f"{url}/echo", headers=dict(recorded.headers), content=body)
            if within(PLAINTEXT_S):
                httpx2.post(f"{url}/echo", content=b"in the clear")
            if within(HALF_SENT_S) and len(idle) < HALF_SENT:
                idle.append(half_a_frame(urls[0]))
            elif not within(HALF_SENT_S):
                while idle:
                    idle.pop().close()
            if within(STORE_AWAY_S) and folder.is_dir():
                shutil.rmtree(folder)
                folder.write_text("no folder")
            elif not within(STORE_AWAY_S) and folder.is_file():
                folder.unlink()
            time.sleep(0.05)


def half_a_frame(url: str) -> socket.socket:
    """Return a connection on which half of a frame of 2 MiB was sent. The key does not matter before it is whole."""
    (header,) = Client(KeyRing(300).current).headers
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST /echo HTTP/1.1\r\nHost: {host}\r\n{': '.join(header)}\r\nContent-Length: {4 + 2 * MIB}\r\n\r\n"
    connection.sendall(head.encode() + (2 * MIB).to_bytes(4, "big") + bytes(MIB))
    return connection


def legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def draw(prometheus: Prometheus, start: float, end: float) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import EngFormatter

    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + CAPTION
    figure = plt.figure(figsize=(16, height * 0.4), layout=None)
    for panel in panels:
        at = panel["gridPos"]
        bottom = 1 - (CAPTION + at["y"] + at["h"] - 0.8) / height
        box = (at["x"] / 24 + 0.035, bottom, at["w"] / 24 - 0.05, (at["h"] - 2.1) / height)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=10, loc="left")
        lines = [
            (legend(target["legendFormat"], series["metric"]), series["values"])
            for target in panel["targets"]
            for series in prometheus.answers(target["expr"], start, end)
        ]
        assert lines, panel["title"]
        if panel["type"] == "stat":
            axes.axis("off")
            axes.text(0.5, 0.4, shown(float(lines[0][1][-1][1]), panel["fieldConfig"]["defaults"]["unit"]), size=24)
            continue
        if len(lines) > MOST_LINES:
            lines = [(name, values) for name, values in lines if any(float(value) for _, value in values)]
        for name, values in lines:
            axes.plot([at_s - start for at_s, _ in values], [float(value) for _, value in values], label=name, lw=1.2)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # the legend has its place above the lines
        axes.set_xlim(0, end - start)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        if panel["fieldConfig"]["defaults"]["unit"] in ("bytes", "Bps"):
            axes.yaxis.set_major_formatter(EngFormatter())
        axes.set_ylabel(panel["fieldConfig"]["defaults"]["unit"], fontsize=7)
        axes.legend(fontsize=7, loc="upper left", ncols=3, framealpha=0.7)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    figure.text(
        0.01,
        1 - 1.9 / height,
        f"The panels of docs/grafana-dashboard.json, answered by a real Prometheus over {end - start:.0f} s of a "
        f"real run on {today}, and drawn by matplotlib (not by Grafana).\n"
        f"Two servers share keys (refresh time {REFRESH_S} s). The signer is away {between(SIGNER_AWAY_S)}, "
        f"strange keys come {between(STRANGERS_S)}, requests twice {between(REPLAYS_S)},\n"
        f"the store is away {between(STORE_AWAY_S)}, plaintext comes {between(PLAINTEXT_S)}, and {HALF_SENT} "
        "connections,\n"
        f"one after the other, leave 1 MiB each of a frame {between(HALF_SENT_S)}. Reasons that did not occur are not "
        "drawn.",
        size=10,
    )
    figure.savefig(PICTURE, dpi=75)


def between(times: tuple[int, int]) -> str:
    return f"from {times[0]} s to {times[1]} s"


def shown(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "percentunit" else f"{value:.3g}"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        share, seed = folder / "group", folder / "seed"
        seed.write_bytes(os.urandom(32))
        targets = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        environment = {
            "MEASURED_APP_SHARE": f"file://{share}",
            "MEASURED_APP_REFRESH_S": str(REFRESH_S),
            "MEASURED_APP_MAX_BUFFERED_BYTES": str(MAX_BUFFERED_BYTES),
            "MEASURED_APP_SEED": str(seed),
        }
        for target in targets:
            command = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--port", target.partition(":")[2]]
            stack.enter_context(running([*command, "tests.helpers.measured_app:app"], **environment))
        for target in targets:
            wait_for(f"http://{target}/ready")
        prometheus = stack.enter_context(scraping(targets, folder))
        start = time.time()
        clients = threading.Thread(target=call, args=([f"http://{target}" for target in targets], share, seed))
        clients.start()
        clients.join()
        draw(prometheus, start, time.time())


if __name__ == "__main__":
    main()
