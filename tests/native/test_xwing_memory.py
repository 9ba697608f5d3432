"""Where a seed and what comes of it are in a process's memory: read from outside, all of it."""

import os
from pathlib import Path

import pytest

from tests.helpers import ml_kem_traces
from tests.helpers.group_boxes import POST_QUANTUM, X25519, Epoch, GroupSecrets, contents
from tests.helpers.hash_traces import words
from tests.helpers.key_traces import traces
from tests.helpers.known_key_victim import victim
from tests.helpers.known_randomness import known_randomness
from tests.helpers.process_memory import only_in_protected_memory
from tests.helpers.wire_v1 import Request, XWingSecret, random_secret

pytestmark = pytest.mark.usefixtures("each_engine")


def pieces(secret: bytes) -> set[bytes]:
    """Words of a secret."""
    return {secret[start : start + 8] for start in range(0, len(secret), 8)}


def expanded_traces(secret: XWingSecret) -> set[bytes]:
    """Pieces of the forms that the private keys of a seed take, which belong nowhere once a call has returned."""
    ml_kem_seed, x25519_private_key = secret.expanded[:32], secret.expanded[64:]
    return ml_kem_traces.traces(ml_kem_seed) | pieces(secret.expanded) | traces(x25519_private_key)


def test_the_traces_searched_for_are_those_of_the_key() -> None:
    secret = random_secret()
    encapsulation_key, *_ = ml_kem_traces.generated(secret.expanded[:32])
    assert encapsulation_key == secret.public_key[:1184]


def test_the_search_finds_a_copy_outside_of_the_protected_memory() -> None:
    secret = random_secret()
    _, drawn, _, transformed = ml_kem_traces.generated(secret.expanded[:32])
    for copy in (drawn[0], secret.expanded[:64], secret.expanded[64:], ml_kem_traces.packed(transformed[1])[:64]):
        with victim("copy = os.read(int(sys.argv[1]), 64)\nreached('copied')", private_key=copy) as process:
            process.run_to("copied")
            where = process.where(expanded_traces(secret))
            assert where
            assert not any(mapping.is_protected for mapping in where)


def test_a_seed_is_in_protected_memory_only_and_what_comes_of_it_is_nowhere() -> None:
    secret = random_secret()
    script = """
        pair = far_down(from_known_seed)
        reached("made")
        for _ in range(10):
            sealer = RequestSealerV1(pair.public_key)
            head = sealer.seal_head(b"head")
            assert far_down(lambda: RequestOpenerV1(sealer.encapsulated_key, head, pair)).head == b"head"
        reached("used")
        if os.fork() == 0:
            reached("forked")
            os._exit(0)
        os.wait()
        pair.erase()
        reached("erased")
    """
    with victim(script, private_key=secret.seed) as process:
        for step in ("made", "used"):
            process.run_to(step)
            (where,) = process.where(pieces(secret.seed))
            assert where.is_protected
            assert where.permissions == "rw-p"
            assert process.where(expanded_traces(secret)) == []
        process.run_to("forked")
        assert process.child().where(pieces(secret.seed)) == []
        process.run_to("erased")
        assert process.where(pieces(secret.seed)) == []


@pytest.mark.parametrize("how", ["pair.erase()", "del pair"])
def test_an_opened_request_leaves_neither_the_seed_nor_its_own_secrets_behind(how: str) -> None:
    secret = random_secret()
    request = Request.drawn_for(secret.public_key)
    sealed_head, body = request.cipher.seal(0, b"head"), request.cipher.body([b"question"])
    script = f"""
        pair = far_down(from_known_seed)
        encapsulated_key, head, body = map(bytes.fromhex, reached("waiting").split())
        opener = far_down(lambda: RequestOpenerV1(encapsulated_key, head, pair))
        sealer = far_down(opener.response_sealer)
        reached("opened", sealer.response_nonce.hex())
        {how}
        reached("pair gone")
        assert opener.feed(body) == b"question"
        opener.finish()
        opener.erase()
        reached("opener erased")
        sealer.erase()
        reached("sealer erased")
    """
    derived = {*secret.halves(request.encapsulated_key), request.hpke.shared_secret, request.hpke.scheduled}
    derived |= {request.exported}
    keys = pieces(request.cipher.key) | pieces(request.hpke.exporter_secret)
    with victim(script, private_key=secret.seed) as process:
        process.run_to("waiting")
        told = " ".join(part.hex() for part in (request.encapsulated_key, sealed_head, body))
        response = request.response_cipher(bytes.fromhex(process.run_to("opened", told=told)))
        assert only_in_protected_memory(process, pieces(secret.seed))
        assert process.where(keys), "the search finds nothing"
        nowhere = words(derived) | set().union(*map(pieces, derived))
        assert process.where(nowhere) == []
        assert process.where(expanded_traces(secret)) == []
        process.run_to("pair gone")
        assert process.where(pieces(secret.seed)) == []
        process.run_to("opener erased")
        assert process.where(keys | words({request.cipher.key, request.hpke.exporter_secret})) == []
        assert process.where(pieces(response.key))
        process.run_to("sealer erased")
        assert process.where(words({response.key}) | pieces(response.key) | nowhere) == []


