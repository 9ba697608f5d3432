"""A protected app beside what else changes apps: middleware, instrumentations, resets and rebuilds of the stack."""

import asyncio
import copy
import functools
import inspect
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from slowapi import Limiter
from slowapi.middleware import SlowAPIMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys import inject_middleware, protect
from tests.helpers import asgi
from tests.helpers.scripts import run_script
from tests.helpers.served_app import assert_is_protected, echo_app, sealed, served


def protect_it(app: FastAPI) -> None:
    protect(app, required=True)


class Neighbour:
    """Something that changes an app, and notes the paths of the requests that it sees."""

    def join(self, app: FastAPI) -> None:
        raise NotImplementedError

    def leave(self, app: FastAPI) -> None:
        """Undo what can be undone."""

    def paths(self) -> list[str]:
        """Return the paths of the requests that it saw."""
        raise NotImplementedError


class PureMiddleware(Neighbour):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def join(self, app: FastAPI) -> None:
        seen = self.seen

        class Note:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    seen.append(scope["path"])
                await self.app(scope, receive, send)

        app.add_middleware(Note)

    def paths(self) -> list[str]:
        return self.seen


class FunctionMiddleware(PureMiddleware):
    def join(self, app: FastAPI) -> None:
        @app.middleware("http")
        async def note(request: Request, call_next: Callable[[Request], Any]) -> Any:
            self.seen.append(request.url.path)
            return await call_next(request)


class OpenTelemetry(Neighbour):
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def join(self, app: FastAPI) -> None:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=self.provider, exclude_spans=["receive", "send"])

    def leave(self, app: FastAPI) -> None:
        FastAPIInstrumentor.uninstrument_app(app)

    def paths(self) -> list[str]:
        return [str((span.attributes or {})["http.target"]) for span in self.exporter.get_finished_spans()]


class Prometheus(Neighbour):
    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def join(self, app: FastAPI) -> None:
        Instrumentator(registry=self.registry).instrument(app)

    def paths(self) -> list[str]:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        return [
            sample.labels["handler"]
            for sample in samples
            if sample.name == "http_requests_total"
            for _ in range(int(sample.value))
        ]


class SlowApi(FunctionMiddleware):
    """Lets one request through in an hour."""

    def join(self, app: FastAPI) -> None:
        app.state.limiter = Limiter(key_func=lambda: "everybody", default_limits=["1/hour"])
        app.add_middleware(SlowAPIMiddleware)
        super().join(app)


NEIGHBOURS = [PureMiddleware, FunctionMiddleware, OpenTelemetry, Prometheus, SlowApi]
Kind = type[PureMiddleware] | type[OpenTelemetry] | type[Prometheus]


@pytest.fixture
def neighbour(request: pytest.FixtureRequest) -> Neighbour:
    kind: type[Neighbour] = request.param
    return kind()


@pytest.mark.parametrize("protected_first", [True, False], ids=["protected first", "protected last"])
@pytest.mark.parametrize("neighbour", NEIGHBOURS, indirect=True)
def test_both_do_their_work_in_either_order(neighbour: Neighbour, protected_first: bool) -> None:
    app = echo_app()
    for change in [protect_it, neighbour.join] if protected_first else [neighbour.join, protect_it]:
        change(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())
    neighbour.leave(app)
    assert neighbour.paths() == ["/echo"]


@pytest.mark.parametrize(
    "order",
    list(itertools.permutations([*NEIGHBOURS[2:], None])),
    ids=lambda order: ", ".join(kind.__name__ if kind else "protect" for kind in order),
)
def test_all_do_their_work_in_any_order(order: tuple[Kind | None, ...]) -> None:
    app = echo_app()
    neighbours = []
    for kind in order:
        if kind is None:
            protect_it(app)
        else:
            neighbours.append(kind())
            neighbours[-1].join(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())
    for neighbour in neighbours:
        neighbour.leave(app)
    assert [neighbour.paths() for neighbour in neighbours] == [["/echo"]] * 3


def test_a_rate_limit_of_the_app_counts_sealed_requests_and_is_answered_sealed() -> None:
    app = echo_app()
    protect_it(app)
    SlowApi().join(app)

    async def main() -> None:
        async with served(app):
            assert await sealed(app) == (200, b'"sealed"')
            status, answer = await sealed(app)
            assert (status, json.loads(answer)) == (429, {"error": "Rate limit exceeded: 1 per 1 hour"})

    asyncio.run(main())


def instrument(app: FastAPI) -> None:
    OpenTelemetry().join(app)


def uninstrument(app: FastAPI) -> None:
    OpenTelemetry().leave(app)


