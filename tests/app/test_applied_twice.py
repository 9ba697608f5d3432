"""A second application to an app does nothing if it asks for the same, and raises if it asks for something else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from server_keys import ephemeral_key_lifespan_factory, inject_key_lifespan, inject_middleware, protect
from tests.helpers import asgi
from tests.helpers.served_app import assert_is_protected, echo_app, served

Apply = Callable[[FastAPI], object]


def applying(function: Callable[..., Any], *arguments: Any, **options: Any) -> Apply:
    """Return what applies `function` to an app, whether that takes the app or a function that builds it."""
    if function is protect:
        return lambda app: protect(app, *arguments, **options)
    return lambda app: function(lambda: app, *arguments, **options)()


def with_factory(app: FastAPI, refresh_time: float, overlap: float | None = None) -> None:
    app.router.lifespan_context = ephemeral_key_lifespan_factory(refresh_time, overlap=overlap)(
        app.router.lifespan_context
    )


GIVES_KEYS = [
    pytest.param(lambda *times: lambda app: with_factory(app, *times), id="factory"),
    pytest.param(lambda s, *overlap: applying(inject_key_lifespan, s, overlap_s=(*overlap, None)[0]), id="inject"),
    pytest.param(lambda s, *overlap: applying(protect, s, overlap=(*overlap, None)[0]), id="protect"),
]
MakeApply = Callable[..., Apply]


@pytest.mark.parametrize("second", GIVES_KEYS)
@pytest.mark.parametrize("first", GIVES_KEYS)
@pytest.mark.parametrize(
    ("once", "again"),
    [((300,), (60,)), ((60,), (300,)), ((300, 300), (300, 30)), ((300, 0), (300,)), ((300.0, 30), (300, 30.5))],
)
def test_other_durations_are_refused_and_both_are_named(
    first: MakeApply, second: MakeApply, once: tuple[float, ...], again: tuple[float, ...]
) -> None:
    app = echo_app()
    first(*once)(app)
    with pytest.raises(RuntimeError, match="give the same refresh time and overlap in both places") as raised:
        second(*again)(app)
    for refresh_time, overlap in (once * 2)[:2], (again * 2)[:2]:
        assert f"a refresh time of {refresh_time:g} s with an overlap of {overlap:g} s" in str(raised.value)
    with TestClient(app) as client:
        ring = app.state.ephemeral_keys
        assert (ring.period_s, ring.overlap_s) == (once * 2)[:2]
        # The refused application did not seal bodies, either.
        is_protected = client.get("/.well-known/hpke-keys").status_code == 200
    assert is_protected == (first is GIVES_KEYS[2].values[0])


@pytest.mark.parametrize("second", GIVES_KEYS)
@pytest.mark.parametrize("first", GIVES_KEYS)
@pytest.mark.parametrize(("once", "again"), [((300,), (300,)), ((300,), (300.0, 300)), ((300, 30.0), (300, 30))])
def test_the_same_durations_again_change_nothing(
    first: MakeApply, second: MakeApply, once: tuple[float, ...], again: tuple[float, ...]
) -> None:
    app = echo_app()
    first(*once)(app)
    lifespan = app.router.lifespan_context
    second(*again)(app)
    assert app.router.lifespan_context is lifespan
    with TestClient(app):
        ring = app.state.ephemeral_keys
        assert (ring.period_s, ring.overlap_s) == (once * 2)[:2]


@pytest.mark.parametrize("adds", [protect, lambda app, s: inject_key_lifespan(lambda: app, s)()])
def test_other_durations_are_refused_where_fastapi_has_merged_the_lifespan_with_a_routers(adds: Any) -> None:
    app = echo_app()
    adds(app, 300)
    app.include_router(APIRouter(lifespan=ephemeral_key_lifespan_factory(300)(None)))
    adds(app, 300)
    with pytest.raises(RuntimeError, match="cannot have a refresh time of 60 s"):
        adds(app, 60)
    with TestClient(app):
        assert app.state.ephemeral_keys.period_s == 300


def test_a_routers_lifespan_with_other_durations_fails_at_the_start() -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))
    app.include_router(APIRouter(lifespan=ephemeral_key_lifespan_factory(60)(None)))
    with pytest.raises(RuntimeError, match="cannot have a refresh time of 60 s"), TestClient(app):
        pass
    assert not hasattr(app.state, "ephemeral_keys")


SEALS = [pytest.param(protect, id="protect"), pytest.param(inject_middleware, id="inject_middleware")]


@pytest.mark.parametrize("second", SEALS)
@pytest.mark.parametrize("first", SEALS)
def test_another_limit_is_refused_and_both_are_named(first: Callable[..., Any], second: Callable[..., Any]) -> None:
    app = echo_app()
    applying(first, max_frame_bytes=1_000_000)(app)
    lifespan = app.router.lifespan_context
    with pytest.raises(RuntimeError, match="with max_frame_bytes=1000000, and cannot have max_frame_bytes=2000000"):
        applying(second, max_frame_bytes=2_000_000)(app)
    # The refused application gave no keys, either.
    assert app.router.lifespan_context is lifespan
    applying(second, max_frame_bytes=1_000_000)(app)


@pytest.mark.parametrize("second", SEALS)
@pytest.mark.parametrize("first", SEALS)
def test_a_second_application_never_takes_back_what_the_operator_requires(
    first: Callable[..., Any], second: Callable[..., Any]
) -> None:
    app = echo_app()
    applying(first, required=True)(app)
    applying(second)(app)
    protect(app)

    async def main() -> None:
        async with served(app):
            await assert_is_protected(app)

    asyncio.run(main())


@pytest.mark.parametrize("second", SEALS)
@pytest.mark.parametrize("first", SEALS)
def test_an_app_that_takes_plaintext_already_cannot_be_asked_to_refuse_it(
    first: Callable[..., Any], second: Callable[..., Any]
) -> None:
    app = echo_app()
    applying(first)(app)
    with pytest.raises(RuntimeError, match="protected already, and takes bodies in plaintext: pass required=True"):
        applying(second, required=True)(app)


def test_an_app_that_serves_already_is_refused() -> None:
    app = echo_app()
    asyncio.run(asgi.call(app, "GET", "/"))
    with pytest.raises(RuntimeError, match="before its first request"):
        protect(app)


def test_an_app_whose_lifespan_runs_is_refused() -> None:
    app = echo_app()

    async def main() -> None:
        async with served(app):
            with pytest.raises(RuntimeError, match="before its first request"):
                protect(app)

    asyncio.run(main())


def test_a_protected_app_that_serves_may_be_protected_again() -> None:
    app = protect(echo_app(), required=True)

    async def main() -> None:
        async with served(app):
            protect(app, required=True)
            await assert_is_protected(app)

    asyncio.run(main())


@pytest.mark.parametrize("no_app", [300, FastAPI, APIRouter()])
def test_only_a_fastapi_app_can_be_protected(no_app: Any) -> None:
    with pytest.raises(TypeError, match="app must be a FastAPI app, not"):
        protect(no_app)
