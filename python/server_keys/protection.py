"""Keys and encryption for an app in one line."""

from fastapi import FastAPI

from server_keys.ehbp import DEFAULT_MAX_FRAME_BYTES, checked_max_frame_bytes
from server_keys.lifespan import ephemeral_key_lifespan_factory
from server_keys.middleware import is_outside, put_middleware_outside


def protect(
    app: FastAPI,
    refresh_time: float = 300,
    *,
    overlap: float | None = None,
    required: bool = False,
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
) -> FastAPI:
    """Give `app` ephemeral keys, and let it open sealed requests and seal their responses (EHBP).

    The same as `ephemeral_key_lifespan_factory` and `EncryptedBodyMiddleware` together. A second call has no effect.

    Args:
        app: the app, before it serves.
        refresh_time: seconds between refreshes of the key.
        overlap: seconds for which a replaced key is still accepted, from 0 to `refresh_time`; `refresh_time` by
            default.
        required: answer requests that carry a body in plaintext with an error.
        max_frame_bytes: the longest frame that is taken, from 1 byte to 64 MiB.

    Returns:
        `app` itself.

    Raises:
        RuntimeError: the app has begun to serve, or is protected already, but without `required`.
        TypeError: `app` is no FastAPI app, a duration is not a number, `required` is not a bool, the limit is not an
            int.
        ValueError: a duration or the limit is out of its range.
    """
    if not isinstance(app, FastAPI):
        raise TypeError(f"app must be a FastAPI app, not {app!r}")
    if app.middleware_stack is not None and not is_outside(app):
        raise RuntimeError("the app has begun to serve: protect it before its first request")
    with_keys = ephemeral_key_lifespan_factory(refresh_time, overlap=overlap)
    put_middleware_outside(app, required=required, max_frame_bytes=checked_max_frame_bytes(max_frame_bytes))
    app.router.lifespan_context = with_keys(app.router.lifespan_context)
    return app
