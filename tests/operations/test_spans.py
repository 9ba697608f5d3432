"""OpenTelemetry's traces tell of what happens before the app's own span begins: opening, and refusals."""

import json
from typing import Any

import pytest

from tests.helpers.scripts import run_script

# One process has one global tracer provider, so each test has a process of its own.
BEGINNING = """
    import asyncio, json, logging
    import fastapi
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from server_keys import KeyRing, protect
    from tests.helpers import asgi
    from tests.helpers.sealed_requests import Client
    from tests.helpers.served_app import echo_app, sealed, served

    logging.getLogger("server_keys").addHandler(logging.NullHandler())
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = echo_app()

    def instrument():
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(app)

    TRACEPARENT = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
"""
END = """
    print(json.dumps([
        {
            "name": span.name, "id": span.context.span_id, "trace": f"{span.context.trace_id:032x}",
            "parent": span.parent and span.parent.span_id, "kind": span.kind.name,
            "status": span.status.status_code.name,
            "attributes": dict(span.attributes), "start": span.start_time, "end": span.end_time,
        }
        for span in exporter.get_finished_spans()
    ]))
"""


def spans(middle: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run_script(BEGINNING + middle + END))
    return found


# FastAPI's newest versions make spans by themselves where a provider is set; the oldest need the instrumentation.
@pytest.mark.parametrize("instrument", ["instrument(); protect(app)", "protect(app); instrument()"])
def test_the_opening_is_a_child_of_the_apps_span_and_begins_before_it(instrument: str) -> None:
    found = spans(f"""
    trace.set_tracer_provider(provider)
    {instrument}

    async def main():
        async with served(app):
            client = Client(app.state.ephemeral_keys.current)
            headers = [*client.headers, TRACEPARENT]
            await asgi.call(app, "POST", "/echo", headers=headers, pieces=client.seal(b"a", b"b"))

    asyncio.run(main())
    """)
    (opening,) = [span for span in found if span["name"] == "server_keys open"]
    (server,) = [span for span in found if span["kind"] == "SERVER"]
    by_id = {span["id"]: span for span in found}
    assert server["name"] == "POST /echo"
    ancestor = by_id[opening["parent"]]
    while ancestor is not server:
        ancestor = by_id[ancestor["parent"]]
    assert opening["trace"] == server["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert opening["start"] < opening["end"] <= server["start"]
    assert 0 < opening["attributes"]["server_keys.opening_s"] < 1
    assert opening["attributes"]["server_keys.received_bytes"] == 21


def test_a_handler_that_reads_no_body_has_its_request_opened_all_the_same() -> None:
    found = spans("""
    trace.set_tracer_provider(provider)
    protect(app)
    instrument()

    @app.post("/ignores")
    async def ignores(): ...

    async def main():
        async with served(app):
            await sealed(app, path="/ignores")

    asyncio.run(main())
    """)
    assert len([span for span in found if span["name"] == "server_keys open"]) == 1


def test_refusals_are_server_spans_of_their_clients_traces() -> None:
    found = spans("""
    trace.set_tracer_provider(provider)
    protect(app, required=True)
    instrument()

    async def main():
        async with served(app):
            stranger = Client(KeyRing(300).current)
            headers = [*stranger.headers, TRACEPARENT]
            await asgi.call(app, "POST", "/echo", headers=headers, pieces=stranger.seal(b"x"))
            await asgi.call(app, "BREW", "/echo", pieces=[b"plain"])
        await asgi.call(app, "GET", "/.well-known/hpke-keys")

    asyncio.run(main())
    """)
    mismatch, plaintext, no_keys = [span for span in found if span["kind"] == "SERVER"]
    assert mismatch["name"] == "POST"
    assert mismatch["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert mismatch["parent"] == 0xB7AD6B7169203331
    assert mismatch["status"] == "UNSET"
    assert mismatch["attributes"] == {
        "http.request.method": "POST",
        "url.path": "/echo",
        "url.scheme": "http",
        "http.response.status_code": 422,
        "error.type": "key_mismatch",
    }
    assert plaintext["name"] == "HTTP"
    assert plaintext["attributes"]["http.request.method"] == "_OTHER"
    assert plaintext["attributes"]["error.type"] == "plaintext"
    assert (no_keys["attributes"]["error.type"], no_keys["status"]) == ("keys_unavailable", "ERROR")


def test_within_a_span_that_is_under_way_a_refusal_is_its_child() -> None:
    found = spans("""
    trace.set_tracer_provider(provider)
    protect(app, required=True)

    async def main():
        async with served(app):
            with trace.get_tracer("gateway").start_as_current_span("gateway"):
                await asgi.call(app, "POST", "/echo", pieces=[b"plain"])

    asyncio.run(main())
    """)
    refusal, gateway = found
    assert (refusal["name"], refusal["kind"], refusal["parent"]) == ("server_keys refuse", "INTERNAL", gateway["id"])


def test_without_a_provider_nothing_is_recorded_and_everything_works() -> None:
    assert (
        spans("""
    protect(app, required=True)
    instrument()

    async def main():
        async with served(app):
            assert await sealed(app) == (200, b'"sealed"')
            assert (await asgi.call(app, "POST", "/echo", pieces=[b"plain"])).status == 400

    asyncio.run(main())
    """)
        == []
    )


def test_opentelemetry_is_not_imported_for_it() -> None:
    run_script("""
        import asyncio, logging, sys
        from starlette.applications import Starlette
        from server_keys import EncryptedBodyMiddleware, KeyRing
        from tests.helpers import asgi

        logging.getLogger("server_keys").addHandler(logging.NullHandler())
        before = {name for name in sys.modules if name.startswith("opentelemetry")}
        app = EncryptedBodyMiddleware(Starlette(), key_ring=KeyRing(300), required=True)
        assert asyncio.run(asgi.call(app, "POST", "/", pieces=[b"plain"])).status == 400
        assert {name for name in sys.modules if name.startswith("opentelemetry")} == before
    """)
