"""What a group knows is in protected memory or nowhere, whatever was done with it: read from outside, all of it."""

import hashlib
import hmac
import os
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.helpers.group_boxes import X25519, Epoch, GroupSecrets, contents
from tests.helpers.hash_traces import compressed, hmac_states, words
from tests.helpers.key_traces import traces
from tests.helpers.known_key_victim import victim
from tests.helpers.known_randomness import known_randomness
from tests.helpers.message_keys import KEM_SUITE, labeled_expand, labeled_extract
from tests.helpers.process_memory import only_in_protected_memory


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
    assert struct.pack(">8I", *compressed(padded)) == hashlib.sha256(b"").digest()


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
