"""`inject_key_lifespan`: functions that build apps, and what they are given and give back."""

import asyncio
import functools
import inspect
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from server_keys import EphemeralKeys, KeyRing, ephemeral_key_lifespan_factory, inject_key_lifespan

ARGS = Namespace(port=8000)


def build_from_args(args: Namespace) -> FastAPI:
    """Build as vLLM's first form does."""
    return recording_app(args)


def build_for_tasks(args: Namespace, supported_tasks: tuple[str, ...]) -> FastAPI:
    """Build as vLLM's second form does."""
    return recording_app(args, supported_tasks)


def build_for_model(
    args: Namespace, supported_tasks: tuple[str, ...] | None = None, model_config: object = None
) -> FastAPI:
    """Build as vLLM's third form does."""
    return recording_app(args, supported_tasks, model_config)


def recording_app(*got: object) -> FastAPI:
    app = FastAPI()
    app.state.got = got
    return app


@pytest.mark.parametrize(
    ("build", "args", "kwargs", "got"),
    [
        (build_from_args, (ARGS,), {}, (ARGS,)),
        (build_from_args, (), {"args": ARGS}, (ARGS,)),
        (build_for_tasks, (ARGS, ("generate",)), {}, (ARGS, ("generate",))),
        (build_for_tasks, (ARGS,), {"supported_tasks": ("embed",)}, (ARGS, ("embed",))),
        (build_for_model, (ARGS, ("generate",), "model"), {}, (ARGS, ("generate",), "model")),
        (build_for_model, (ARGS,), {"model_config": "model"}, (ARGS, None, "model")),
        (build_for_model, (ARGS,), {}, (ARGS, None, None)),
    ],
)
def test_arguments_are_forwarded(
    build: Callable[..., FastAPI], args: tuple[object, ...], kwargs: dict[str, object], got: tuple[object, ...]
) -> None:
    app = inject_key_lifespan(build, 300)(*args, **kwargs)
    assert app.state.got == got
    with TestClient(app):
        assert isinstance(app.state.ephemeral_keys, KeyRing)
        assert app.state.ephemeral_keys.period_s == 300.0


@pytest.mark.parametrize("build", [build_from_args, build_for_tasks, build_for_model])
def test_name_docstring_and_signature_are_kept(build: Callable[..., FastAPI]) -> None:
    injected = inject_key_lifespan(build, 300)
    assert injected.__name__ == build.__name__
    assert injected.__qualname__ == build.__qualname__
    assert injected.__doc__ == build.__doc__
    assert injected.__module__ == build.__module__
    assert inspect.signature(injected) == inspect.signature(build)
    # vLLM's callers look for parameters before they pass them.
    assert list(inspect.signature(injected).parameters) == list(inspect.signature(build).parameters)


def test_wrong_arguments_are_the_functions_own_error() -> None:
    with pytest.raises(TypeError, match=r"build_from_args\(\) takes 1 positional argument but 2 were given"):
        inject_key_lifespan(build_from_args, 300)(ARGS, "more")


