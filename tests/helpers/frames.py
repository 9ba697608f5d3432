"""How a sealed body is cut into frames."""


def plaintexts_of_frames(sealed: bytes) -> list[int]:
    """Return how many bytes of plaintext each frame has. Fail unless the last one is whole."""
    lengths = []
    while sealed:
        frame_bytes = int.from_bytes(sealed[:4], "big")
        assert len(sealed) >= 4 + frame_bytes
        lengths.append(frame_bytes - 16)
        sealed = sealed[4 + frame_bytes :]
    return lengths
