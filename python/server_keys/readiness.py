"""Whether an app is ready to open sealed requests: what a load balancer asks before it sends it any.

`app.add_api_route("/ready", ready)` answers Kubernetes' readiness probe. The answer contains no secret.
"""

from fastapi.applications import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from server_keys._keys.app_ring import held_ring, is_serving
from server_keys.errors import KeysUnavailableError

__all__ = ["is_ready", "ready", "why_not_ready"]


def is_ready(app: FastAPI) -> bool:
    """Return whether `app` has a key that is not overdue, and neither starts nor shuts down.

    Args:
        app: an app with a key lifespan.

    Returns:
        True if it can open sealed requests now.
    """
    return why_not_ready(app) is None


def why_not_ready(app: FastAPI) -> str | None:
    """Return why `app` is not ready to open sealed requests, for an operator; None if it is ready.

    A key is overdue when the tries to replace it fail. While the store of a shared ring is away, the keys that it
    delivered live out their time, and then the process makes its own. So that alone makes no app unready: else one
    store that stops would stop all servers.

    Args:
        app: an app with a key lifespan.

    Returns:
        The reason in a sentence, without a secret; None if there is none.
    """
    ring = held_ring(app)
    if ring is None:
        return "the app has no key ring: its lifespan does not run, or gives no keys"
    if not is_serving(ring):
        return "the app starts or shuts down"
    try:
        key = ring.current  # replaces a key whose time has come
    except KeysUnavailableError as error:
        return str(error)
    status = ring.status
    if key.erased or status.age_s is None:
        return "the current key was erased"
    if status.last_error is not None and status.age_s > ring.period_s:
        return (
            f"the key is {status.age_s:.0f} s old and was to be replaced after {ring.period_s:g} s: {status.failures} "
            f"tries failed, the last with {status.last_error}"
        )
    return None


async def ready(request: Request) -> JSONResponse:
    """Answer 200 if the app that serves this request is ready, and 503 with the reason if it is not.

    An endpoint: `app.add_api_route("/ready", ready)`.

    Args:
        request: the request. FastAPI passes it.

    Returns:
        `{"ready": true}`, or `{"ready": false, "reason": "…"}`, which no cache keeps.
    """
    reason = why_not_ready(request.app)
    content = {"ready": True} if reason is None else {"ready": False, "reason": reason}
    return JSONResponse(content, 200 if reason is None else 503, headers={"Cache-Control": "no-store"})
