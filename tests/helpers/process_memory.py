"""The memory of another process, as Linux shows it: its mappings, their flags, and what they contain."""

import contextlib
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+ *(.*)")
# The kernel's own pages: no process can write there, and reading them fails.
_KERNEL_PAGES = ("[vvar", "[vsyscall]")


@dataclass(frozen=True)
class Mapping:
    """One range of addresses, as /proc/<pid>/smaps describes it."""

    start: int
    end: int
    permissions: str
    name: str
    flags: frozenset[str]

    @property
    def is_protected(self) -> bool:
        """Locked (lo), left out of core dumps (dd), wiped in a forked child (wf)."""
        return self.flags >= {"lo", "dd", "wf"}


def mappings(pid: int) -> list[Mapping]:
    """All mappings of a process, in the order of their addresses."""
    found = []
    header: tuple[str, ...] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := _HEADER.fullmatch(line):
            header = match.groups()
        elif header and line.startswith("VmFlags:"):
            start, end, permissions, name = header
            flags = frozenset(line.split()[1:])
            found.append(Mapping(int(start, 16), int(end, 16), permissions, name, flags))
    return found


def contents(pid: int) -> list[tuple[Mapping, bytes]]:
    """Each readable mapping of a process, with its content."""
    read = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for mapping in mappings(pid):
            if mapping.permissions.startswith("r") and not mapping.name.startswith(_KERNEL_PAGES):
                memory.seek(mapping.start)
                # A file's mapping may reach beyond its file, where nothing can be read.
                content = bytearray()
                while len(content) < mapping.end - mapping.start:
                    try:
                        piece = memory.read(mapping.end - mapping.start - len(content))
                    except OSError:
                        break
                    content += piece
                read.append((mapping, bytes(content)))
    return read


class Victim:
    """A process that stops where its script says so, for its memory to be read."""

    def __init__(self, process: "subprocess.Popen[str]", pid: int) -> None:
        self._process = process
        self._pid = pid
        self._running = False

    def run_to(self, step: str, *, told: str = "", timeout_s: float = 60) -> str:
        """Let the script go on until it has reached `step`, and return what it reports there.

        Args:
            step: what the script passes to `reached`.
            told: the value that the script's waiting call of `reached` returns.
            timeout_s: seconds after which the script counts as hanging.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._running:
            self._process.stdin.write(f"{told}\n")
            self._process.stdin.flush()
        self._running = True
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        assert ready, f"the script hangs before {step!r}"
        reached_step, _, report = self._process.stdout.readline().rstrip("\n").partition("\t")
        assert reached_step == step
        return report

    def mappings(self) -> list[Mapping]:
        return mappings(self._pid)

    def contents(self) -> list[tuple[Mapping, bytes]]:
        return contents(self._pid)

    def child(self) -> "Victim":
        """The process that the script forked."""
        (pid,) = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return Victim(self._process, int(pid))

    def where(self, patterns: set[bytes]) -> list[Mapping]:
        """The mappings in which any of the patterns occurs."""
        assert patterns
        return [mapping for mapping, content in self.contents() if any(pattern in content for pattern in patterns)]


def only_in_protected_memory(process: Victim, patterns: set[bytes]) -> bool:
    """Whether any of the patterns is there, and none is anywhere else."""
    where = process.where(patterns)
    return bool(where) and all(mapping.is_protected for mapping in where)


def reached(step: str, report: str = "") -> str:
    """Stop a victim's script here, and return what `run_to` tells it when it may go on."""
    print(step, report, sep="\t", flush=True)
    return sys.stdin.readline().rstrip("\n")


@contextlib.contextmanager
def victim_of(script: str, *arguments: str, pass_fds: Sequence[int] = ()) -> Iterator[Victim]:
    """Run a script that calls `reached`, with `arguments` as its `sys.argv[1:]`, and kill it in the end."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    with subprocess.Popen(
        command, pass_fds=pass_fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Victim(process, process.pid)
        finally:
            process.kill()
