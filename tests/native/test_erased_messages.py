"""The four ends of a message, erased: nothing works any more, and nothing of their keys and buffers stays."""

import os
import textwrap
import threading
from collections.abc import Callable

import pytest

from server_keys import KeyErasedError, KeyPair
from server_keys._native import RequestOpener, RequestSealer, ResponseOpener, ResponseSealer
from tests.helpers.message_keys import RequestKeys
from tests.helpers.process_memory import victim_of


class Ends:
    """Both ends of a request and of its response, each used once."""

    def __init__(self) -> None:
        pair = KeyPair.generate()
        self.request_sealer = RequestSealer(pair.public_key)
        self.request_opener = RequestOpener(self.request_sealer.encapsulated_key, [pair])
        assert self.request_opener.feed(self.request_sealer.seal(b"question")) == b"question"
        self.response_sealer: ResponseSealer = self.request_opener.response_sealer()
        self.response_nonce = self.response_sealer.response_nonce
        self.response_opener: ResponseOpener = self.request_sealer.response_opener(self.response_nonce)
        assert self.response_opener.feed(self.response_sealer.seal(b"answer")) == b"answer"


USES: dict[str, list[Callable[[Ends], object]]] = {
    "request_sealer": [
        lambda ends: ends.request_sealer.encapsulated_key,
        lambda ends: ends.request_sealer.seal(b"x"),
        lambda ends: ends.request_sealer.seal(b""),
        lambda ends: ends.request_sealer.response_opener(ends.response_nonce),
    ],
    "request_opener": [
        lambda ends: ends.request_opener.opened,
        lambda ends: ends.request_opener.feed(b"x"),
        lambda ends: ends.request_opener.feed(b""),
        lambda ends: ends.request_opener.finish(),
        lambda ends: ends.request_opener.finish_without_body(),
        lambda ends: ends.request_opener.response_sealer(),
    ],
    "response_sealer": [
        lambda ends: ends.response_sealer.response_nonce,
        lambda ends: ends.response_sealer.seal(b"x"),
        lambda ends: ends.response_sealer.seal(b""),
    ],
    "response_opener": [
        lambda ends: ends.response_opener.feed(b"x"),
        lambda ends: ends.response_opener.feed(b""),
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


def test_an_erasure_waits_for_a_thread_that_seals_and_that_thread_seals_no_more() -> None:
    body = bytes(64 * 1024 * 1024)
    sealer = RequestSealer(KeyPair.generate().public_key)
    sealed: list[int] = []
    refused: list[KeyErasedError] = []
    began = threading.Event()

    def seal_on_and_on() -> None:
        try:
            while True:
                began.set()
                sealed.append(len(sealer.seal(body)))
        except KeyErasedError as error:
            refused.append(error)

    thread = threading.Thread(target=seal_on_and_on)
    thread.start()
    assert began.wait(10)
    sealer.erase()
    with pytest.raises(KeyErasedError):
        sealer.seal(b"x")
    thread.join(30)
    assert not thread.is_alive()
    assert len(refused) == 1
    # Each frame that was sealed is whole.
    assert all(length > len(body) for length in sealed)


@pytest.mark.usefixtures("each_engine")
def test_keys_and_buffers_are_in_memory_until_then_and_nowhere_afterwards() -> None:
    script = """
        import ctypes
        from server_keys import KeyPair
        from server_keys._native import RequestOpener
        from tests.helpers.process_memory import reached

        # M_MMAP_THRESHOLD: Python's own large objects go back to the system as soon as they are freed.
        assert ctypes.CDLL(None).mallopt(-3, 64 * 1024)
        pair = KeyPair.generate()
        opener = RequestOpener(bytes.fromhex(reached("ready", pair.public_key.hex())), [pair])
        opener.feed(bytes.fromhex(reached("waiting")))
        sealer = opener.response_sealer()
        reached("opened", sealer.response_nonce.hex())
        opener.erase()
        reached("opener erased")
        sealer.erase()
        reached("sealer erased")
    """
    unfinished = (2**24).to_bytes(4, "big") + os.urandom(2**20)
    with victim_of(textwrap.dedent(script)) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        process.run_to("waiting", told=keys.encapsulated_key.hex())
        body = keys.frame(0, b"question") + unfinished
        nonce = bytes.fromhex(process.run_to("opened", told=body.hex()))
        middle_of_frame = {unfinished[2**19 : 2**19 + 16]}
        request_words = {secret[:8] for secret in keys.secrets} | {secret[8:16] for secret in keys.secrets}
        response_words = {keys.response_key(nonce)[:8], keys.response_key(nonce)[8:16]}
        for secret in (request_words, middle_of_frame, response_words):
            assert process.where(secret)
        process.run_to("opener erased")
        assert process.where(request_words | middle_of_frame) == []
        assert process.where(response_words)
        process.run_to("sealer erased")
        assert process.where(response_words) == []
