"""A real vLLM server as a child process of a test."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

MODEL_NAME = "tiny"
READY_WITHIN_S = 300.0
GONE_WITHIN_S = 60.0

BIN = Path(sys.executable).parent
ENTRYPOINT = (sys.executable, "-m", "server_keys.vllm")
CONSOLE_SCRIPT = (str(BIN / "server-keys-vllm"),)
VLLM_SERVE = (str(BIN / "vllm"), "serve")
API_SERVER_MODULE = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model")

# The model is small, and the machine may be small, too. Nothing is fetched or reported.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
# vLLM compiles code at its first start. The cache keeps it with the environment, and so between runs.
CACHE = {"VLLM_CACHE_ROOT": str(Path(sys.prefix) / "vllm-cache")}


Keys = dict[str, Any]
"""The keys of one process, as `key_probe.seen` tells them."""


class VllmServer:
    """`command MODEL options`, listening on a free port of 127.0.0.1, with the probe of `key_probe.py` in its app.

    Leaving the context kills whatever is left of it.
    """

    def __init__(
        self,
        command: Sequence[str],
        model: Path,
        folder: Path,
        *options: str,
        python_path: Sequence[Path] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.log_path = folder / "log.txt"
        self.reports_path = folder / "reports"
        self.reports_path.mkdir()
        fixed = ["--served-model-name", MODEL_NAME, "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
        listening = ["--max-num-seqs", "8", "--host", "127.0.0.1", "--port", str(self.port)]
        self.command = [*command, str(model), *fixed, *listening, "--middleware", "key_probe.KeyProbe", *options]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SERVER_KEYS_", "VLLM_"))
        }
        self.environment = {
            **inherited,
            **QUIET,
            **CACHE,
            "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parent, *python_path])),
            "KEY_PROBE_FOLDER": str(self.reports_path),
            **environment,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def __enter__(self) -> Self:
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()

    def wait_until_ready(self) -> Self:
        started = time.monotonic()
        while time.monotonic() - started < READY_WITHIN_S:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log[-6000:]}")
            try:
                self.get("/health")
            except OSError:
                time.sleep(0.5)
            else:
                print(f"\n  ready after {time.monotonic() - started:.0f} s: {' '.join(self.command[:3])}", flush=True)
                return self
        raise AssertionError(f"the server was not ready within {READY_WITHIN_S:g} s:\n{self.log[-6000:]}")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            body: bytes = response.read()
            return body

    def keys(self) -> Keys:
        """Return what `key_probe.seen` tells, of whichever API server process answers."""
        answer: Keys = json.loads(self.get("/test/keys"))
        return answer

    def keys_by_process(self, count: int, within_s: float = 60.0) -> dict[int, Keys]:
        """Ask until `count` processes have answered; return the newest answer of each by its pid."""
        answers: dict[int, Keys] = {}
        end = time.monotonic() + within_s
        while len(answers) < count and time.monotonic() < end:
            answer = self.keys()
            answers[answer["pid"]] = answer
        return answers

    def end(self, signal_number: int) -> tuple[int, list[Keys]]:
        """Send the signal to the main process; return its exit status and the reports of lifespans that ended."""
        self.process.send_signal(signal_number)
        status = self.process.wait(GONE_WITHIN_S)
        return status, [json.loads(path.read_text()) for path in sorted(self.reports_path.iterdir())]

    def ends_by_itself(self, within_s: float) -> tuple[int, list[str]]:
        """Wait for the end; return the exit status and the lines that server-keys said."""
        status = self.process.wait(within_s)
        return status, re.findall(r"server-keys(?:-vllm)?: .*", self.log)
