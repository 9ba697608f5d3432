"""The Compose and Kubernetes files of the examples, and the commands that they run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = sorted(ROOT.glob("examples/*/compose.yaml"))
KUBERNETES = sorted(ROOT.glob("examples/*/kubernetes.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@dataclass(frozen=True)
class Container:
    """One container of a file."""

    file: Path
    name: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file.parent.name}/{self.file.stem}/{self.name}"


def containers() -> Iterator[Container]:
    """Yield each container of all files."""
    for path in COMPOSE:
        for name, service in documents(path)[0]["services"].items():
            # Compose puts the values of variables in before it takes the command apart.
            command = re.sub(r"\$\{(\w+)[^}]*\}", r"\1", service.get("command", ""))
            yield Container(path, name, tuple(shlex.split(command)))
    for path in KUBERNETES:
        for document in documents(path):
            if document["kind"] == "Deployment":
                for container in document["spec"]["template"]["spec"]["containers"]:
                    words = [*container.get("command", []), *container.get("args", [])]
                    yield Container(path, container["name"], tuple(words))