@pytest.mark.parametrize(
    "changes",
    [
        [instrument, protect_it, uninstrument],
        [protect_it, instrument, uninstrument],
        [instrument, uninstrument, protect_it],
        [protect_it, instrument, uninstrument, instrument, uninstrument],
    ],
    ids=lambda changes: ", ".join(change.__name__ for change in changes),
)
def test_an_instrumentation_that_leaves_takes_no_protection_with_it(changes: list[Callable[[FastAPI], None]]) -> None:
    app = echo_app()
    for change in changes:
        change(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())


def test_a_running_app_can_be_uninstrumented() -> None:
    app = echo_app()
    telemetry = OpenTelemetry()
    telemetry.join(app)
    protect_it(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)
            telemetry.leave(app)
            await assert_is_protected(app)

    asyncio.run(main())
    assert telemetry.paths() == ["/echo"]


def reset(app: FastAPI) -> None:
    app.middleware_stack = None


def rebuild(app: FastAPI) -> None:
    app.middleware_stack = app.build_middleware_stack()


def replace_the_building(app: FastAPI) -> None:
    app.build_middleware_stack = functools.partial(FastAPI.build_middleware_stack, app)  # type: ignore[method-assign]
    app.middleware_stack = None


def restore_the_building(app: FastAPI) -> None:
    vars(app).pop("build_middleware_stack", None)
    app.middleware_stack = None


STACK_CHANGES = [reset, rebuild, replace_the_building, restore_the_building]


@pytest.mark.parametrize("change", STACK_CHANGES)
def test_nothing_that_is_done_to_the_stack_takes_the_protection_away(change: Callable[[FastAPI], None]) -> None:
    app = echo_app()
    protect_it(app)
    change(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)
            change(app)
            await assert_is_protected(app)

    asyncio.run(main())


def test_middleware_is_added_until_the_first_request_and_not_after_it() -> None:
    # As to an app that is not protected.
    app = echo_app()
    protect_it(app)
    PureMiddleware().join(app)
    with TestClient(app), pytest.raises(RuntimeError, match="after an application has started"):
        PureMiddleware().join(app)


def test_a_protected_app_looks_as_it_did_before() -> None:
    class OwnApp(FastAPI):
        """An app of somebody's own."""

    for app_class in (FastAPI, OwnApp):
        plain, app = app_class(), protect(app_class())
        assert isinstance(app, app_class)
        assert (type(app).__name__, type(app).__qualname__) == (app_class.__name__, app_class.__qualname__)
        assert (type(app).__module__, type(app).__doc__) == (app_class.__module__, app_class.__doc__)
        assert repr(app).partition(" at ")[0] == repr(plain).partition(" at ")[0]
        assert inspect.iscoroutinefunction(app.__call__)  # by which servers know ASGI 3
        assert type(app.build_middleware_stack()) is ServerErrorMiddleware
        assert app.user_middleware == plain.user_middleware
        assert "build_middleware_stack" not in vars(app)


def test_apps_of_one_class_stay_apps_of_one_class() -> None:
    assert type(protect(FastAPI())) is type(protect(FastAPI(), 60))
    app = protect(FastAPI())
    app_class = type(app)
    assert type(protect(app)) is app_class
    assert type(inject_middleware(lambda: app)()) is app_class


def test_another_app_of_a_protected_apps_class_is_an_app_like_any_other() -> None:
    app_class = type(protect(FastAPI()))
    another = app_class(routes=echo_app().routes)
    with TestClient(another) as client:
        assert client.post("/echo", content="in the clear").json() == "in the clear"
    fresh = protect(app_class(routes=echo_app().routes), required=True)
    with TestClient(fresh) as client:
        assert client.post("/echo", content="in the clear").status_code == 400


def test_an_app_of_an_own_class_is_called_as_it_calls_itself() -> None:
    calls: list[str] = []

    class OwnApp(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                calls.append(f"{scope['path']} {scope.get('server_keys.opened')}")
            await super().__call__(scope, receive, send)

    app = protect(OwnApp(routes=echo_app().routes), required=True)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())
    assert calls == ["/echo True"]


def test_an_app_with_slots_can_be_protected() -> None:
    class OwnApp(FastAPI):
        __slots__ = ("slot",)

    app = protect(OwnApp(routes=echo_app().routes), required=True)
    with TestClient(app) as client:
        assert client.post("/echo", content="in the clear").status_code == 400


def test_a_class_that_takes_the_apps_place_later_is_called_with_the_plaintext() -> None:
    # Somebody else does the same as `put_outermost`.
    app = echo_app()
    protect_it(app)
    calls: list[str] = []

    class Later(type(app)):  # type: ignore[misc]
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            calls.append(scope["type"])
            await super().__call__(scope, receive, send)

    app.__class__ = Later
    protect_it(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())
    assert calls == ["lifespan", "http", "http", "http"]


