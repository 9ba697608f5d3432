"""What the processes of one demo tell each other for show: the lives of their key pairs, in files of a folder.

The keys themselves are shared by server-keys. This is for the page and the terminal, which see all processes at once,
whichever of them answers.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.demo.key_history import REMEMBERED, KeyLife
from server_keys import KeyRing

# A process tells the others ten times a second. After this time one that hangs counts as gone.
_SILENT_S = 2.0
# For so long a process that is gone is still shown.
_SHOWN_S = 15.0


@dataclass(frozen=True, slots=True)
class Process:
    """What one process told last."""

    pid: int
    told_at: float
    lives: tuple[KeyLife, ...]
    unerased: int
    """How many pairs it holds."""
    shared: bool
    why_not: str | None
    epoch: int | None
    members: int | None


class Board:
    """A folder with a file for each process.

    Args:
        folder: where the files are.
        clock: tells the time in seconds. All processes of a machine have the default one in common.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock

    def tell(self, ring: KeyRing, lives: tuple[KeyLife, ...], unerased: int) -> None:
        """Tell the others what this process holds."""
        sharing = ring.status.sharing
        process = Process(
            pid=os.getpid(),
            told_at=self._clock(),
            lives=lives,
            unerased=unerased,
            shared=sharing.shared,
            why_not=sharing.why_not,
            epoch=sharing.epoch,
            members=sharing.members,
        )
        new = self._folder / f"{process.pid}.new"
        new.write_text(json.dumps(asdict(process)))
        new.replace(self._folder / f"{process.pid}.json")

    def processes(self) -> list[Process]:
        """Return all processes that told something, by their ids."""
        found = [_read(json.loads(path.read_text())) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda process: process.pid)

    def shown(self) -> list[Process]:
        """Return the processes that serve, and those that went a short time ago."""
        return [process for process in self.processes() if self.silent_s(process) < _SHOWN_S]

    def silent_s(self, process: Process) -> float:
        """Return the seconds since a process told something."""
        return self._clock() - process.told_at

    def serves(self, process: Process) -> bool:
        """Return whether a process lives and told something lately."""
        return self.silent_s(process) < _SILENT_S and _lives(process.pid)

    def lives(self) -> tuple[KeyLife, ...]:
        """Return the lives of the latest pairs in all processes that serve, newest first."""
        return together(life for process in self.processes() if self.serves(process) for life in process.lives)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # only POSIX systems get here: there it sends nothing
    except ProcessLookupError:
        return False
    return True


def together(lives: Iterable[KeyLife]) -> tuple[KeyLife, ...]:
    """Return one life for each pair. It is replaced, and erased, when the last process that held it has done so."""
    by_key = defaultdict(list)
    for life in lives:
        by_key[life.public_key].append(life)
    merged = sorted(map(_merged, by_key.values()), key=lambda life: (life.number, life.made_at), reverse=True)
    return tuple(merged[:REMEMBERED])


def _merged(lives: list[KeyLife]) -> KeyLife:
    return KeyLife(
        number=max(life.number for life in lives),
        public_key=lives[0].public_key,
        made_at=min(life.made_at for life in lives),
        replaced_at=_last([life.replaced_at for life in lives]),
        erased_at=_last([life.erased_at for life in lives]),
        agreements=sum(life.agreements for life in lives),
        is_coming=all(life.is_coming for life in lives),
    )


def _last(times: list[float | None]) -> float | None:
    known = [at for at in times if at is not None]
    return max(known) if len(known) == len(times) else None


def _read(told: dict[str, Any]) -> Process:
    return Process(**{**told, "lives": tuple(KeyLife(**life) for life in told["lives"])})
