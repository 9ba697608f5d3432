"""The memory of another process, as Linux shows it: its mappings, their flags, and what they contain."""

import re
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
    """What every readable mapping of a process contains."""
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
