"""The metrics of an app for Prometheus, and those of all workers that serve it, told together."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp

from server_keys import metrics

_GAUGE_OF_LIVING = re.compile(r"gauge_live.*_(\d+)\.db")


def metrics_page(app: FastAPI, folder: str | None) -> ASGIApp:
    """Return the page of the metrics of `app`, whose requests and keys are counted from now on.

    Args:
        app: an app with a key lifespan.
        folder: where the app's processes leave their metrics for each other, if there are several.
    """
    metrics.instrument(app)
    registry = REGISTRY
    if folder is not None:
        registry = CollectorRegistry()
        _LivingWorkers(registry, folder)
    page: ASGIApp = make_asgi_app(registry=registry)
    return page


class _LivingWorkers(MultiProcessCollector):
    """The metrics of all workers, without the keys of those that were killed."""

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        super().__init__(registry, folder)  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Any]:
        """Return what the workers have left in the folder."""
        for pid in _dead(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another worker is asked at the same time
                mark_process_dead(pid, self._folder)  # type: ignore[no-untyped-call]
        collected: Iterable[Any] = super().collect()  # type: ignore[no-untyped-call]
        return collected


def _dead(folder: str) -> Iterator[int]:
    """Yield the processes that have left files in a folder of metrics, and do not run any more."""
    found = {int(match[1]) for path in Path(folder).iterdir() if (match := _GAUGE_OF_LIVING.fullmatch(path.name))}
    for pid in found:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            yield pid
        except PermissionError:
            continue
