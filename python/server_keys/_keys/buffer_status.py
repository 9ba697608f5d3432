"""What a ring's status tells of the memory that unfinished requests hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The memory that the sealed requests of this process hold for what has arrived of them and is not delivered yet.

    A request counts when it holds more than one frame of this package's clients, 64 KiB + 16 bytes; then with what its
    server may read of the client in the meantime, up to 256 KiB.
    """

    held_bytes: int
    """How much they hold now, all apps of the process together."""
    most_bytes: int
    """How much they may hold: `max_buffered_bytes` of the app."""
