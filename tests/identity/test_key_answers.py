"""Signed key answers: what a server makes, what a client takes, and what it refuses, saying why and what to do."""

import re
import struct
import time
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys._sealing.identity import identity_of, public_key_of_identity
from server_keys._sealing.key_entries import keys_of
from server_keys._sealing.key_signature import KeySignature, identity_hash, signed_message, with_signature
from server_keys.client.identity import Identities
from server_keys.errors import KeyRejectedError
from tests.helpers.signed_answers import XWING_ENTRY, OtherSigner, identity_vectors, key_answer

SIGNER, STRANGER = OtherSigner(bytes(range(32))), OtherSigner(bytes(32))
IDENTITY = SIGNER.identity
URL = "https://example.org/.well-known/hpke-keys"
CREATED, EXPIRES = 1_790_000_000, 1_790_000_600
NOW = CREATED + 300.0
ANSWER = key_answer(XWING_ENTRY)
SIGNED = SIGNER.signed(ANSWER, CREATED, EXPIRES)
SMALL_ORDER = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def check(answer: bytes, *, now: float = NOW, identity: Any = IDENTITY) -> float:
    return Identities(identity).check(answer, URL, now)


def why_refused(answer: bytes, *, now: float = NOW, identity: Any = IDENTITY) -> str:
    with pytest.raises(KeyRejectedError) as refused:
        check(answer, now=now, identity=identity)
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)
    why = re.fullmatch(
        f"the key answer of {re.escape(URL)} is refused: (.+)\\. Nothing was sealed to it", str(refused.value)
    )
    assert why
    return why[1]


@pytest.mark.parametrize("vector", identity_vectors()["answers"], ids=lambda vector: vector["case"])
def test_a_server_makes_the_bytes_that_another_library_makes(vector: dict[str, Any]) -> None:
    answer, created, expires = bytes.fromhex(vector["answer"]), vector["created"], vector["expires"]
    signer = OtherSigner(bytes.fromhex(vector["seed"]))
    signature = signer.sign(signed_message(answer, created, expires))
    made = with_signature(answer, KeySignature(identity_hash(signer.public_key), created, expires, signature))
    assert made.hex() == vector["signed_answer"]
    assert check(made, now=created, identity=vector["identity"]) == pytest.approx(expires + 60 - created)


@pytest.mark.parametrize(("created", "expires"), [(-1, 5), (5, 4), (5, 2**64), (2**64, 2**64)])
def test_a_server_signs_no_times_that_make_no_sense(created: int, expires: int) -> None:
    with pytest.raises(ValueError, match=f"from {created} until {expires}"):
        signed_message(ANSWER, created, expires)


def test_who_knows_no_signatures_reads_the_same_keys() -> None:
    assert keys_of(SIGNED) == keys_of(ANSWER)
    assert SIGNED[:41] == ANSWER[:41]
    assert len(SIGNED) - len(ANSWER) == 94


@pytest.mark.parametrize(
    "answer", [key_answer(), key_answer(XWING_ENTRY), key_answer(b"tomorrow's"), key_answer(b"\0\0", b"\0\0\1", b"\0")]
)
def test_an_answer_that_the_identity_signed_is_taken(answer: bytes) -> None:
    assert check(SIGNER.signed(answer, CREATED, EXPIRES)) == 360


def test_several_identities_are_taken_while_one_replaces_the_other() -> None:
    both = [SIGNER.identity, STRANGER.identity]
    for signer in (SIGNER, STRANGER):
        for identities in (both, tuple(both), reversed(both), iter(both), {*both, *both}):
            assert check(signer.signed(ANSWER, CREATED, EXPIRES), identity=identities) == 360
    assert why_refused(OtherSigner(bytes([1]) * 32).signed(ANSWER, CREATED, EXPIRES), identity=both).startswith(
        "another identity signed it"
    )


