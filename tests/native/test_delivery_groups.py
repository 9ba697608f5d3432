"""The keys of a group: who derives the same ones, and what they tell apart."""

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from server_keys._native import GroupKeys
from tests.helpers import group_boxes
from tests.helpers.group_boxes import VECTORS, GroupSecrets
from tests.helpers.scripts import run_script

SECRET = bytes(range(32))


def made(secret: bytes = SECRET, label: bytes = b"label") -> GroupKeys:
    (group,) = GroupKeys.from_secret_text(secret.hex(), label)
    return group


def test_the_known_answers_are_those_of_cryptography() -> None:
    assert json.loads((VECTORS / "group.json").read_text()) == group_boxes.group_vectors()


def test_keys_are_those_of_the_known_answers() -> None:
    vectors = json.loads((VECTORS / "group.json").read_text())
    ask, register = bytes.fromhex(vectors["ask"]), bytes.fromhex(vectors["register"])
    assert len(vectors["groups"]) == 6
    for known in vectors["groups"]:
        if "name" in known:
            group = GroupKeys.of_name(bytes.fromhex(known["name"]))
        else:
            (group,) = GroupKeys.from_secret_text(known["secret"], bytes.fromhex(known["label"]))
        assert group.group_id.hex() == known["group_id"]
        assert group.ask_tag(ask).hex() == known["ask_tag"]
        assert group.register_tag(register).hex() == known["register_tag"]


def test_another_secret_or_label_or_a_name_gives_another_group() -> None:
    groups = [made(), made(bytes(32)), made(SECRET + b"\0"), made(label=b"other"), made(label=b"")]
    groups += [GroupKeys.of_name(SECRET), GroupKeys.of_name(b"name"), GroupKeys.of_name(b"")]
    assert len({group.group_id for group in groups}) == len(groups)
    assert len({group.ask_tag(b"x") for group in groups} | {group.register_tag(b"x") for group in groups}) == 16
    assert {len(group.group_id) for group in groups} == {16}


def test_a_tag_is_for_one_message_of_one_kind_in_one_group() -> None:
    group, other = made(), made(label=b"other")
    for tag, is_tag, is_tag_of_other_kind, is_tag_in_other_group in (
        (group.ask_tag, group.is_ask_tag, group.is_register_tag, other.is_ask_tag),
        (group.register_tag, group.is_register_tag, group.is_ask_tag, other.is_register_tag),
    ):
        for message in (b"", b"message", bytes(100_000)):
            right = tag(message)
            assert len(right) == 32
            assert is_tag(message, right)
            assert is_tag(bytearray(message), memoryview(right))
            assert not is_tag(message + b"\0", right)
            assert not is_tag_of_other_kind(message, right)
            assert not is_tag_in_other_group(message, right)


def test_no_changed_or_shortened_tag_passes() -> None:
    group = made()
    right = group.register_tag(b"register")
    for index in range(256):
        changed = bytearray(right)
        changed[index // 8] ^= 1 << index % 8
        assert not group.is_register_tag(b"register", changed)
    for length in range(32):
        assert not group.is_register_tag(b"register", right[:length])
    assert not group.is_register_tag(b"register", right + b"\0")


@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda group: pickle.dumps(group, 0), lambda group: GroupKeys()],
)
def test_keys_are_neither_copied_nor_pickled_nor_made_by_a_call(take: Callable[[GroupKeys], object]) -> None:
    with pytest.raises(TypeError):
        take(made())


def test_python_sees_the_groups_id_and_nothing_else() -> None:
    group, secrets = made(), GroupSecrets.of_secret(SECRET, b"label")
    assert repr(group) == f"<GroupKeys {secrets.group_id.hex()}>"
    assert not hasattr(group, "__dict__")
    public = {name for name in dir(group) if not name.startswith("_")}
    assert public == {
        "ask_tag", "from_secret_file", "from_secret_text", "group_id", "is_ask_tag", "is_register_tag", "of_name",
        "register_tag",
    }  # fmt: skip
    with pytest.raises(AttributeError):
        group.group_id = bytes(16)  # type: ignore[misc]


@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]])
def test_what_is_not_bytes_is_a_type_error(wrong: object) -> None:
    group = made()
    for use in (GroupKeys.of_name, group.ask_tag, group.register_tag, lambda tag: group.is_ask_tag(b"", tag)):
        with pytest.raises(TypeError):
            use(wrong)  # type: ignore[arg-type]


def test_a_forked_child_has_the_id_and_none_of_the_keys() -> None:
    run_script("""
        import os, warnings
        from server_keys import KeyErasedError, KeyPair
        from server_keys._native import GroupKeys, open_box, seal_boxes

        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")
        group, pair, one_time_key = GroupKeys.of_name(b"name"), KeyPair.generate(), KeyPair.generate()

        def seal(group, pair):
            return seal_boxes(group, [one_time_key.public_key], whole=True, as_of_ms=0, epochs=[(1, pair, None, 0, 1)])

        (box,) = seal(group, pair)
        tag, group_id = group.ask_tag(b"ask"), group.group_id
        if (child := os.fork()) == 0:
            own = GroupKeys.of_name(b"name")
            for use in (
                lambda: group.ask_tag(b"ask"),
                lambda: group.is_ask_tag(b"ask", tag),
                lambda: group.register_tag(b"register"),
                lambda: group.is_register_tag(b"register", tag),
                lambda: seal(group, KeyPair.generate()),
                lambda: seal(own, pair),
                lambda: open_box(group, KeyPair.generate(), box),
                lambda: open_box(own, one_time_key, box),
            ):
                try:
                    use()
                except KeyErasedError as error:
                    assert "forked" in str(error)
                else:
                    os._exit(1)
            os._exit(0 if own.ask_tag(b"ask") == tag and own.group_id == group.group_id == group_id else 2)
        assert os.waitpid(child, 0)[1] == 0
        assert group.is_ask_tag(b"ask", tag)
        assert open_box(group, one_time_key, box)[2] == [(1, pair, None, 0, 1)]
    """)