def test_a_copy_of_an_app_is_protected_by_its_own_keys() -> None:
    app = echo_app()
    protect_it(app)
    copied = copy.copy(app)
    copied.state = type(app.state)()

    async def main() -> None:
        async with served(app), served(copied):
            assert app.state.ephemeral_keys is not copied.state.ephemeral_keys
            await assert_is_protected(copied)
            await assert_is_protected(app)

    asyncio.run(main())


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
def test_the_key_is_found_under_the_apps_own_root_path(root_path: str) -> None:
    app = protect(FastAPI())
    app.root_path = root_path  # as vLLM does after it made the app
    with TestClient(app) as client:
        for path in ("/.well-known/hpke-keys", "/api/.well-known/hpke-keys"):
            assert client.get(path).content.startswith(bytes.fromhex("000020"))


def test_a_protected_app_that_is_mounted_under_another_uses_its_own_keys() -> None:
    inner, outer = echo_app(), echo_app()
    protect_it(inner)
    protect_it(outer)
    outer.mount("/inner", inner)

    async def main() -> None:
        async with served(outer), served(inner):
            await assert_is_protected(outer)
            assert await sealed(outer, path="/inner/echo") == (200, b'"sealed"')
            answer = await asgi.call(outer, "GET", "/inner/.well-known/hpke-keys")
            assert inner.state.ephemeral_keys.current.public_key in answer.body

    asyncio.run(main())


ORDERS = {
    "instrumented first": "start(); app = echo_app(); protect(app, required=True)",
    "made first": "app = echo_app(); start(); protect(app, required=True)",
    "protected first": "app = echo_app(); protect(app, required=True); start()",
}


@pytest.mark.parametrize("order", ORDERS)
def test_sentry_sees_the_paths_of_sealed_requests(order: str) -> None:
    run_script(f"""
        import asyncio, logging
        import sentry_sdk
        from server_keys import protect
        from tests.helpers.served_app import assert_is_protected, echo_app, served

        transactions = []

        def start():
            sentry_sdk.init(
                dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, integrations=[], shutdown_timeout=0,
                before_send_transaction=lambda event, hint: transactions.append(event["transaction"]),
            )

        logging.getLogger("server_keys").addHandler(logging.NullHandler())  # refusals are logged

        async def main():
            async with served(app):
                await assert_is_protected(app)

        {ORDERS[order]}
        asyncio.run(main())
        sentry_sdk.flush(1)
        assert transactions == ["/echo"], transactions
    """)


@pytest.mark.parametrize("order", ORDERS)
def test_apps_are_protected_though_opentelemetry_replaces_their_class(order: str) -> None:
    run_script(f"""
        import asyncio, logging
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from tests.helpers.served_app import assert_is_protected, echo_app, served

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        instrumentor = FastAPIInstrumentor()

        def start():
            instrumentor.instrument(tracer_provider=provider, exclude_spans=["receive", "send"])

        def protect(app, **arguments):
            import server_keys  # as late as can be: then even `fastapi.FastAPI` is another class

            server_keys.protect(app, **arguments)

        logging.getLogger("server_keys").addHandler(logging.NullHandler())  # refusals are logged

        async def main():
            async with served(app):
                await assert_is_protected(app)
                instrumentor.uninstrument()
                await assert_is_protected(app)

        {ORDERS[order]}
        asyncio.run(main())
        paths = [span.attributes["http.target"] for span in exporter.get_finished_spans()]
        assert paths == (["/echo"] if {order == "instrumented first"} else []), paths
    """)


@pytest.mark.skipif("telemetry" not in inspect.signature(FastAPI).parameters, reason="this FastAPI makes no spans")
@pytest.mark.parametrize("instrumented", ["never", "before", "after"])
def test_fastapis_own_spans_tell_of_sealed_requests_unless_an_instrumentation_does(instrumented: str) -> None:
    own, contributed = OpenTelemetry(), OpenTelemetry()
    options: dict[str, Any] = {"telemetry": {"tracer_provider": own.provider}}
    app = FastAPI(routes=echo_app().routes, **options)
    if instrumented == "before":
        contributed.join(app)
    protect_it(app)
    if instrumented == "after":
        contributed.join(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())
    contributed.leave(app)
    names = [span.name for span in own.exporter.get_finished_spans() if not span.name.startswith("fastapi.")]
    assert (names, contributed.paths()) == ((["POST /echo"], []) if instrumented == "never" else ([], ["/echo"]))