@given(bit=st.integers(0, len(SIGNED) * 8 - 1))
def test_no_changed_bit_is_taken(bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[bit // 8] ^= 1 << bit % 8
    why_refused(bytes(changed))


def test_no_cut_and_nothing_added_is_taken() -> None:
    for length in range(len(SIGNED)):
        why_refused(SIGNED[:length])
    assert why_refused(SIGNED + b"\0").startswith("a key answer whose last entry is cut off")


def test_an_entry_cannot_be_taken_out() -> None:
    assert why_refused(ANSWER[:41] + SIGNED[len(ANSWER) :]).startswith(f"its signature is wrong: {IDENTITY} did not")


@given(answer=st.binary(max_size=300), prefix=st.sampled_from([b"", ANSWER, ANSWER[:41], SIGNED]))
def test_whatever_comes_is_refused_by_that_error_alone(answer: bytes, prefix: bytes) -> None:
    if answer:
        why_refused(prefix + answer)


@pytest.mark.parametrize("answer", [b"", bytes(10), bytes(41), ANSWER[:41], ANSWER])
def test_no_signature(answer: bytes) -> None:
    why = why_refused(answer)
    assert why.startswith(f"it is not signed, and identity= wants the signature of <{IDENTITY}>. Give the server its ")
    assert why.endswith("if it has one, something in between removes the signature")


def test_a_foreign_signature() -> None:
    why = why_refused(STRANGER.signed(ANSWER, CREATED, EXPIRES))
    assert why.startswith(f"another identity signed it (SHA-256 {identity_hash(STRANGER.public_key).hex()}...), not ")
    assert IDENTITY in why
    assert "name both meanwhile" in why


def test_a_signature_over_another_rings_keys() -> None:
    other_ring = SIGNER.signed(key_answer(), CREATED, EXPIRES)
    assert why_refused(ANSWER + other_ring[41:]).startswith("its signature is wrong")


def test_a_signature_in_the_name_of_the_identity_by_somebody_else() -> None:
    forged = STRANGER.signed(ANSWER, CREATED, EXPIRES).replace(
        identity_hash(STRANGER.public_key), identity_hash(SIGNER.public_key)
    )
    assert why_refused(forged).startswith("its signature is wrong")


def test_times_are_signed_too() -> None:
    for times in ((CREATED, EXPIRES + 1), (CREATED - 1, EXPIRES), (EXPIRES, CREATED)):
        changed = SIGNED.replace(struct.pack(">QQ", CREATED, EXPIRES), struct.pack(">QQ", *times))
        assert why_refused(changed).startswith("its signature is wrong")


def test_a_signature_that_ends_before_it_begins() -> None:
    assert why_refused(SIGNER.signed(ANSWER, EXPIRES, CREATED)).startswith("its signature is wrong")


@pytest.mark.parametrize("now", [CREATED - 60.0, CREATED, EXPIRES, EXPIRES + 59.5, EXPIRES + 60.0])
def test_clocks_may_be_off_by_a_minute(now: float) -> None:
    assert check(SIGNED, now=now) == EXPIRES + 60 - now


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (EXPIRES + 61, "its signature has expired"),
        (EXPIRES + 3600, "its signature has expired"),
        (EXPIRES + 86_400, "its signature has expired"),
        (CREATED - 61, "its signature does not hold yet"),
        (CREATED - 3600, "its signature does not hold yet"),
        (0, "its signature does not hold yet"),
    ],
)
def test_clocks_that_are_off_by_an_hour_are_told_with_all_times(now: float, why: str) -> None:
    told = why_refused(SIGNED, now=now)
    assert told.startswith(f"{why} (signed at ")
    shown = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", told)
    times = [datetime.strptime(time, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp() for time in shown]
    assert times == [CREATED, EXPIRES, now]
    assert "60 s" in told


def test_times_that_no_calendar_has_are_told_as_numbers() -> None:
    distant = SIGNER.signed(ANSWER, 2**64 - 2, 2**64 - 1)
    assert f"signed at {2**64 - 2} s after 1970, until {2**64 - 1} s after 1970" in why_refused(distant)


def test_two_signatures() -> None:
    twice = SIGNED + SIGNER.entry(SIGNED, CREATED, EXPIRES)
    assert why_refused(twice).startswith("it has 2 signatures, and may have one")
    assert why_refused(SIGNED + SIGNED[len(ANSWER) :]).startswith("it has 2 signatures")
    assert why_refused(STRANGER.signed(SIGNED, CREATED, EXPIRES)).startswith("it has 2 signatures")
    assert why_refused(SIGNER.signed(STRANGER.signed(ANSWER, CREATED, EXPIRES), CREATED, EXPIRES)).startswith(
        "it has 2"
    )
    assert why_refused(ANSWER + SIGNED[len(ANSWER) :] * 160).startswith("it has 160 signatures")


@pytest.mark.parametrize("entry", [b"\7", XWING_ENTRY, b"\0\0\1" + bytes(89)])
def test_an_entry_after_the_signature(entry: bytes) -> None:
    longer = SIGNED + struct.pack(">H", len(entry)) + entry
    assert why_refused(longer).startswith("it goes on after its signature, which covers only what is before")


@pytest.mark.parametrize("algorithm", [0, 2, 255])
def test_an_unknown_algorithm(algorithm: int) -> None:
    answer = ANSWER + SIGNER.entry(ANSWER, CREATED, EXPIRES, algorithm=algorithm)
    assert why_refused(answer).startswith(f"its signature is of algorithm {algorithm}, and 1 (Ed25519) alone is known")


@pytest.mark.parametrize("length", [3, 4, 50, 91, 93, 500])
def test_a_signature_of_another_length(length: int) -> None:
    entry = (SIGNED[len(ANSWER) + 2 :] + bytes(500))[:length]
    answer = ANSWER + struct.pack(">H", length) + entry
    assert why_refused(answer).startswith(f"its signature's entry has {length} bytes instead of 92")


def test_a_huge_answer_costs_neither_memory_nor_time() -> None:
    huge = key_answer(*[b"x"] * 5_000_000)
    for answer in (huge, SIGNER.signed(huge[:16_378], CREATED, EXPIRES), ANSWER + SIGNED[len(ANSWER) :] * 160):
        tracemalloc.start()
        began = time.perf_counter()
        try:
            why_refused(answer)
            taken_s = time.perf_counter() - began
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
        assert taken_s < 1
    assert why_refused(huge).startswith(f"it has {len(huge)} bytes, more than 16384")


@pytest.mark.parametrize("seed", [bytes(32), bytes(range(32))])
def test_an_identity_is_one_short_string(seed: bytes) -> None:
    public_key = OtherSigner(seed).public_key
    identity = identity_of(public_key)
    assert identity == OtherSigner(seed).identity
    assert re.fullmatch("ed25519:[A-Za-z0-9_-]{43}", identity)
    assert public_key_of_identity(identity) == public_key


@given(st.binary(min_size=32, max_size=32))
def test_each_public_key_has_one_string(seed: bytes) -> None:
    public_key = OtherSigner(seed).public_key
    identity = identity_of(public_key)
    assert public_key_of_identity(identity) == public_key
    # The last character has two bits to spare.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for spare in (1, 2, 3):
        other = identity[:-1] + alphabet[alphabet.index(identity[-1]) ^ spare]
        with pytest.raises(ValueError, match="an identity is base64url"):
            public_key_of_identity(other)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "an identity begins with 'ed25519:', this one does not: ''"),
        (IDENTITY.removeprefix("ed25519:"), "an identity begins with"),
        (IDENTITY.upper(), "an identity begins with"),
        (" " + IDENTITY, "an identity begins with"),
        (IDENTITY + "=", "an identity has 43 characters after 'ed25519:', not 44"),
        (IDENTITY + "\n", "an identity has 43 characters"),
        (IDENTITY[:-1], "not 42"),
        ("ed25519:" + "x" * 10_000, "not 10000"),
        ("ed25519:" + SIGNER.public_key.hex(), "not 64"),
        (IDENTITY[:-2] + "+/", "an identity is base64url"),
        (IDENTITY[:20] + " " + IDENTITY[21:], "an identity is base64url"),
        (IDENTITY[:20] + "é" + IDENTITY[21:], "an identity is base64url"),
        (IDENTITY[:-1] + "=", "an identity is base64url"),
        ("ed25519:" + "_" * 43, "an identity is base64url"),
        (SMALL_ORDER, "the identity is no Ed25519 key that can sign"),
    ],
)
def test_any_other_string_is_refused_and_the_error_says_why(wrong: str, why: str) -> None:
    for use in (public_key_of_identity, Identities, lambda text: Identities([IDENTITY, text])):
        with pytest.raises(ValueError, match=re.escape(why)) as refused:
            use(wrong)
        assert "server-keys identity show" in str(refused.value)
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("wrong", [None, 5, IDENTITY.encode(), bytearray(5), [None], [5], [IDENTITY.encode()]])
def test_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="identity"):
        Identities(wrong)


def test_none_and_very_many_identities_are_refused() -> None:
    with pytest.raises(ValueError, match="identity is empty, so no server could have it"):
        Identities([])
    many = [OtherSigner(bytes([number]) * 32).identity for number in range(17)]
    with pytest.raises(ValueError, match="identity has 17 values: 16 at most"):
        Identities(many)
    assert check(OtherSigner(bytes([15]) * 32).signed(ANSWER, CREATED, EXPIRES), identity=many[:16]) == 360