def test_a_forged_request_leaves_nothing_behind() -> None:
    secret = random_secret()
    request = Request.drawn_for(secret.public_key)
    script = """
        from server_keys.errors import KeyMismatchError

        pair = far_down(from_known_seed)
        encapsulated_key = bytes.fromhex(reached("waiting"))
        try:
            far_down(lambda: RequestOpenerV1(encapsulated_key, bytes(40), pair))
        except KeyMismatchError:
            reached("refused")
    """
    with victim(script, private_key=secret.seed) as process:
        process.run_to("waiting")
        process.run_to("refused", told=request.encapsulated_key.hex())
        left = words(request.secrets) | set().union(*map(pieces, request.secrets))
        assert process.where(left) == []
        assert process.where(expanded_traces(secret)) == []
        assert only_in_protected_memory(process, pieces(secret.seed))


def test_a_sealed_request_leaves_no_secret_behind_once_it_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, drawn = random_secret(), os.urandom(32)
    monkeypatch.setenv("LD_PRELOAD", os.fspath(known_randomness(tmp_path, drawn)))
    script = """
        import ctypes

        know_randomness = ctypes.CDLL(None).know_randomness
        public_key = bytes.fromhex(sys.argv[2])
        know_randomness(1)
        sealer = far_down(lambda: RequestSealerV1(public_key))
        know_randomness(0)
        head = sealer.seal_head(b"head")
        reached("sealed", sealer.encapsulated_key.hex())
        opener = sealer.response_opener(*map(bytes.fromhex, reached("waiting").split()))
        reached("answered")
        sealer.erase()
        reached("sealer erased")
        opener.erase()
        reached("opener erased")
    """
    with victim(script, secret.public_key.hex()) as process:
        request = Request.received(bytes.fromhex(process.run_to("sealed")), secret)
        derived = {*secret.halves(request.encapsulated_key), request.hpke.shared_secret, request.hpke.scheduled}
        nowhere = words({*derived, drawn, request.exported}) | traces(drawn) | set().union(*map(pieces, derived))
        assert process.where(nowhere) == []
        keys = pieces(request.cipher.key) | pieces(request.hpke.exporter_secret)
        assert process.where(keys), "the search finds nothing"
        process.run_to("waiting")
        nonce = bytes(32)
        response = request.response_cipher(nonce)
        process.run_to("answered", told=f"{nonce.hex()} {response.seal(0, b'200').hex()}")
        assert process.where(nowhere) == []
        process.run_to("sealer erased")
        assert process.where(keys) == []
        assert process.where(pieces(response.key))
        process.run_to("opener erased")
        assert process.where(pieces(response.key) | nowhere) == []


def test_delivered_seeds_are_in_protected_memory_only_and_nowhere_once_erased() -> None:
    group = GroupSecrets.of_name(b"name")
    one_time_key = random_secret()
    delivered = [(os.urandom(32), random_secret()) for _ in range(2)]
    epochs = [
        Epoch(number, 2, 3, [(X25519, key), (POST_QUANTUM, xwing.seed)])
        for number, (key, xwing) in enumerate(delivered)
    ]
    box = group.seal_xwing(one_time_key.public_key, contents(epochs))
    shared_secret = one_time_key.decapsulated(box[:1120])
    context = group.xwing_context(one_time_key.public_key, shared_secret)
    of_box = words({*one_time_key.halves(box[:1120]), shared_secret, context.scheduled, context.cipher.key})
    script = """
        group = GroupKeys.of_name(b"name")
        one_time_key = far_down(from_known_seed)
        box = bytes.fromhex(reached("waiting"))
        _, _, epochs = far_down(lambda: open_box(group, one_time_key, box))
        reached("opened")
        one_time_key.erase()
        again = XWingKeyPair.generate()
        boxes = far_down(lambda: seal_boxes(group, [again.public_key], whole=True, as_of_ms=0, epochs=epochs))
        reached("sealed again")
        for _, *pairs, _, _ in epochs:
            for pair in pairs:
                pair.erase()
        reached("erased")
    """
    seeds = set().union(*(pieces(key) | pieces(xwing.seed) for key, xwing in delivered))
    with victim(script, private_key=one_time_key.seed) as process:
        process.run_to("waiting")
        assert only_in_protected_memory(process, pieces(one_time_key.seed))
        process.run_to("opened", told=box.hex())
        for step in ("opened", "sealed again"):
            if step != "opened":
                process.run_to(step)
            assert only_in_protected_memory(process, seeds)
            assert process.where(of_box) == []
            for secret in (one_time_key, *(xwing for _, xwing in delivered)):
                assert process.where(expanded_traces(secret)) == []
        assert process.where(pieces(one_time_key.seed)) == []
        process.run_to("erased")
        assert process.where(seeds | of_box) == []
