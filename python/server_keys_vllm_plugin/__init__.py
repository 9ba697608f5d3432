"""The endpoint plugin `server_keys` and its check at the start, as vLLM's plugin loader imports them.

vLLM logs that it cannot import a plugin, and serves without it: without keys. So this package stands outside of
`server_keys` and imports nothing that may be broken. If `server_keys` itself is broken, the server ends.
"""

import importlib
import os
import re
from typing import Any

NAME = "server_keys"

# What Kubernetes sets in each pod for a service whose name begins with `server-keys`.
_OF_A_SERVICE = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


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
    """Let vLLM's own server end before it loads a model if it was asked for keys and would have none.

    This is the general plugin `server_keys`: vLLM calls it in every process.

    Raises:
        SystemExit: keys were asked for, and `server_keys` cannot be imported.
    """
    asked_by = _settings()
    if asked_by or NAME in os.environ.get("VLLM_PLUGINS", "").split(","):
        _plugin().check_start(NAME, asked_by)


def _settings() -> list[str]:
    return sorted(name for name in os.environ if name.startswith("SERVER_KEYS_") and not _OF_A_SERVICE.fullmatch(name))


def _plugin() -> Any:
    try:
        return importlib.import_module("server_keys.vllm.plugin")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SystemExit(f"server-keys: the plugin for vLLM cannot be imported: {reason}") from error