def test_an_exception_of_the_function_passes_through() -> None:
    error = LookupError("no such model")

    def build() -> FastAPI:
        raise error

    with pytest.raises(LookupError) as raised:
        inject_key_lifespan(build, 300)()
    assert raised.value is error


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (None, "NoneType: None"),
        ("an app", "str: 'an app'"),
        (FastAPI, "type: <class 'fastapi.applications.FastAPI'>"),
        (Starlette(), "Starlette: <starlette.applications.Starlette object"),
        ((FastAPI(), 1), "tuple: (<fastapi.applications.FastAPI object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_fastapi_app_is_named_with_its_function(returned: Any, shown: str) -> None:
    def build_something() -> Any:
        return returned

    with pytest.raises(TypeError, match=r"build_something must return a FastAPI app, but returned ") as raised:
        inject_key_lifespan(build_something, 300)()
    assert shown in str(raised.value)


def test_a_coroutine_function_is_named_as_such_and_never_left_unawaited() -> None:
    async def build_later() -> FastAPI:
        return FastAPI()

    with pytest.raises(TypeError, match="build_later is a coroutine function: keys are added to functions that return"):
        inject_key_lifespan(build_later, 300)()  # type: ignore[arg-type]


@pytest.mark.parametrize("no_function", [None, "build_app", 300, {}, FastAPI()], ids=repr)
def test_what_is_no_function_is_refused_at_the_call(no_function: Any) -> None:
    with pytest.raises(TypeError, match="build_app_func must be a function that returns a FastAPI app, not ") as raised:
        inject_key_lifespan(no_function, 300)
    assert repr(no_function) in str(raised.value)


class Builder:
    """A callable that is no function."""

    def __call__(self, args: Namespace) -> FastAPI:
        return recording_app(args)

    def method(self, args: Namespace) -> FastAPI:
        return recording_app(args)


@pytest.mark.parametrize(
    "build",
    [Builder(), Builder().method, functools.partial(build_from_args), lambda args: recording_app(args)],
    ids=["callable object", "method", "partial", "lambda"],
)
def test_anything_callable_builds(build: Callable[..., FastAPI]) -> None:
    injected = inject_key_lifespan(build, 300)
    assert inspect.signature(injected) == inspect.signature(build)
    app = injected(ARGS)
    with TestClient(app):
        assert app.state.ephemeral_keys.status.key_id is not None


def test_the_class_itself_builds() -> None:
    app = inject_key_lifespan(FastAPI, 300)(title="its own title")
    assert app.title == "its own title"
    with TestClient(app):
        assert app.state.ephemeral_keys.status.key_id is not None


def test_injected_twice_with_the_same_durations_there_is_one_ring() -> None:
    app = inject_key_lifespan(inject_key_lifespan(build_from_args, 300, overlap_s=30), 300.0, overlap_s=30.0)(ARGS)
    with TestClient(app):
        ring = app.state.ephemeral_keys
        assert (ring.period_s, ring.overlap_s) == (300.0, 30.0)
    assert ring.status.closed


def test_injected_around_merged_lifespans_there_is_still_one_ring() -> None:
    rings: list[KeyRing] = []

    @asynccontextmanager
    async def of_router(app: FastAPI) -> AsyncIterator[None]:
        rings.append(app.state.ephemeral_keys)
        yield

    def build() -> FastAPI:
        app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))
        app.include_router(APIRouter(lifespan=of_router))  # FastAPI makes a new lifespan of both
        return app

    app = inject_key_lifespan(build, 300)()
    with TestClient(app):
        assert rings == [app.state.ephemeral_keys]
    assert rings[0].status.closed


def test_an_app_that_is_built_once_and_returned_again_gets_keys_once() -> None:
    app = FastAPI()
    injected = inject_key_lifespan(lambda: app, 300)
    assert injected() is app
    lifespan = app.router.lifespan_context
    assert injected() is app
    assert app.router.lifespan_context is lifespan


def test_the_overlap_is_passed_on() -> None:
    app = inject_key_lifespan(build_from_args, 300, overlap_s=30)(ARGS)
    with TestClient(app):
        assert app.state.ephemeral_keys.overlap_s == 30.0


def test_the_apps_own_lifespan_runs_within_that_of_the_keys() -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        ring: KeyRing = app.state.ephemeral_keys
        seen.append(ring.status.closed)
        yield {"number": 7}
        seen.append(ring.status.closed)
        # As vLLM's does.
        del app.state

    def build() -> FastAPI:
        return FastAPI(lifespan=mine)

    app = inject_key_lifespan(build, 300)()

    async def main() -> KeyRing:
        async with app.router.lifespan_context(app) as state:
            assert state == {"number": 7}
            ring = app.state.ephemeral_keys
            assert isinstance(ring, KeyRing)
            return ring

    assert asyncio.run(main()).status.closed
    assert seen == [False, False]


def test_start_up_handlers_of_an_app_without_a_lifespan_still_run() -> None:
    seen: list[str] = []

    def build() -> FastAPI:
        app = FastAPI(
            on_startup=[lambda: seen.append("start-up")],
            on_shutdown=[lambda: seen.append("shutdown")],
        )

        @app.get("/")
        async def key_of(keys: EphemeralKeys) -> str:
            return keys.current.public_key.hex()

        return app

    with TestClient(inject_key_lifespan(build, 300)()) as client:
        assert seen == ["start-up"]
        assert len(bytes.fromhex(client.get("/").json())) == 32
    assert seen == ["start-up", "shutdown"]
