"""Processes that serve the app of `whole_server`, each protected in its way."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# The event loop and the HTTP parser that `uvicorn[standard]` and vLLM bring.
LOOP_AND_PARSER: Final = ("uvloop", "httptools")


class WholeServer:
    """A server process of its own."""

    def __init__(self, protection: str) -> None:
        command = [sys.executable, "-m", "benches.whole_server", protection, *LOOP_AND_PARSER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{json.loads(self._process.stdout.readline())}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def whole_servers(protections: Iterable[str]) -> Iterator[dict[str, WholeServer]]:
    """Run a server for each kind of protection."""
    servers = {protection: WholeServer(protection) for protection in protections}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.stop()


class PeakMemory:
    """By how much a process grows from now on, at most. Linux alone tells."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak until now
        self._before = self._bytes("VmRSS")

    def grown_bytes(self) -> int:
        return self._bytes("VmHWM") - self._before

    def _bytes(self, what: str) -> int:
        found = re.search(rf"^{what}:\s+(\d+) kB", self._status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024
