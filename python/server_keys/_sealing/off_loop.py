"""Work that would hold the event loop up, done by threads of its own."""

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Not the event loop's own threads: blocking work of the app may keep all of them busy.
_threads: ThreadPoolExecutor


async def run_off_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` in another thread, and return what it returns."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(work, *args, **kwargs))


def _renew_threads() -> None:
    """Make the pool; its threads start on demand. A forked child has none of its parent's and would wait for them."""
    global _threads
    _threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="server_keys open")


_renew_threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_threads)
