"""OpenTelemetry spans for what happens before an app's own span begins: the opening of a request, and its refusal.

Nothing here imports OpenTelemetry before the app has done so, and without a tracer provider nothing is recorded.
"""

import contextlib
import sys
from collections.abc import Iterator

from starlette.types import Scope

from server_keys._sealing.recorder import Measured
from server_keys._sealing.refusals import Refusal

_TRACER = "server_keys"
# Span names are few: a client may send any method.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})


def record_opening(measured: Measured) -> None:
    """Record the opening of a request, once, as a child of the span in which the app now works.

    It began before that span did: the app's instrumentation sees the request only when it is opened.
    """
    if measured.opening_recorded:
        return
    measured.opening_recorded = True
    if "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import trace

    if not trace.get_current_span().is_recording():
        return
    span = trace.get_tracer(_TRACER).start_span(
        "server_keys open",
        start_time=measured.arrived_at_ns,
        attributes={"server_keys.opening_s": measured.opening_s, "server_keys.received_bytes": measured.received_bytes},
    )
    span.end(measured.opened_at_ns)


@contextlib.contextmanager
def refusal_span(scope: Scope, refusal: Refusal) -> Iterator[None]:
    """Record a refusal while it is answered: as the server's span of this request, if no other is under way."""
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import propagate, trace

    is_inside = trace.get_current_span().is_recording()
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with trace.get_tracer(_TRACER).start_as_current_span(
        "server_keys refuse" if is_inside else method.replace("_OTHER", "HTTP"),
        context=None if is_inside else propagate.extract(headers),
        kind=trace.SpanKind.INTERNAL if is_inside else trace.SpanKind.SERVER,
        attributes={
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "http.response.status_code": refusal.answer.status,
            "error.type": refusal.reason,
        },
    ) as span:
        if refusal.answer.status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        yield
