"""The check that an app which was given keys has them when it serves, and the message that says why not."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._keys.app_ring import STATE_CHANGED, has_running_key_lifespan, held_ring, why_refused
from server_keys._keys.lifespan import applied_plan
from server_keys._log import logger
from server_keys._sharing.key_plan import KeyPlan


class StartupCheck:
    """ASGI middleware that fails the start-up of an app which was given a key lifespan and still has no keys.

    Where nobody runs the lifespan, the first request logs why there are no keys. Where a lifespan runs for each
    request, a warning says what that means.

    Args:
        app: the ASGI app. The scope's "app" is the FastAPI app that holds the keys.
        plan: the plan of the keys that were added.
    """

    def __init__(self, app: ASGIApp, plan: KeyPlan) -> None:
        self.app = app
        self._plan = plan
        self._requests = 0
        self._requests_of_last_run: int | None = None
        self._told_of_missing_keys = False
        self._told_of_short_runs = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._run(scope, receive, send)
        else:
            self._requests += 1
            if not self._told_of_missing_keys and held_ring(scope["app"]) is None:
                self._told_of_missing_keys = True
                logger().error(_why_missing_while_serving(scope["app"]))
            await self.app(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan."""
        app = scope["app"]  # A dispatcher may give one scope to several apps, and each of them puts itself there.
        self._warn_of_short_runs(scope)
        self._requests = 0
        missing: str | None = None

        async def send_if_there_are_keys(message: Message) -> None:
            nonlocal missing
            if message["type"] == "lifespan.startup.complete" and not _has_keys(app):
                missing = _why_missing_at_start(app, self._plan)
                raise RuntimeError(missing)  # into the app's own lifespan, which cleans up and ends
            if message["type"] == "lifespan.startup.failed" and (refusal := why_refused(app)) is not None:
                # Starlette puts a traceback there, which tells operators no more.
                message = {**message, "message": refusal}
            if missing is None:
                await send(message)

        async def receive_unless_refused() -> Message:
            # Where something caught what was raised above, the app would wait for its shutdown, and the server for it.
            return await receive() if missing is None else {"type": "lifespan.shutdown"}

        try:
            await self.app(scope, receive_unless_refused, send_if_there_are_keys)
        except Exception:
            if missing is None:
                raise
        finally:
            self._requests_of_last_run = self._requests
        if missing is not None:
            await send({"type": "lifespan.startup.failed", "message": missing})
            raise RuntimeError(missing)

    def _warn_of_short_runs(self, scope: Scope) -> None:
        # Tests may enter a TestClient for each request. That is no such host: Starlette's TestClient sends no "asgi".
        if self._requests_of_last_run == 1 and not self._told_of_short_runs and "asgi" in scope:
            self._told_of_short_runs = True
            logger().warning(
                "this app's lifespan ended after one request and now starts again: its host runs a lifespan for each "
                "invocation, as adapters for AWS Lambda do. Each one makes new keys and erases them at its end, so a "
                "client's key is gone before its next request, and sealed requests are refused (422). Run the app "
                "under a server that stays, such as uvicorn behind the AWS Lambda Web Adapter"
            )


def _has_keys(app: FastAPI) -> bool:
    ring = held_ring(app)
    return ring is not None and not ring.status.closed


def _why_missing_at_start(app: FastAPI, plan: KeyPlan) -> str:
    if has_running_key_lifespan(app):
        return f"the app has no keys: during its start-up, {STATE_CHANGED}"
    lifespan = app.router.lifespan_context
    if applied_plan(lifespan) is not None:
        return (
            "the app has no keys: something answered its start-up without running app.router.lifespan_context, which "
            "makes them. Look for middleware that does not pass lifespans on"
        )
    named = lifespan if hasattr(lifespan, "__qualname__") else type(lifespan)
    return (
        "the app has no keys: app.router.lifespan_context was replaced after they were added, by "
        f"{named.__module__}.{named.__qualname__}. Assign it before protect(app) or inject_key_lifespan, or add keys "
        f"to it: app.router.lifespan_context = ephemeral_key_lifespan_factory({plan.schedule.period_s:g}, "
        f"overlap={plan.schedule.overlap_s:g})(app.router.lifespan_context)"
    )


def _why_missing_while_serving(app: FastAPI) -> str:
    if has_running_key_lifespan(app):
        return f"the app serves without its keys, so sealed requests and handlers that want keys fail: {STATE_CHANGED}"
    return (
        "the app serves without keys, so sealed requests and handlers that want keys fail: nobody runs its lifespan, "
        "which makes them. Start uvicorn without `--lifespan off`; take another server than daphne, which runs none; "
        "in a test, enter the client (`with TestClient(app) as client:`). Nobody runs the lifespan of a mounted app: "
        "protect the outer app instead"
    )
