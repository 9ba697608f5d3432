"""What Prometheus may know: the age of keys, refreshes, requests by outcome, and the group that shares a ring.

`instrument(app)` before the app serves. vLLM's app is instrumented without it. The metrics are ordinary ones of
`prometheus_client`, so they work in its multiprocess mode, too. Times are Unix timestamps, not ages: an age would be
that of the last update, and look young for ever in a process that hangs.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import ParamSpec
from weakref import WeakKeyDictionary

from fastapi.applications import FastAPI

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.metrics import MetricWrapperBase
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "server_keys.metrics needs prometheus_client, which is not installed: pip install prometheus_client, or "
        "install server-keys with its extra `metrics`",
        name=_error.name,
    ) from _error

from server_keys._keys.app_ring import watch_rings_of
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.ring import KeyRing
from server_keys._log import logger
from server_keys._ring_gauges import RING_GAUGES
from server_keys._sealing.recorder import Measured, Outcome, record_requests_of, recorder_of
from server_keys._sealing.refusals import REASONS

__all__ = ["instrument"]

# From a chat's one small frame, which opens in some 0.1 ms, to bodies of a hundred megabytes.
_OPENING_BUCKETS_S = (0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


def instrument(app: FastAPI, *, registry: CollectorRegistry | None = None) -> None:
    """Let Prometheus know of the keys of `app` and of its requests. A second call has no effect.

    Call it before or after `protect`; it serves no `/metrics`, which is the app's to do. Several apps may use one
    registry: counters then tell of all of them, and gauges of the one that is worst off, such as the oldest key.

    Where PROMETHEUS_MULTIPROC_DIR is set, several processes are told of together, in the same way. Leave `registry` out
    then, and give `/metrics` one with a `MultiProcessCollector`, as `prometheus_client` documents.

    Args:
        app: the app.
        registry: where the metrics are registered; `prometheus_client.REGISTRY` by default.

    Raises:
        TypeError: `app` is no FastAPI app, or `registry` no registry.
        ValueError: the registry has metrics of somebody else with the same names. None of these is then added.
        RuntimeError: the app is instrumented already, with another registry.
    """
    if not isinstance(app, FastAPI):
        raise TypeError(f"app must be a FastAPI app, not {app!r}")
    recorder = _recorder(registry)
    known = recorder_of(app)
    if known is not None and known is not recorder:
        raise RuntimeError("the app is instrumented already, with another registry: use one of them for both")
    record_requests_of(app, recorder)
    watch_rings_of(app, recorder.note_ring)


P = ParamSpec("P")

# A disk that is full must not fill the log, too.
_QUIET_S = 60.0
_quiet_until = 0.0


def _unless_it_fails(count: Callable[P, None]) -> Callable[P, None]:
    """Return a function like `count` that never raises: requests and refreshes go on without their metrics."""

    @functools.wraps(count)
    def count_or_log(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            count(*args, **kwargs)
        except Exception:  # noqa: BLE001 - logged, once a minute
            global _quiet_until
            if time.monotonic() >= _quiet_until:
                _quiet_until = time.monotonic() + _QUIET_S
                logger().exception("the metrics of keys cannot be kept up")

    return count_or_log


class _Recorder:
    """Keeps the metrics of one registry.

    Raises:
        ValueError: the registry has one of the names already.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._is_default = registry is REGISTRY
        # Reentrant, as the ring's own: a signal handler may look at a ring.
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._rings: list[KeyRing] = []
        self._seen: WeakKeyDictionary[KeyRing, tuple[int, int]] = WeakKeyDictionary()
        self._gauges = [
            Gauge(gauge.name, gauge.documentation, registry=None, multiprocess_mode=gauge.combined)
            for gauge in RING_GAUGES
        ]
        for gauge, metric in zip(RING_GAUGES, self._gauges, strict=True):
            metric.set(gauge.of_no_ring)
        self._refreshes = Counter(
            "server_keys_refreshes_total", "Keys that were replaced by newer ones.", registry=None
        )
        self._failures = Counter(
            "server_keys_refresh_failures_total", "Tries to replace a key that failed.", registry=None
        )
        self._requests = Counter("server_keys_requests_total", "Requests by their end.", ["outcome"], registry=None)
        self._refusals = Counter(
            "server_keys_refusals_total", "Requests that were refused, by reason.", ["reason"], registry=None
        )
        self._opened = Counter(
            "server_keys_opened_requests_total",
            "Requests that arrived sealed, by the wire: plain EHBP, or its version 1.",
            ["wire"],
            registry=None,
        )
        self._opening = Histogram(
            "server_keys_opening_seconds",
            "The time that opening a request's body took, without the time that it was on its way.",
            buckets=_OPENING_BUCKETS_S,
            registry=None,
        )
        self._frames = Counter(
            "server_keys_frames_total",
            "Frames of sealed bodies that ended: opened, or sealed and sent.",
            ["direction"],
            registry=None,
        )
        self._bytes = Counter(
            "server_keys_sealed_bytes_total", "Bytes of sealed bodies, as on the wire.", ["direction"], registry=None
        )
        # Every series is there from the start: rates and alarms need the zero before the first event.
        self._request_of = {outcome: self._requests.labels(outcome.value) for outcome in Outcome}
        for reason in REASONS:
            self._refusals.labels(reason)
        self._opened_by = {wire: self._opened.labels(wire) for wire in ("ehbp", "v1")}
        self._received_frames, self._sent_frames = (self._frames.labels(way) for way in ("received", "sent"))
        self._received_bytes, self._sent_bytes = (self._bytes.labels(way) for way in ("received", "sent"))
        self._register(registry)

    def _register(self, registry: CollectorRegistry) -> None:
        """Register all metrics, or none."""
        metrics = [
            *self._gauges,
            self._refreshes,
            self._failures,
            self._requests,
            self._refusals,
            self._opened,
            self._opening,
            self._frames,
            self._bytes,
        ]
        registered: list[MetricWrapperBase] = []
        for metric in metrics:
            try:
                registry.register(metric)
            except ValueError as error:
                for earlier in registered:
                    registry.unregister(earlier)
                raise ValueError(
                    f"the registry has metrics of somebody else with names of server-keys ({error}): take those away "
                    "(registry.unregister), or pass another one: instrument(app, registry=CollectorRegistry())"
                ) from None
            registered.append(metric)

    # Ray Serve pickles an app with all that is around it, and locks cannot be pickled.
    def __reduce__(self) -> tuple[Callable[[], "_Recorder"], tuple[()]]:
        if not self._is_default:
            raise TypeError("an app that is instrumented with a registry of its own cannot be pickled: use the default")
        return _recorder, ()

    @_unless_it_fails
    def count_request(self, outcome: Outcome) -> None:
        """Count a request that was neither opened nor refused."""
        self._request_of[outcome].inc()

    @_unless_it_fails
    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused."""
        self._request_of[Outcome.REFUSED].inc()
        self._refusals.labels(reason).inc()

    @_unless_it_fails
    def count_sealed(self, measured: Measured) -> None:
        """Count a request that was opened."""
        self._request_of[Outcome.SEALED].inc()
        self._opened_by[measured.wire].inc()
        self._opening.observe(measured.opening_s)
        self._received_frames.inc(measured.received_frames)
        self._received_bytes.inc(measured.received_bytes)
        self._sent_frames.inc(measured.sent_frames)
        self._sent_bytes.inc(measured.sent_bytes)

    @_unless_it_fails
    def note_ring(self, ring: KeyRing) -> None:
        """Bring the metrics up to the state of `ring`."""
        with self._lock:
            status = ring.status
            refreshes, failures = self._seen.get(ring, (0, 0))
            self._refreshes.inc(max(status.refreshes - refreshes, 0))
            self._failures.inc(max(status.failures - failures, 0))
            self._seen[ring] = status.refreshes, status.failures
            if status.closed:
                self._rings = [other for other in self._rings if other is not ring]
            elif ring not in self._rings:
                self._rings.append(ring)
            now = time.time()
            rings = [(other, other.status) for other in self._rings]
            for gauge, metric in zip(RING_GAUGES, self._gauges, strict=True):
                metric.set(gauge.value(rings, now))


_recorders: WeakKeyDictionary[CollectorRegistry, _Recorder] = WeakKeyDictionary()
_recorders_lock = threading.Lock()


def _recorder(registry: CollectorRegistry | None = None) -> _Recorder:
    """Return what keeps the metrics of `registry`."""
    registry = REGISTRY if registry is None else registry
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
    with _recorders_lock:
        if registry not in _recorders:
            _recorders[registry] = _Recorder(registry)
        return _recorders[registry]
