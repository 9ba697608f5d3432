"""The Content-Length that an app declares for its response, and what it sends of it."""

from starlette.types import Message


class DeclaredLength:
    """Holds an app to its Content-Length. No server does, because the header is not sent."""

    def __init__(self, length: int) -> None:
        self.missing = length
        """How many bytes of it were not sent yet."""

    @classmethod
    def of(cls, start: Message) -> "DeclaredLength | None":
        """Return the length that the start of a response declares, or None."""
        if start["status"] < 200 or start["status"] in (204, 304):
            return None
        lengths = {value for name, value in start.get("headers", ()) if name.lower() == b"content-length"}
        return cls(int(*lengths)) if len(lengths) == 1 and all(length.isdigit() for length in lengths) else None

    def is_all_in(self, message: Message) -> bool:
        """Return whether a message is the only one of its body, and as long as was declared."""
        return not message.get("more_body", False) and _length(message) == self.missing

    def count(self, message: Message) -> None:
        """Count the body of a message, before it is sealed."""
        self.missing -= _length(message)
        if self.missing < 0:
            raise RuntimeError(f"the response is longer than its Content-Length, by {-self.missing} bytes or more")
        if self.missing > 0 and not message.get("more_body", False):
            raise RuntimeError(f"the response is shorter than its Content-Length, by {self.missing} bytes")


def _length(message: Message) -> int:
    return memoryview(message.get("body", b"")).nbytes
