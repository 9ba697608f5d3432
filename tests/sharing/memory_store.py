"""A store in memory, for members whose time a test holds. Real stores have tests of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from server_keys._sharing.store import MOST_ASKS, CrowdedStoreError, Look, StoreError, Taken


@dataclass
class Shelf:
    """What a group's store holds. The test may look, and write."""

    clock: Callable[[], float]
    register: bytes = b""
    asks: dict[bytes, tuple[float, bytes]] = field(default_factory=dict)
    waiting: set[bytes] = field(default_factory=set)
    boxes: dict[bytes, bytes] = field(default_factory=dict)
    set_ahead_s: float = 0.0
    """How far the store's clock was set ahead."""

    @property
    def time_ms(self) -> int:
        return int((1e6 + self.clock() + self.set_ahead_s) * 1000)

    @property
    def size(self) -> int:
        return len(self.register) + sum(
            len(name) + len(value)
            for entries in (self.boxes, {name: ask for name, (_, ask) in self.asks.items()})
            for name, value in entries.items()
        )


class MemoryStore:
    """One member's handle on a shelf."""

    shown = "memory"

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.is_away = False
        self.is_slow: Callable[[], None] = lambda: None
        """Lets time pass until the store answers."""
        self.commits_late: list[Callable[[], bool]] | None = None
        """If this is a list, commits go there and raise, as if the store had stopped with them in its socket."""

    def look(self, name: bytes) -> Look:
        shelf = self._reached()
        return Look(shelf.register, len(shelf.asks), len(shelf.waiting), name in shelf.asks, shelf.time_ms)

    def commit(self, expected: bytes, register: bytes, boxes: Mapping[bytes, bytes], keep_s: float) -> bool:
        shelf = self._reached()

        def apply() -> bool:
            if shelf.register != expected:
                return False
            shelf.register, shelf.boxes, shelf.waiting = register, dict(boxes), set()
            oldest = shelf.clock() - keep_s
            shelf.asks = {name: (at, ask) for name, (at, ask) in shelf.asks.items() if at >= oldest}
            return True

        if self.commits_late is not None:
            self.commits_late.append(apply)
            raise StoreError("it does not answer")
        return apply()

    def restore(self, expected: bytes, register: bytes, keep_s: float) -> bool:
        shelf = self._reached()
        if shelf.register != expected:
            return False
        shelf.register = register
        return True

    def ask(self, name: bytes, ask: bytes, *, waits: bool, keep_s: float) -> None:
        shelf = self._reached()
        if name not in shelf.asks and len(shelf.asks) >= MOST_ASKS:
            raise CrowdedStoreError("full")
        shelf.asks[name] = shelf.clock(), ask
        if waits:
            shelf.waiting.add(name)

    def asks(self) -> dict[bytes, bytes]:
        return self._some(self._reached().asks.keys())

    def waiting(self) -> dict[bytes, bytes]:
        shelf = self._reached()
        return self._some(shelf.waiting & shelf.asks.keys())

    def serve(self, name: bytes, box: bytes, keep_s: float) -> bool:
        shelf = self._reached()
        shelf.waiting.discard(name)
        if name in shelf.boxes:
            return False
        shelf.boxes[name] = box
        return True

    def take(self, name: bytes) -> Taken | None:
        shelf = self._reached()
        box = shelf.boxes.pop(name, None)
        if box is None:
            return None
        shelf.asks.pop(name, None)
        return Taken(box, shelf.time_ms)

    def leave(self, name: bytes) -> None:
        shelf = self._reached()
        shelf.boxes.pop(name, None)
        shelf.asks.pop(name, None)
        shelf.waiting.discard(name)

    def forget_asks(self) -> None:
        shelf = self._reached()
        shelf.asks.clear()
        shelf.waiting.clear()

    def close(self) -> None:
        pass

    def _some(self, names: object) -> dict[bytes, bytes]:
        asks = self.shelf.asks
        if len(asks) > MOST_ASKS:
            raise CrowdedStoreError("too many")
        return {name: asks[name][1] for name in names}  # type: ignore[attr-defined]

    def _reached(self) -> Shelf:
        if self.is_away:
            raise StoreError("it is away")
        self.is_slow()
        return self.shelf
