"""Functions that change an app: they add keys for as long as it runs, sealed bodies, or both."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# OpenTelemetry replaces `fastapi.FastAPI` by a subclass. Apps that were made before are no instances of that.
from fastapi.applications import FastAPI
from starlette.types import ASGIApp

from server_keys import middleware
from server_keys._checks import (
    Place,
    Replay,
    Required,
    StoreAway,
    checked_max_buffered_bytes,
    checked_max_frame_bytes,
    checked_open_paths,
    checked_place,
    checked_replay,
    checked_required,
    overlap_seconds,
    period_seconds,
)
from server_keys._keys.lifespan import Lifespan, applied_plan, ephemeral_key_lifespan_factory
from server_keys._keys.startup import StartupCheck
from server_keys._outermost import put_outermost
from server_keys._sealing.middleware import EncryptedBodyMiddleware
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES, DEFAULT_MAX_FRAME_BYTES
from server_keys._sealing.signer import Signer, checked_identity
from server_keys._sharing.key_plan import KeyPlan
from server_keys.middleware import BuildAppFunc

_STRICTNESS: dict[Required, int] = {False: 0, True: 1, "v1": 2}
_TAKES: dict[Required, str] = {False: "takes bodies in plaintext", True: "takes more than version 1 of the wire"}

# An attribute of the app: what was added to it. The app's state would not do, because that may be deleted.
_ADDITIONS = "_server_keys_additions"


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
    sealing = _Sealing.checked(
        required, place, (replay, store_away), open_paths, (max_frame_bytes, max_buffered_bytes), identity
    )
    if _has_served(app) and _Additions.of(app).sealing is None:
        # Its lifespan may run already, and would make no keys.
        raise RuntimeError("the app has begun to serve: protect it before its first request")
    _add(app, with_keys=with_keys, sealing=sealing)
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
    return _then(build_app_func, functools.partial(_add, with_keys=with_keys))


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
    sealing = _Sealing.checked(
        required, place, (replay, store_away), open_paths, (max_frame_bytes, max_buffered_bytes), identity
    )
    return _then(build_app_func, functools.partial(_add, sealing=sealing))


@dataclass(frozen=True)
class _Sealing:
    """How an app is to seal bodies: the arguments of its `EncryptedBodyMiddleware`, checked."""

    required: Required
    place: Place
    replay: Replay
    store_away: StoreAway | None
    open_paths: tuple[str, ...]
    max_frame_bytes: int
    max_buffered_bytes: int
    identity: str | Signer | None

    @classmethod
    def checked(
        cls,
        required: Required,
        place: Place,
        replays: tuple[Replay, StoreAway | None],
        open_paths: Sequence[str],
        limits: tuple[int, int],
        identity: str | os.PathLike[str] | Signer | None,
    ) -> "_Sealing":
        """Return them.

        Raises:
            TypeError: one is of another type.
            ValueError: one has no known form, or is out of its range.
        """
        max_frame_bytes, max_buffered_bytes = limits
        return cls(
            checked_required(required),
            checked_place(place),
            *checked_replay(*replays),
            checked_open_paths(open_paths),
            checked_max_frame_bytes(max_frame_bytes),
            checked_max_buffered_bytes(max_buffered_bytes, max_frame_bytes),
            None if identity is None else checked_identity(identity),
        )

    def require_compatible(self, other: "_Sealing") -> None:
        """Check that an app which seals like this already does what `other` asks for.

        Raises:
            RuntimeError: it does not; the message says why.
        """
        if _STRICTNESS[other.required] > _STRICTNESS[self.required]:
            raise RuntimeError(
                f"the app is protected already, and {_TAKES[self.required]}: pass required={other.required!r} to the "
                "call that protected it first"
            )
        for name in (
            *("place", "replay", "store_away", "open_paths"),
            *("max_frame_bytes", "max_buffered_bytes", "identity"),
        ):
            has, asked = getattr(self, name), getattr(other, name)
            if has != asked:
                raise RuntimeError(
                    f"the app is protected already, with {name}={has!r}, and cannot have {name}={asked!r}, too: give "
                    "both calls the same"
                )

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with sealed bodies."""
        return EncryptedBodyMiddleware(
            app,
            required=self.required,
            place=self.place,
            replay=self.replay,
            store_away=self.store_away,
            open_paths=self.open_paths,
            max_frame_bytes=self.max_frame_bytes,
            max_buffered_bytes=self.max_buffered_bytes,
            identity=self.identity,
        )


@dataclass(frozen=True)
class _Additions:
    """The keys and the sealing that server_keys adds to an app."""

    keys: KeyPlan | None = None
    sealing: _Sealing | None = None

    @classmethod
    def of(cls, app: FastAPI) -> "_Additions":
        """Return what was added to `app` already."""
        additions = vars(app).get(_ADDITIONS)
        return additions if isinstance(additions, cls) else cls()

    def put_around(self, app: FastAPI) -> None:
        """Add to `app` what it does not have.

        Raises:
            RuntimeError: it has something of the kind that contradicts this.
        """
        has = self.of(app)
        if has.keys and self.keys:
            has.keys.require_same(self.keys)
        if has.sealing and self.sealing:
            has.sealing.require_compatible(self.sealing)
        both = _Additions(has.keys or self.keys, has.sealing or self.sealing)
        if both != has:
            vars(app)[_ADDITIONS] = both
            put_outermost(app, both._around)

    def _around(self, app: ASGIApp) -> ASGIApp:
        if self.sealing:
            app = self.sealing.around(app)
        return StartupCheck(app, self.keys) if self.keys else app


def _add(
    app: FastAPI, *, with_keys: Callable[[Lifespan | None], Lifespan] | None = None, sealing: _Sealing | None = None
) -> None:
    """Add keys, sealing or both to `app`; add neither if one of them contradicts what the app has."""
    lifespan = with_keys(app.router.lifespan_context) if with_keys else app.router.lifespan_context
    keys = applied_plan(lifespan) if with_keys else None
    _Additions(keys, sealing).put_around(app)
    app.router.lifespan_context = lifespan


def _has_served(app: FastAPI) -> bool:
    # The first call of an app builds its stack. So does OpenTelemetry's `uninstrument_app`, which sets this to False.
    return app.middleware_stack is not None and getattr(app, "_is_instrumented_by_opentelemetry", True)


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
