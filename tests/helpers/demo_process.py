"""The demo as a process of its own."""

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

COMMAND = (sys.executable, "-m", "examples.demo")


@dataclass
class Demo:
    """A running demo process."""

    process: subprocess.Popen[str]
    url: str
    port: int
    lines: list[str]

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in (response.headers["Content-Type"] or "")
            return response.status, json.loads(content) if is_json else content, response.headers
        finally:
            connection.close()

    def wait_for_line(self, pattern: str, within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while not any(re.search(pattern, line) for line in tuple(self.lines)):
            assert time.monotonic() < deadline, f"no line with {pattern!r} in {self.lines}"
            time.sleep(0.02)


@contextmanager
def running_demo(*arguments: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = process.stdout
    lines: list[str] = []
    demo = Demo(process, "", 0, lines)

    reader = threading.Thread(target=lambda: lines.extend(output))
    reader.start()
    try:
        demo.wait_for_line(r"http://\S+:\d+/")
        found = re.search(r"(http://\S+:(\d+))/", lines[0])
        assert found, lines
        demo.url, demo.port = found[1], int(found[2])
        yield demo
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            reader.join(10)
            output.close()
