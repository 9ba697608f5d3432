"""The four ends of a message of version 1, erased: nothing works any more, and nothing of their buffers stays."""

import os
import textwrap
from collections.abc import Callable

import pytest

from server_keys import KeyErasedError
from server_keys._native import RequestOpenerV1, RequestSealerV1, ResponseOpenerV1, ResponseSealerV1, XWingKeyPair
from tests.helpers.process_memory import victim_of
from tests.helpers.wire_v1 import Request


class Ends:
    """Both ends of a request and of its response, each used once."""

    def __init__(self) -> None:
        pair = XWingKeyPair.generate()
        self.request_sealer = RequestSealerV1(pair.public_key)
        head = self.request_sealer.seal_head(b"head")
        self.request_opener = RequestOpenerV1(self.request_sealer.encapsulated_key, head, pair)
        assert self.request_opener.feed(self.request_sealer.seal(b"question")) == b"question"
        self.response_sealer: ResponseSealerV1 = self.request_opener.response_sealer()
        self.response_nonce = self.response_sealer.response_nonce
        self.response_head = self.response_sealer.seal_head(b"200")
        self.response_opener: ResponseOpenerV1 = self.request_sealer.response_opener(
            self.response_nonce, self.response_head
        )
        assert self.response_opener.feed(self.response_sealer.seal(b"answer")) == b"answer"


# The first two of each also work while another end is erased.
USES: dict[str, list[Callable[[Ends], object]]] = {
    "request_sealer": [
        lambda ends: ends.request_sealer.encapsulated_key,
        lambda ends: ends.request_sealer.seal(b"x"),
        lambda ends: ends.request_sealer.seal(b""),
        lambda ends: ends.request_sealer.seal_head(b"head"),
        lambda ends: ends.request_sealer.seal_end(),
        lambda ends: ends.request_sealer.seal_last(b"x"),
        lambda ends: ends.request_sealer.response_opener(ends.response_nonce, ends.response_head),
    ],
    "request_opener": [
        lambda ends: ends.request_opener.head,
        lambda ends: ends.request_opener.response_sealer(),
        lambda ends: ends.request_opener.replay_id,
        lambda ends: ends.request_opener.ended,
        lambda ends: ends.request_opener.feed(b"x"),
        lambda ends: ends.request_opener.feed(b""),
        lambda ends: ends.request_opener.bytes_to_open(1),
        lambda ends: ends.request_opener.expect_no_body(),
        lambda ends: ends.request_opener.finish(),
    ],
    "response_sealer": [
        lambda ends: ends.response_sealer.response_nonce,
        lambda ends: ends.response_sealer.seal(b"x"),
        lambda ends: ends.response_sealer.seal(b""),
        lambda ends: ends.response_sealer.seal_head(b"head"),
        lambda ends: ends.response_sealer.seal_end(),
        lambda ends: ends.response_sealer.seal_last(b"x"),
    ],
    "response_opener": [
        lambda ends: ends.response_opener.head,
        lambda ends: ends.response_opener.feed(b"x"),
        lambda ends: ends.response_opener.feed(b""),
        lambda ends: ends.response_opener.ended,
        lambda ends: ends.response_opener.expect_no_body(),
        lambda ends: ends.response_opener.finish(),
    ],
}


@pytest.mark.parametrize("end", USES)
def test_every_use_after_the_erasure_is_refused(end: str) -> None:
    ends = Ends()
    getattr(ends, end).erase()
    for use in USES[end]:
        with pytest.raises(KeyErasedError, match="the key is gone: it was erased"):
            use(ends)
    getattr(ends, end).erase()


@pytest.mark.parametrize("end", USES)
def test_the_other_ends_work_on(end: str) -> None:
    ends = Ends()
    getattr(ends, end).erase()
    for other in USES.keys() - {end}:
        for use in USES[other][:2]:
            use(ends)


@pytest.mark.parametrize("how", ["opener.erase()", "cut(opener)"])
def test_an_unfinished_frame_is_in_memory_until_the_opener_is_erased_or_the_body_is_found_cut(how: str) -> None:
    script = f"""
        import ctypes
        from server_keys import MissingEndError
        from server_keys._native import RequestOpenerV1, XWingKeyPair
        from tests.helpers.process_memory import reached

        def cut(opener):
            try:
                opener.finish()
            except MissingEndError:
                return
            raise AssertionError("taken for whole")

        # M_MMAP_THRESHOLD: Python's own large objects go back to the system as soon as they are freed.
        assert ctypes.CDLL(None).mallopt(-3, 64 * 1024)
        pair = XWingKeyPair.generate()
        encapsulated_key, head = map(bytes.fromhex, reached("ready", pair.public_key.hex()).split())
        opener = RequestOpenerV1(encapsulated_key, head, pair)
        opener.feed(bytes.fromhex(reached("waiting")))
        reached("fed")
        {how}
        reached("over")
    """
    # More than Python's heap has room for, where its own copies would stay.
    unfinished = (2**24).to_bytes(4, "big") + os.urandom(2**23)
    with victim_of(textwrap.dedent(script)) as process:
        request = Request.drawn_for(bytes.fromhex(process.run_to("ready")))
        told = f"{request.encapsulated_key.hex()} {request.cipher.seal(0, b'head').hex()}"
        process.run_to("waiting", told=told)
        process.run_to("fed", told=(request.cipher.frame(1, b"question") + unfinished).hex())
        middle_of_frame = {unfinished[2**22 : 2**22 + 16]}
        assert process.where(middle_of_frame)
        process.run_to("over")
        assert process.where(middle_of_frame) == []
