"""The demo's keys as text: a live table in a terminal, plain lines in a pipe or a file."""

import asyncio
import logging
import os
import shutil
import signal
import threading
import time
from typing import TextIO

from examples.demo.board import Board
from examples.demo.key_history import KeyEvent, KeyHistory, KeyLife

_ROWS = 6
_FRAME_S = 0.1
_BAR_CELLS = 24
_HIDE_CURSOR, _SHOW_CURSOR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[0J"
_STYLES = {"current": "\x1b[1;32m", "overlap": "\x1b[33m", "erased": "\x1b[2m", "plain": "", "title": "\x1b[1m"}
_RESET = "\x1b[0m"


def is_live(output: TextIO) -> bool:
    """Whether `output` is a terminal that understands control sequences."""
    return output.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str, output: TextIO) -> None:
    """Print a line at once. If nobody reads `output` any more, end the program with SIGTERM."""
    try:
        print(text, file=output, flush=True)
    except BrokenPipeError:
        # Python flushes the output at exit, which would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output.fileno())
        os.close(nowhere)
        signal.raise_signal(signal.SIGTERM)


class PlainView:
    """Prints one line for each event."""

    def __init__(self, output: TextIO, overlap_s: float) -> None:
        self._output = output
        self._overlap_s = overlap_s

    def tell(self, event: KeyEvent, life: KeyLife) -> None:
        """Print what happened to a key pair."""
        what = {
            "came": f"came, published in {max(life.made_at - time.monotonic(), 0):.1f} s" if life.is_coming else "came",
            "published": "published",
            "replaced": f"replaced, accepted for {self._overlap_s:g} s more",
            "erased": f"erased after {(life.erased_at or 0.0) - life.made_at:.1f} s",
            "agreed": f"used for key agreement {life.agreements}",
        }[event]
        say(f"{time.strftime('%H:%M:%S')} key {life.number:>3} {life.short_id}… {what}", self._output)


class GroupView:
    """Prints one line for each event of the processes that serve together, and of their key pairs."""

    def __init__(self, output: TextIO, board: Board, overlap_s: float) -> None:
        self._output = output
        self._board = board
        self._keys = PlainView(output, overlap_s)
        self._serving: dict[int, bool] = {}
        self._lives: dict[str, KeyLife] = {}

    def show(self, until: threading.Event) -> None:
        """Print what happens until that event."""
        while not until.wait(_FRAME_S):
            self.look()

    def look(self) -> None:
        """Print what has happened since the last look."""
        for process in self._board.processes():
            serves = self._board.serves(process)
            if serves == self._serving.get(process.pid, False):
                continue
            self._serving[process.pid] = serves
            count = sum(self._serving.values())
            what = f"serves ({count} now). To see what its end does: kill -9 {process.pid}" if serves else "is gone"
            say(f"{time.strftime('%H:%M:%S')} process {process.pid} {what}", self._output)
        for life in reversed(self._board.lives()):
            before = self._lives.get(life.public_key)
            self._lives[life.public_key] = life
            for event in _events_between(before, life):
                self._keys.tell(event, life)


def _events_between(before: KeyLife | None, after: KeyLife) -> list[KeyEvent]:
    """Return what happened to a key pair between two looks."""
    events: list[KeyEvent] = [] if before else ["came"]
    if before and before.is_coming and not after.is_coming:
        events.append("published")
    if after.replaced_at is not None and (before is None or before.replaced_at is None):
        events.append("replaced")
    if after.erased_at is not None and (before is None or before.erased_at is None):
        events.append("erased")
    if after.agreements > (before.agreements if before else 0):
        events.append("agreed")
    return events


class LiveView:
    """Draws a table of the latest key pairs over itself, ten times a second."""

    def __init__(self, output: TextIO, history: KeyHistory, period_s: float, overlap_s: float) -> None:
        self._output = output
        self._history = history
        self._period_s = period_s
        self._overlap_s = overlap_s
        self._colour = "NO_COLOR" not in os.environ
        self._lines_drawn = 0

    async def show(self) -> None:
        """Draw until cancelled."""
        self._output.write(_HIDE_CURSOR)
        try:
            while True:
                self._draw()
                await asyncio.sleep(_FRAME_S)
        finally:
            self._draw()
            self._output.write(_SHOW_CURSOR)
            self._output.flush()

    def write_above(self, text: str) -> None:
        """Print `text` in place of the table, and the table below it."""
        self._erase()
        self._output.write(text.rstrip("\n") + "\n")
        self._draw()

    def _erase(self) -> None:
        if self._lines_drawn:
            self._output.write(f"\x1b[{self._lines_drawn}F{_CLEAR_BELOW}")
            self._lines_drawn = 0

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        lines = [self._row(life) for life in self._history.lives[:_ROWS]]
        lines += [("plain", "")] * (_ROWS - len(lines))
        # Drawing over the old lines does not flicker; clearing them first would.
        back = f"\x1b[{self._lines_drawn}F" if self._lines_drawn else ""
        drawn = "".join(f"{_CLEAR_LINE}{self._styled(style, text[: width - 1])}\n" for style, text in lines)
        self._output.write(back + drawn)
        self._output.flush()
        self._lines_drawn = len(lines)

    def _row(self, life: KeyLife) -> tuple[str, str]:
        now = self._history.now()
        uses = f"  {life.agreements} agreed" if life.agreements else ""
        name = f"key {life.number:>3}  {life.short_id}…"
        if life.erased_at is not None:
            return (
                "erased",
                f"  ○ {name}  erased    {'·' * _BAR_CELLS}  after {life.erased_at - life.made_at:.1f} s{uses}",
            )
        if life.replaced_at is not None:
            left_s = max(life.replaced_at + self._overlap_s - now, 0.0)
            return "overlap", f"  ◐ {name}  accepted  {_bar(left_s, self._overlap_s)}  erased in {left_s:.1f} s{uses}"
        left_s = max(life.made_at + self._period_s - now, 0.0)
        return "current", f"  ● {name}  current   {_bar(left_s, self._period_s)}  replaced in {left_s:.1f} s{uses}"

    def _styled(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self._colour and _STYLES[style] else text


class LogAboveTable(logging.Handler):
    """Writes log lines above the live table instead of through it."""

    def __init__(self, view: LiveView) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._view.write_above(self.format(record))
        except Exception:  # noqa: BLE001 - a log line must never end the program
            self.handleError(record)


def _bar(left_s: float, whole_s: float) -> str:
    filled = round(_BAR_CELLS * min(left_s / whole_s, 1.0)) if whole_s else 0
    return "█" * filled + "░" * (_BAR_CELLS - filled)
