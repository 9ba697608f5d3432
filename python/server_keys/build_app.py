"""Functions that change an app: they add keys for as long as it runs, sealed bodies, or both."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

# OpenTelemetry replaces `fastapi.FastAPI` by a subclass. Apps that were made before are no instances of that.
from fastapi.applications import FastAPI

from server_keys import middleware
from server_keys._additions import Additions, add, has_served
from server_keys._checks import Place, Replay, Required, StoreAway, overlap_seconds, period_seconds
from server_keys._keys.lifespan import ephemeral_key_lifespan_factory
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES, DEFAULT_MAX_FRAME_BYTES
from server_keys._sealing.sealing_plan import SealingPlan
from server_keys._sealing.signer import Signer
from server_keys.middleware import BuildAppFunc


def protect(
    app: FastAPI,
    refresh_time: float = 300,
    *,
    overlap: float | None = None,
    required: Required = False,
    place: Place = "exact",
    replay: Replay = "refuse",
    store_away: StoreAway | None = None,
    open_paths: Sequence[str] = (),
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    share: str | None = "auto",
    group_secret_file: str | os.PathLike[str] | None = None,
    identity: str | os.PathLike[str] | Signer | None = None,
) -> FastAPI:
    """Give `app` ephemeral keys, and let it open sealed requests and seal their responses (EHBP).

    The same as `ephemeral_key_lifespan_factory` and `EncryptedBodyMiddleware` together. The middleware works outside of
    everything that the app is made of, also of what is added later. A second call with the same values has no effect.
    If something takes the keys away before the app serves, its start-up fails and says what did.

    Args:
        app: the app, before it serves.
        refresh_time: seconds between refreshes of the key, from 0.01 to 31622400 (366 days).
        overlap: seconds for which a replaced key is still accepted, from 0 to `refresh_time`; `refresh_time` by
            default.
        required: answer requests that carry a body in plaintext with an error (True), or all that are not sealed by
            version 1 of the wire (`"v1"`), except for those for the key and OPTIONS.
        place: what a request of version 1 is held to: `"exact"`, `"suffix"` or `"off"`. See `EncryptedBodyMiddleware`.
        replay: `"refuse"` answers a sealed request with 409 that this host received before, `"refuse-everywhere"` also
            one that another host received; `"allow"` serves it again. See `EncryptedBodyMiddleware`.
        store_away: for `"refuse-everywhere"`, what happens to requests while the store is away: `"refuse"` or
            `"allow"`.
        open_paths: paths, as the app sees them, for which nothing is required, such as those of health checks.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.
        max_buffered_bytes: how much memory the unfinished requests of this process may hold together. See
            `EncryptedBodyMiddleware`.
        share: the processes that have the same keys. `"auto"`: the workers of one server. Others than workers share by
            `"file:///a/folder"` or `"valkey://host"`; None keeps each process's keys its own. See
            `ephemeral_key_lifespan_factory`.
        group_secret_file: the file with the group's secret, for Valkey. See `ephemeral_key_lifespan_factory`.
        identity: who signs the published keys, so that clients know whose they are: the file that `server-keys identity
            new` wrote, or a `Signer`. The file is read when the app starts. See `EncryptedBodyMiddleware`.

    Returns:
        `app` itself.

    Raises:
        RuntimeError: the app has begun to serve, or is protected already, but with other durations, another `share`,
            another limit, another identity, other places or open paths, another `replay`, or with less required.
        TypeError: `app` is no FastAPI app, its lifespan makes no async context manager, a duration is not a number,
            `required` is neither a bool nor `"v1"`, `place`, `replay` or `store_away` is no str, `open_paths` is no
            sequence of str, a limit is not an int, `share` is neither a str nor None, `identity` is neither a path nor
            a `Signer`.
        ValueError: a duration or a limit is out of its range, `place`, `replay`, a path or `share` has no known form,
            `store_away` is missing or given in vain, `share` lacks its secret, `identity` is the public half.
    """
    if not isinstance(app, FastAPI):
        raise TypeError(f"app must be a FastAPI app, not {app!r}")
    with_keys = ephemeral_key_lifespan_factory(
        refresh_time, overlap=overlap, share=share, group_secret_file=group_secret_file
    )
    sealing = SealingPlan.checked(
        required, place, (replay, store_away), open_paths, (max_frame_bytes, max_buffered_bytes), identity
    )
    if has_served(app) and Additions.of(app).sealing is None:
        # Its lifespan may run already, and would make no keys.
        raise RuntimeError("the app has begun to serve: protect it before its first request")
    add(app, with_keys=with_keys, sealing=sealing)
    return app


def inject_key_lifespan(
    build_app_func: BuildAppFunc,
    key_refresh_time_s: float,
    *,
    overlap_s: float | None = None,
    share: str | None = "auto",
    group_secret_file: str | os.PathLike[str] | None = None,
) -> middleware.BuildAppFunc:
    """Return a function like `build_app_func` whose app also has keys, refreshed periodically.

    For vLLM's `build_app`, or any function that returns a FastAPI app. The new function has the same name, docstring
    and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        key_refresh_time_s: seconds between refreshes, from 0.01 to 31622400 (366 days).
        overlap_s: seconds for which a replaced key is still accepted, from 0 to `key_refresh_time_s`, which is the
            default.
        share: the processes that have the same keys, as for `ephemeral_key_lifespan_factory`. By default these are the
            workers of one server, such as vLLM's API server processes on one host.
        group_secret_file: the file with the group's secret, for Valkey.

    Returns:
        A function with the signature of `build_app_func`, whose app has keys.

    Raises:
        TypeError: `build_app_func` is no function, a duration is not a number, `share` is neither a str nor None; from
            the new function: `build_app_func` returned something else than a FastAPI app.
        ValueError: a duration is out of its range, `share` has no known form or lacks its secret.
        RuntimeError: from the new function: the app has keys already, with other durations or another `share`.
    """
    _require_build_app_func(build_app_func)
    key_refresh_time_s = period_seconds("key_refresh_time_s", key_refresh_time_s)
    overlap_s = overlap_seconds("overlap_s", overlap_s, key_refresh_time_s)
    with_keys = ephemeral_key_lifespan_factory(
        key_refresh_time_s, overlap=overlap_s, share=share, group_secret_file=group_secret_file
    )
    return _then(build_app_func, functools.partial(add, with_keys=with_keys))


def inject_middleware(
    build_app_func: BuildAppFunc,
    *,
    required: Required = False,
    place: Place = "exact",
    replay: Replay = "refuse",
    store_away: StoreAway | None = None,
    open_paths: Sequence[str] = (),
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    identity: str | os.PathLike[str] | Signer | None = None,
) -> BuildAppFunc:
    """Return a function like `build_app_func` whose app also opens sealed requests and seals their responses.

    The app needs keys: `inject_key_lifespan(inject_middleware(build_app), 300)`. The new function has the same name,
    docstring and signature and passes on whatever arguments it gets.

    Args:
        build_app_func: builds the app.
        required: answer requests that carry a body in plaintext with an error (True), or all that are not sealed by
            version 1 of the wire (`"v1"`), except for those for the key and OPTIONS.
        place: what a request of version 1 is held to: `"exact"`, `"suffix"` or `"off"`. See `EncryptedBodyMiddleware`.
        replay: `"refuse"` answers a sealed request with 409 that this host received before, `"refuse-everywhere"` also
            one that another host received; `"allow"` serves it again. See `EncryptedBodyMiddleware`.
        store_away: for `"refuse-everywhere"`, what happens to requests while the store is away: `"refuse"` or
            `"allow"`.
        open_paths: paths, as the app sees them, for which nothing is required, such as those of health checks.
        max_frame_bytes: the longest frame that is taken, from 64 KiB + 16 bytes to 64 MiB.
        max_buffered_bytes: how much memory the unfinished requests of this process may hold together. See
            `EncryptedBodyMiddleware`.
        identity: who signs the published keys: a file, or a `Signer`. See `protect`.

    Returns:
        A function with the signature of `build_app_func`, whose app seals.

    Raises:
        TypeError: `build_app_func` is no function, `required` is neither a bool nor `"v1"`, `place` or `replay` is no
            str, `open_paths` is no sequence of str, a limit is not an int, `identity` is neither a path nor a `Signer`;
            from the new function: `build_app_func` returned something else than a FastAPI app.
        ValueError: `place`, `replay`, `store_away` or a path has no known form, a limit is out of its range, `identity`
            is the public half.
        RuntimeError: from the new function: the app is protected already, but with another limit, another identity,
            other places or open paths, another `replay`, or with less required.
    """
    _require_build_app_func(build_app_func)
    sealing = SealingPlan.checked(
        required, place, (replay, store_away), open_paths, (max_frame_bytes, max_buffered_bytes), identity
    )
    return _then(build_app_func, functools.partial(add, sealing=sealing))


def _then(build_app_func: BuildAppFunc, change: Callable[[FastAPI], None]) -> BuildAppFunc:
    """Return a function like `build_app_func` that also makes `change` to the app that it builds."""

    @functools.wraps(build_app_func)
    def build_app(*args: Any, **kwargs: Any) -> FastAPI:
        app = _built_app(build_app_func, *args, **kwargs)
        change(app)
        return app

    return build_app


def _require_build_app_func(build_app_func: object) -> None:
    if not callable(build_app_func) or isinstance(build_app_func, FastAPI):
        raise TypeError(f"build_app_func must be a function that returns a FastAPI app, not {build_app_func!r}")


def _built_app(build_app_func: BuildAppFunc, *args: Any, **kwargs: Any) -> FastAPI:
    """Return what `build_app_func` builds, or raise TypeError if that is not a FastAPI app."""
    app = build_app_func(*args, **kwargs)
    if not isinstance(app, FastAPI):
        name = getattr(build_app_func, "__qualname__", repr(build_app_func))
        if inspect.iscoroutine(app):
            app.close()
            raise TypeError(f"{name} is a coroutine function: keys are added to functions that return the app itself")
        raise TypeError(f"{name} must return a FastAPI app, but returned {type(app).__name__}: {app!r:.80}")
    return app
