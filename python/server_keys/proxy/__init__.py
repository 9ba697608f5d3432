"""The two ends of sealed bodies for programs that are not Python: an ASGI app for each.

`seal_app` is the client's end: any program that can set a base URL sends it plaintext on its own machine, and sealed
bodies leave. `open_app` is the server's end: it opens what comes for any HTTP server behind it. Bodies pass in both
directions piece by piece. The commands `server-keys seal` and `server-keys open` run them.

Both need httpx2. They are made of `server_keys.client` and `server_keys.protect`, so what is said there holds here.
"""

import importlib
from typing import TYPE_CHECKING

from server_keys.proxy.options import Limits, OpenOptions, SealOptions

if TYPE_CHECKING:
    from server_keys.proxy.opening import open_app
    from server_keys.proxy.sealing import seal_app

__all__ = ["Limits", "OpenOptions", "SealOptions", "open_app", "seal_app"]

_HOMES = {"open_app": "opening", "seal_app": "sealing"}

# Type checkers would let a module with a `__getattr__` have every attribute.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
        except ModuleNotFoundError as error:
            if error.name != "httpx2":
                raise
            raise ModuleNotFoundError(
                f"{name} needs httpx2, which is not installed: pip install httpx2, or install server-keys with its "
                "extra `command`",
                name=error.name,
            ) from error
