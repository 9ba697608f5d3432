"""Undoes the content coding of a response before it is sealed, for apps that compress although nobody asked them to."""

import zlib

from starlette.types import Message

# The longest that one message of a body may become: beyond it a relayed body is more likely an attack than an answer.
_LONGEST_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 16 * 1024
# zlib tells the formats gzip and zlib, which HTTP calls deflate, apart by their headers.
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
# Many servers say deflate and leave the header of the format zlib out. Clients take both (RFC 9110, section 8.4.1.2).
_WITHOUT_HEADER = -zlib.MAX_WBITS


class ContentDecoder:
    """Decompresses the body of one response, message by message.

    Args:
        may_lack_header: whether the body may be deflate without the header of the format zlib.
    """

    def __init__(self, *, may_lack_header: bool) -> None:
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._may_lack_header = may_lack_header
        self._held_back = b""
        self._begun = False

    @classmethod
    def of(cls, start: Message) -> "ContentDecoder | None":
        """Return what undoes the `Content-Encoding` of a response; None if there is none.

        Raises:
            RuntimeError: the coding is neither gzip nor deflate, or there are several.
        """
        values = [value for name, value in start.get("headers", ()) if name.lower() == b"content-encoding"]
        named = b",".join(values).decode("latin-1").lower().split(",")
        codings = [coding for coding in (name.strip() for name in named) if coding not in ("", "identity")]
        if not codings:
            return None
        if len(codings) > 1 or codings[0] not in ("gzip", "x-gzip", "deflate"):
            raise RuntimeError(
                f"the app answered a sealed request with Content-Encoding {', '.join(codings)!r}: clients would decode "
                "the sealed body. The request says `Accept-Encoding: identity`, so do not compress it. Only gzip and "
                "deflate are undone"
            )
        return cls(may_lack_header=codings[0] == "deflate")

    def decoded(self, message: Message) -> bytes:
        """Return what the body of a message becomes.

        Raises:
            RuntimeError: the body is not what its `Content-Encoding` says, or becomes too long.
        """
        rest = self._held_back + bytes(message.get("body", b""))
        if self._may_lack_header and rest:
            if len(rest) == 1 and message.get("more_body", False):
                self._held_back = rest
                return b""
            self._may_lack_header, self._held_back = False, b""
            if not _begins_with_header(rest):
                self._zlib = zlib.decompressobj(_WITHOUT_HEADER)
        decoded = bytearray()
        try:
            # Piece by piece: at the end of each gzip member zlib copies what follows it.
            for start in range(0, len(rest), _PIECE_BYTES):
                self._decode(rest[start : start + _PIECE_BYTES], decoded)
        except zlib.error as error:
            raise RuntimeError(f"the app's body is not compressed as its Content-Encoding says: {error}") from None
        if self._begun and not self._zlib.eof and not message.get("more_body", False):
            raise RuntimeError("the app's compressed body ends in the middle")
        return bytes(decoded)

    def _decode(self, piece: bytes, decoded: bytearray) -> None:
        while piece:
            if self._zlib.eof:  # a gzip body may consist of several members
                self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
            self._begun = True
            decoded += self._zlib.decompress(piece, _LONGEST_BYTES + 1 - len(decoded))
            if len(decoded) > _LONGEST_BYTES:
                raise RuntimeError(f"a message of the app's compressed body becomes longer than {_LONGEST_BYTES} bytes")
            piece = self._zlib.unused_data


def _begins_with_header(body: bytes) -> bool:
    """Whether `body` begins with the header of gzip (RFC 1952) or of zlib (RFC 1950)."""
    first_two = int.from_bytes(body[:2], "big")
    return first_two == 0x1F8B or (body[0] & 0x0F == 8 and first_two % 31 == 0)
