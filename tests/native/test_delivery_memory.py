"""What a group knows is in protected memory or nowhere, whatever was done with it: read from outside, all of it."""

import functools
import hashlib
import hmac
import math
import operator
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.helpers.group_boxes import X25519, Epoch, GroupSecrets, contents
from tests.helpers.key_traces import traces
from tests.helpers.known_key_victim import victim
from tests.helpers.message_keys import KEM_SUITE, labeled_expand, labeled_extract
from tests.helpers.process_memory import Victim


def words(secrets: Iterable[bytes]) -> set[bytes]:
    """Pieces of the forms that secrets take while they are hashed, each of 64 bits that do not occur by chance.

    These are the secret itself, and the same as a key of HMAC (RFC 2104, ipad and opad); and each of them in the words
    of SHA-256, which swap the bytes. There is one piece for each register of 128 bits.
    """
    keys = [bytes(byte ^ pad for byte in secret) for secret in secrets for pad in (0, 0x36, 0x5C)]
    pieces = {key[start : start + 8] for key in keys for start in range(0, len(key), 16)}
    return pieces | {piece[3::-1] + piece[:3:-1] for piece in pieces}


def hmac_states(keys: Iterable[bytes]) -> set[bytes]:
    """The first words of the two states of SHA-256 that HMAC makes of a key first. They are as good as the key."""
    states = [_compressed(bytes(byte ^ pad for byte in key.ljust(64, b"\0"))) for key in keys for pad in (0x36, 0x5C)]
    # In the order of the state, and in that of the processor's own instructions, which have them in one register.
    return {struct.pack("<2I", *pair) for a, b, *_ in states for pair in ((a, b), (b, a))}


