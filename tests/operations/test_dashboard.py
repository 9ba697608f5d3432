"""The dashboard and the alarms in docs/ ask for metrics that exist, and the alarms sound when they should."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server_keys import metrics
from server_keys.client import sealed_client
from tests.helpers.prometheus import has_prometheus, scraping, wait_for
from tests.helpers.served_command import running_command
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.signed_answers import OtherSigner

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
ALERTS = ROOT / "docs" / "prometheus-alerts.yml"
PROMTOOL = shutil.which("promtool")

METRIC = re.compile(r"\bserver_keys_\w+")
LABELLED = re.compile(r"(server_keys_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*=~?\s*"([^"]*)"')
# What Prometheus adds to every series.
OF_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def samples() -> dict[str, list[dict[str, str]]]:
    """The labels of each series that a scrape sees, by its name."""
    registry = CollectorRegistry()
    metrics.instrument(FastAPI(), registry=registry)
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


EXPRESSIONS = [*dashboard_expressions(), ALERTS.read_text()]


def test_there_are_expressions() -> None:
    assert sum(len(METRIC.findall(expression)) for expression in EXPRESSIONS) > 30


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_names_metrics_and_labels_that_exist(
    expression: str, samples: dict[str, list[dict[str, str]]]
) -> None:
    assert set(METRIC.findall(expression)) <= set(samples)
    for name, selector in LABELLED.findall(expression):
        for label, values in MATCHER.findall(selector):
            if label not in OF_PROMETHEUS:
                known = {labels[label] for labels in samples[name]}
                assert set(values.split("|")) <= known, (name, label)
    for label in re.findall(r"by \((\w+)\)", expression):
        named = METRIC.findall(expression)
        assert label in OF_PROMETHEUS or all(label in labels for name in named for labels in samples[name]), label


def test_each_metric_is_on_the_dashboard(samples: dict[str, list[dict[str, str]]]) -> None:
    shown = {name for expression in dashboard_expressions() for name in METRIC.findall(expression)}
    assert shown >= {name for name in samples if not name.endswith("_created")}


def test_each_metric_is_explained_in_the_page(samples: dict[str, list[dict[str, str]]]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    families = {re.sub("_(bucket|sum|count|created)$", "", name) for name in samples}
    missing = {name for name in families if f"`{name}`" not in page and f"`{name}_total`" not in page}
    assert not missing


def test_each_panel_has_a_number_of_its_own_and_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert set(taken.values()) == {1}
    assert max(x for x, _ in taken) < 24


@pytest.mark.skipif(not has_prometheus(), reason="prometheus is not installed")
def test_a_real_prometheus_has_an_answer_to_each_expression(tmp_path: Path) -> None:
    (tmp_path / "seed").write_bytes(bytes(32))
    port = free_port()
    environment = {
        "MEASURED_APP_SHARE": f"file://{tmp_path}/group",
        "MEASURED_APP_SEED": str(tmp_path / "seed"),
        "MEASURED_APP_REFRESH_S": "3",
    }
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "tests.helpers.measured_app:app"]
    with (
        running_command(command, port, tmp_path / "log", folder=ROOT, environment=environment),
        scraping([f"127.0.0.1:{port}"], tmp_path) as prometheus,
        sealed_client(identity=OtherSigner(bytes(32)).identity) as client,
    ):
        wait_for(f"http://127.0.0.1:{port}/ready")
        start = time.time()
        while time.time() - start < 8:
            assert client.post(f"http://127.0.0.1:{port}/echo", content=b"sealed").content == b"sealed"
            time.sleep(0.1)
        panels = json.loads(DASHBOARD.read_text())["panels"]
        for panel in panels:
            for target in panel["targets"]:
                found = prometheus.answers(target["expr"], start, time.time())
                values = [float(value) for one in found for _, value in one["values"]]
                assert not all(map(math.isnan, values)), (panel["title"], target["expr"])


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    shown = ",".join(f'{label}="{value}"' for label, value in {"job": "chat", "instance": "a", **labels}.items())
    return {"series": f"server_keys_{name}{{{shown}}}", "values": values}


# As good as the +Inf of a process without a key; promtool takes no infinite samples.
FAR_FUTURE = 4_000_000_000

# In each: the series, a sample every 15 s; after how many minutes the alarm is looked for; whether it sounds.
CASES: list[tuple[str, list[dict[str, str]], int, bool]] = [
    ("ServerKeysNoKey", [series("available_rings", "1x3 0x20")], 3, True),
    ("ServerKeysNoKey", [series("available_rings", "1x40")], 3, False),
    (
        "ServerKeysKeyOverdue",
        [series("key_created_timestamp_seconds", "0x60"), series("refresh_period_seconds", "300x60")],
        8,
        True,
    ),
    (
        "ServerKeysKeyOverdue",
        [series("key_created_timestamp_seconds", "0x19 300x60"), series("refresh_period_seconds", "300x80")],
        8,
        False,
    ),
    (
        "ServerKeysKeyOverdue",  # an app without keys has another alarm
        [series("key_created_timestamp_seconds", f"{FAR_FUTURE}x60"), series("refresh_period_seconds", "0x60")],
        8,
        False,
    ),
    ("ServerKeysRefreshFails", [series("refresh_failures_total", "0x3 1x20")], 3, True),
    ("ServerKeysNotSigned", [series("signing_failures_total", "0x3 1x20")], 3, True),
    ("ServerKeysNotSigned", [series("signing_failures_total", "7x40"), series("unsigned_rings", "1x40")], 9, True),
    ("ServerKeysNotSigned", [series("signing_failures_total", "7x40"), series("unsigned_rings", "0x40")], 9, False),
    (
        "ServerKeysKeyMismatch",
        [
            series("refusals_total", "0+10x80", reason="key_mismatch"),
            series("requests_total", "0+90x80", outcome="sealed"),
            series("requests_total", "0+10x80", outcome="refused"),
        ],
        15,
        True,
    ),
    (
        "ServerKeysKeyMismatch",
        [
            series("refusals_total", "0+1x80", reason="key_mismatch"),
            series("requests_total", "0+99x80", outcome="sealed"),
            series("requests_total", "0+1x80", outcome="refused"),
        ],
        15,
        False,
    ),
    ("ServerKeysMalformed", [series("refusals_total", "0+2x80", reason="malformed")], 10, True),
    ("ServerKeysMalformed", [series("refusals_total", "0+2x80", reason="key_mismatch")], 10, False),
    ("ServerKeysPlaintext", [series("requests_total", "0x3 1x40", outcome="plaintext")], 3, True),
    ("ServerKeysPlaintext", [series("refusals_total", "0x3 1x40", reason="plaintext")], 3, True),
    ("ServerKeysPlaintext", [series("requests_total", "0+9x40", outcome="without_body")], 3, False),
    ("ServerKeysReplayed", [series("refusals_total", "0+2x80", reason="replayed")], 10, True),
    ("ServerKeysReplayed", [series("refusals_total", "0x3 1x80", reason="replayed")], 10, False),
    ("ServerKeysNotRemembered", [series("refusals_total", "0x3 1x40", reason="replay_table_full")], 3, True),
    ("ServerKeysNotRemembered", [series("refusals_total", "0x3 1x40", reason="replay_table_lost")], 3, True),
    ("ServerKeysNotRemembered", [series("refusals_total", "0x3 1x40", reason="replay_store_away")], 3, True),
    ("ServerKeysNotRemembered", [series("refusals_total", "0+2x80", reason="replayed")], 10, False),
    ("ServerKeysMemoryFull", [series("refusals_total", "0+2x80", reason="given_up")], 10, True),
    ("ServerKeysMemoryFull", [series("refusals_total", "0+2x80", reason="buffers_full")], 10, True),
    ("ServerKeysMemoryFull", [series("refusals_total", "0+2x80", reason="malformed")], 10, False),
    (
        "ServerKeysNotShared",
        [
            series("shared_rings", "1x40"),
            series("available_rings", "2x40"),
            series("group_members", "2x40"),
            series("group_contact_timestamp_seconds", "0+15x40"),
        ],
        5,
        True,
    ),
    (
        "ServerKeysNotShared",  # it started while the store was away, and has seen no group yet
        [
            series("shared_rings", "0x40"),
            series("available_rings", "1x40"),
            series("group_members", "0x40"),
            series("group_contact_timestamp_seconds", "0x40"),
        ],
        5,
        True,
    ),
    (
        "ServerKeysNotShared",  # no group, so nothing to share
        [
            series("shared_rings", "0x40"),
            series("available_rings", "2x40"),
            series("group_members", "0x40"),
            series("group_contact_timestamp_seconds", f"{FAR_FUTURE}x40"),
        ],
        5,
        False,
    ),
    (
        "ServerKeysStoreAway",
        [series("group_contact_timestamp_seconds", "0x40"), series("group_members", "2x40")],
        3,
        True,
    ),
    (
        "ServerKeysStoreAway",  # it started while the store was away, and has seen no group yet
        [series("group_contact_timestamp_seconds", "0x40"), series("group_members", "0x40")],
        3,
        True,
    ),
    (
        "ServerKeysStoreAway",
        [series("group_contact_timestamp_seconds", f"{FAR_FUTURE}x40"), series("group_members", "0x40")],
        3,
        False,
    ),
]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool, which comes with Prometheus, is not installed")
@pytest.mark.parametrize(
    ("alert", "input_series", "minutes", "sounds"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES]
)
def test_an_alarm_sounds_when_it_should(
    tmp_path: Path, alert: str, input_series: list[dict[str, str]], minutes: int, sounds: bool
) -> None:
    result = alerts_of(tmp_path, input_series, minutes)
    assert (alert in result) is sounds, result


def alerts_of(folder: Path, input_series: list[dict[str, str]], minutes: int) -> set[str]:
    """Return the alarms that sound at a time, by what promtool misses where none of them is expected."""
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    test: dict[str, Any] = {
        "interval": "15s",
        "input_series": input_series,
        "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []} for name in names],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]}))
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert ("SUCCESS" in said) == (done.returncode == 0), said
    failed = set(re.findall(r"alertname: (\w+), time", said))
    assert bool(failed) == (done.returncode != 0), said
    return failed
