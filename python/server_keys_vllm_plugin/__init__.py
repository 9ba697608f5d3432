"""What vLLM's plugin loader imports: the endpoint plugin `server_keys`, and its check at the start.

vLLM logs and goes on without a plugin that it cannot import, so without keys. This package stands outside `server_keys`
and imports nothing that may be broken; where `server_keys` is, the server ends.
"""

import importlib
import os
from typing import Any

NAME = "server_keys"


class EndpointPlugin:
    """vLLM's view of the plugin: a `vllm.plugins.endpoint_plugins.interface.EndpointPlugin`."""

    name = NAME
    required_tasks = None

    def attach_router(self, app: Any) -> None:
        """Give the app keys.

        Raises:
            SystemExit: no keys can be had.
        """
        _plugin().attach(app)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Do nothing: the keys come and go with the lifespan."""


def check_start() -> None:
    """End a server that was asked for keys and would have none.

    The general plugin `server_keys`, which vLLM loads in every process.

    Raises:
        SystemExit: it would have none.
    """
    asked_by_name = NAME in os.environ.get("VLLM_PLUGINS", "").split(",")
    if asked_by_name or any(name.startswith("SERVER_KEYS_") for name in os.environ):
        _plugin().check_start(NAME)


def _plugin() -> Any:
    try:
        return importlib.import_module("server_keys.vllm.plugin")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SystemExit(f"server-keys: the plugin for vLLM cannot be imported: {reason}") from error