def _compressed(block: bytes) -> tuple[int, ...]:
    """The state of SHA-256 after one block (FIPS 180-4, section 6.2.2)."""
    primes = [number for number in range(2, 312) if all(number % divisor for divisor in range(2, number))]
    first = [math.isqrt(prime << 64) & 0xFFFFFFFF for prime in primes[:8]]
    constants = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in primes]

    def rotated(word: int, *counts: int) -> int:
        return functools.reduce(operator.xor, ((word >> count | word << 32 - count) & 0xFFFFFFFF for count in counts))

    words = list(struct.unpack(">16I", block))
    for index in range(16, 64):
        early, late = words[index - 15], words[index - 2]
        mixed = (rotated(early, 7, 18) ^ early >> 3) + (rotated(late, 17, 19) ^ late >> 10)
        words.append(words[index - 16] + mixed + words[index - 7] & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = first
    for constant, word in zip(constants, words, strict=True):
        added = h + rotated(e, 6, 11, 25) + (e & f ^ ~e & g) + constant + word
        mixed = rotated(a, 2, 13, 22) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = added + mixed & 0xFFFFFFFF, a, b, c, d + added & 0xFFFFFFFF, e, f, g
    return tuple(old + new & 0xFFFFFFFF for old, new in zip(first, (a, b, c, d, e, f, g, h), strict=True))


def _cube_root(number: int) -> int:
    root: int = round(number ** (1 / 3))
    while root**3 > number:
        root -= 1
    while (root + 1) ** 3 <= number:
        root += 1
    return root


def only_in_protected_memory(process: Victim, patterns: set[bytes]) -> bool:
    """Whether any of the patterns is there, and none is anywhere else."""
    where = process.where(patterns)
    return bool(where) and all(mapping.is_protected for mapping in where)


def test_secrets_from_a_file_are_nowhere_and_the_keys_are_in_protected_memory_only(tmp_path: Path) -> None:
    secrets = [os.urandom(48), os.urandom(32)]
    groups = [GroupSecrets.of_secret(secret, b"label") for secret in secrets]
    keys = {key for group in groups for key in (group.ask_key, group.register_key, group.pre_shared_key)}
    extracted = {
        hmac.digest(salt, secret, hashlib.sha256)
        for secret, group in zip(secrets, groups, strict=True)
        for salt in (b"server-keys group id of secret v1", group.group_id)
    }
    digits = {secret.hex().encode()[start : start + 16] for secret in secrets for start in (0, 16, 32, 48)}
    nowhere = words(extracted.union(secrets)) | digits | hmac_states(keys | extracted)
    path = tmp_path / "secret"
    path.write_text("\n".join(secret.hex() for secret in secrets))
    path.chmod(0o600)
    script = """
        groups = far_down(lambda: GroupKeys.from_secret_file(sys.argv[2], b"label"))
        reached("derived", groups[1].group_id.hex())
        for group in groups:
            far_down(lambda: group.register_tag(b"register"))
            far_down(lambda: group.ask_tag(b"ask"))
        reached("tagged")
        for group in groups:
            assert not far_down(lambda: group.is_register_tag(b"register", bytes(32)))
            assert not far_down(lambda: group.is_ask_tag(b"ask", bytes(32)))
        reached("checked")
        if os.fork() == 0:
            reached("forked")
            os._exit(0)
        os.wait()
        del groups, group
        reached("over")
    """
    with victim(script, os.fspath(path)) as process:
        assert process.run_to("derived") == groups[1].group_id.hex()
        for step in ("derived", "tagged", "checked"):
            if step != "derived":
                process.run_to(step)
            assert only_in_protected_memory(process, words(keys))
            assert process.where(nowhere) == []
        process.run_to("forked")
        assert process.child().where(words(keys)) == []
        process.run_to("over")
        assert process.where(words(keys)) == []


def test_the_state_that_is_searched_for_is_that_of_sha_256() -> None:
    padded = b"\x80".ljust(64, b"\0")  # the only block of a message of no bytes
    assert struct.pack(">8I", *_compressed(padded)) == hashlib.sha256(b"").digest()


def test_the_search_finds_the_secret_of_a_text_which_python_holds() -> None:
    secret = os.urandom(32)
    with victim(
        "text = sys.argv[2]\nassert GroupKeys.from_secret_text(text, b'')\nreached('derived')", secret.hex()
    ) as process:
        process.run_to("derived")
        assert process.where({secret.hex().encode()[:16]})
        assert process.where(words([secret])) == []


def test_delivered_keys_are_in_protected_memory_only_and_nowhere_once_erased() -> None:
    group = GroupSecrets.of_name(b"name")
    one_time_key = X25519PrivateKey.generate()
    delivered = [os.urandom(32) for _ in range(8)]
    plaintext = contents([Epoch(number, 2, 3, [(X25519, key)]) for number, key in enumerate(delivered)])
    box = group.seal(one_time_key.public_key().public_bytes_raw(), plaintext)
    secrets_of_box = words(group.secrets_of_box(one_time_key, box))
    private_key = one_time_key.private_bytes_raw()
    script = """
        group = GroupKeys.of_name(b"name")
        one_time_key = far_down(from_known_private_key)
        box = bytes.fromhex(reached("waiting"))
        _, _, epochs = far_down(lambda: open_box(group, one_time_key, box))
        reached("opened")
        one_time_key.erase()
        reached("one-time key erased")
        for _, pair, _, _, _ in epochs:
            pair.erase()
        reached("erased")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("waiting")
        assert only_in_protected_memory(process, traces(private_key))
        process.run_to("opened", told=box.hex())
        for key in delivered:
            assert only_in_protected_memory(process, traces(key))
        assert only_in_protected_memory(process, traces(private_key))
        assert process.where(secrets_of_box) == []
        process.run_to("one-time key erased")
        assert process.where(traces(private_key)) == []
        process.run_to("erased")
        assert process.where(set().union(*map(traces, delivered)) | secrets_of_box) == []


def test_a_box_that_is_refused_leaves_no_private_key_behind() -> None:
    group = GroupSecrets.of_name(b"name")
    one_time_key = X25519PrivateKey.generate()
    delivered = [os.urandom(32) for _ in range(7)]
    epochs = [Epoch(number, 2, 3, [(X25519, key)]) for number, key in enumerate(delivered)]
    # Authentic, and wrong in its last epoch only.
    plaintext = contents([*epochs, Epoch(7, 2, 3, [(X25519, bytes(31))])])
    box = group.seal(one_time_key.public_key().public_bytes_raw(), plaintext)
    script = """
        from server_keys import MalformedMessageError

        group = GroupKeys.of_name(b"name")
        one_time_key = far_down(from_known_private_key)
        box = bytes.fromhex(reached("waiting"))
        try:
            far_down(lambda: open_box(group, one_time_key, box))
        except MalformedMessageError as error:
            reached("refused")
    """
    with victim(script, private_key=one_time_key.private_bytes_raw()) as process:
        process.run_to("waiting")
        process.run_to("refused", told=box.hex())
        assert process.where(set().union(*map(traces, delivered))) == []
        assert process.where(words(group.secrets_of_box(one_time_key, box))) == []


# Random bytes that the test knows, once it says so. The library holds them inverted, so that they are not found there.
KNOWN_RANDOMNESS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>

static const volatile unsigned char inverted[32] = {%s};
static volatile int known;

void know_randomness(int whether) { known = whether; }

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    if (known) {
        for (size_t index = 0; index < length; index++)
            ((volatile unsigned char *)buffer)[index] = inverted[index %% 32] ^ 0xff;
        return length;
    }
    ssize_t (*original)(void *, size_t, unsigned int);
    *(void **)&original = dlsym(RTLD_NEXT, "getrandom");
    return original(buffer, length, flags);
}
"""


def known_randomness(folder: Path, drawn: bytes) -> Path:
    """Build a library whose getrandom() gives `drawn` again and again, between two calls of `know_randomness`."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the package"
    source, library = folder / "known_getrandom.c", folder / "known_getrandom.so"
    source.write_text(KNOWN_RANDOMNESS % ",".join(str(byte ^ 0xFF) for byte in drawn))
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def test_sealing_leaves_neither_the_private_keys_nor_those_of_the_boxes_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = GroupSecrets.of_name(b"name")
    one_time_key = X25519PrivateKey.generate()
    private_key, drawn = os.urandom(32), os.urandom(32)
    # RFC 9180, section 7.1.3: DeriveKeyPair.
    extracted = labeled_extract(KEM_SUITE, b"", b"dkp_prk", drawn)
    ephemeral_key = labeled_expand(KEM_SUITE, extracted, b"sk", b"", 32)
    monkeypatch.setenv("LD_PRELOAD", os.fspath(known_randomness(tmp_path, drawn)))
    script = """
        import ctypes

        group = GroupKeys.of_name(b"name")
        pair = far_down(from_known_private_key)
        epochs = [(1, pair, None, 2, 3), (2, KeyPair.generate(), None, 2, 3)]
        one_time_keys = [bytes.fromhex(sys.argv[2])] * 20

        def seal():
            return seal_boxes(group, one_time_keys, whole=True, as_of_ms=0, epochs=epochs)

        know_randomness = ctypes.CDLL(None).know_randomness
        know_randomness(1)
        boxes = far_down(seal)
        know_randomness(0)
        reached("sealed", boxes[0].hex())
        pair.erase()
        reached("erased")
    """
    public_key = one_time_key.public_key().public_bytes_raw()
    with victim(script, public_key.hex(), private_key=private_key) as process:
        box = bytes.fromhex(process.run_to("sealed"))
        assert box[:32] == X25519PrivateKey.from_private_bytes(ephemeral_key).public_key().public_bytes_raw()
        assert only_in_protected_memory(process, traces(private_key))
        assert process.where(traces(ephemeral_key)) == []
        assert process.where(words({drawn, extracted} | group.secrets_of_box(one_time_key, box))) == []
        process.run_to("erased")
        assert process.where(traces(private_key)) == []
