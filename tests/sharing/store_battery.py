"""What every store of a group has to do, tested through its interface only.

A test module of a store gives two fixtures and takes the tests over::

    @pytest.fixture
    def open_store() -> OpenStore: ...

    @pytest.fixture
    def wait_s() -> WaitS: ...

    class TestThisStore(StoreBattery):
        pass
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from server_keys._sharing.store import (
    MOST_ASK_BYTES,
    MOST_ASKS,
    MOST_BOX_BYTES,
    MOST_REGISTER_BYTES,
    CrowdedStoreError,
    Store,
    StoreError,
)

OpenStore = Callable[[], Store]
"""Opens one more handle on the store of the test, as another member does."""
WaitS = Callable[[float], None]
"""Lets the store's time pass, in seconds."""

LONG_S = 60.0
REGISTER = b"the register"
NEXT = b"the next register"


def new_name() -> bytes:
    return secrets.token_bytes(32)


class StoreBattery:
    """Each method is a test; each handle is a member's."""

    def fill(self, store: Store, asks: int) -> None:
        """Put asks into the store. A subclass may know a faster way."""
        for _ in range(asks):
            store.ask(new_name(), b"ask", waits=False, keep_s=LONG_S)

    def test_an_empty_store_has_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        look = store.look(new_name())
        assert (look.register, look.asks, look.waiting, look.has_mine) == (b"", 0, 0, False)
        assert store.asks() == {}
        assert store.waiting() == {}
        assert store.take(new_name()) is None

    def test_a_commit_is_seen_by_other_members(self, open_store: OpenStore) -> None:
        name = new_name()
        assert open_store().commit(b"", REGISTER, {name: b"a box"}, LONG_S)
        other = open_store()
        assert other.look(name).register == REGISTER
        taken = other.take(name)
        assert taken is not None
        assert taken.box == b"a box"

    def test_any_bytes_come_back_as_they_were(self, open_store: OpenStore) -> None:
        every = bytes(range(256))
        name = new_name()
        store = open_store()
        store.ask(name, every, waits=True, keep_s=LONG_S)
        assert open_store().asks() == {name: every}
        assert store.commit(b"", every, {name: every}, LONG_S)
        assert store.look(name).register == every
        assert store.commit(every, REGISTER, {name: every}, LONG_S)
        taken = store.take(name)
        assert taken is not None
        assert taken.box == every

    def test_entries_of_the_greatest_length_are_handed_out(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        ask, register, box = b"a" * MOST_ASK_BYTES, b"r" * MOST_REGISTER_BYTES, b"b" * MOST_BOX_BYTES
        store.ask(name, ask, waits=True, keep_s=LONG_S)
        assert store.asks() == store.waiting() == {name: ask}
        assert store.commit(b"", register, {name: box}, LONG_S)
        assert store.look(name).register == register
        taken = store.take(name)
        assert taken is not None
        assert taken.box == box

    def test_longer_entries_are_not_handed_out(self, open_store: OpenStore) -> None:
        store, short, long = open_store(), new_name(), new_name()
        store.ask(short, b"short", waits=True, keep_s=LONG_S)
        store.ask(long, b"a" * (MOST_ASK_BYTES + 1), waits=True, keep_s=LONG_S)
        assert store.asks() == store.waiting() == {short: b"short"}
        store.serve(long, b"b" * (MOST_BOX_BYTES + 1), LONG_S)
        assert store.take(long) is None

    def test_a_commit_that_expects_another_register_changes_nothing(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert not store.commit(REGISTER, NEXT, {name: b"never"}, LONG_S)
        assert store.look(name)[:4] == (b"", 1, 1, True)
        assert store.commit(b"", REGISTER, {name: b"first"}, LONG_S)
        for expected in (b"", NEXT):
            assert not store.commit(expected, NEXT, {name: b"never"}, LONG_S)
        assert store.look(name).register == REGISTER
        taken = store.take(name)
        assert taken is not None
        assert taken.box == b"first"

    def test_a_commit_removes_the_boxes_that_were_there(self, open_store: OpenStore) -> None:
        store, old, served, new = open_store(), new_name(), new_name(), new_name()
        assert store.commit(b"", REGISTER, {old: b"old"}, LONG_S)
        assert store.serve(served, b"served", LONG_S)
        assert store.commit(REGISTER, NEXT, {new: b"new"}, LONG_S)
        assert store.take(old) is None
        assert store.take(served) is None
        assert store.take(new) is not None

    def test_after_a_commit_nobody_waits_and_the_asks_stay(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.commit(b"", REGISTER, {}, LONG_S)
        look = store.look(name)
        assert (look.asks, look.waiting, look.has_mine) == (1, 0, True)
        assert store.waiting() == {}
        assert store.asks() == {name: b"ask"}

    def test_a_member_can_wait_again_after_a_commit(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.commit(b"", REGISTER, {}, LONG_S)
        store.ask(name, b"asks again", waits=True, keep_s=LONG_S)
        assert store.look(name)[1:4] == (1, 1, True)
        assert store.waiting() == store.asks() == {name: b"asks again"}

    def test_a_commit_removes_old_asks_and_leaves_young_ones(self, open_store: OpenStore, wait_s: WaitS) -> None:
        store, old, young, renewed = open_store(), new_name(), new_name(), new_name()
        store.ask(old, b"old", waits=True, keep_s=LONG_S)
        store.ask(renewed, b"old", waits=False, keep_s=LONG_S)
        wait_s(0.5)
        store.ask(young, b"young", waits=False, keep_s=LONG_S)
        store.ask(renewed, b"renewed", waits=False, keep_s=LONG_S)
        assert store.commit(b"", REGISTER, {}, keep_s=0.3)
        assert store.asks() == {young: b"young", renewed: b"renewed"}
        assert not store.look(old).has_mine

    def test_what_a_commit_put_there_goes_by_itself(self, open_store: OpenStore, wait_s: WaitS) -> None:
        store, name = open_store(), new_name()
        assert store.commit(b"", REGISTER, {name: b"box"}, keep_s=0.3)
        assert store.look(name).register == REGISTER
        wait_s(0.5)
        assert store.look(name).register == b""
        assert store.take(name) is None
        assert not store.commit(REGISTER, NEXT, {}, LONG_S)
        assert store.commit(b"", NEXT, {}, LONG_S)
        assert store.look(name).register == NEXT

    def test_a_restored_register_goes_by_itself(self, open_store: OpenStore, wait_s: WaitS) -> None:
        store = open_store()
        assert store.restore(b"", REGISTER, keep_s=0.3)
        wait_s(0.5)
        assert store.look(new_name()).register == b""

    def test_restoring_puts_the_register_there_and_touches_nothing_else(self, open_store: OpenStore) -> None:
        store, waits, served = open_store(), new_name(), new_name()
        store.ask(waits, b"ask", waits=True, keep_s=LONG_S)
        store.ask(served, b"ask", waits=True, keep_s=LONG_S)
        assert store.serve(served, b"box", LONG_S)
        assert store.restore(b"", REGISTER, LONG_S)
        assert store.look(waits)[:4] == (REGISTER, 2, 1, True)
        assert store.restore(REGISTER, NEXT, LONG_S)
        assert store.look(waits)[:4] == (NEXT, 2, 1, True)
        assert store.waiting() == {waits: b"ask"}
        assert store.take(served) is not None

    def test_restoring_expects_a_register_too(self, open_store: OpenStore) -> None:
        store = open_store()
        assert not store.restore(NEXT, REGISTER, LONG_S)
        assert store.restore(b"", REGISTER, LONG_S)
        assert not store.restore(b"", NEXT, LONG_S)
        assert store.look(new_name()).register == REGISTER

    def test_an_ask_takes_the_place_of_its_own_earlier_one(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.ask(name, b"first", waits=False, keep_s=LONG_S)
        assert store.look(name)[1:4] == (1, 0, True)
        store.ask(name, b"second", waits=True, keep_s=LONG_S)
        assert store.look(name)[1:4] == (1, 1, True)
        assert store.asks() == store.waiting() == {name: b"second"}

    def test_only_those_who_say_so_wait(self, open_store: OpenStore) -> None:
        store, stands, waits = open_store(), new_name(), new_name()
        store.ask(stands, b"stands", waits=False, keep_s=LONG_S)
        store.ask(waits, b"waits", waits=True, keep_s=LONG_S)
        assert store.waiting() == {waits: b"waits"}
        assert store.asks() == {stands: b"stands", waits: b"waits"}
        assert open_store().look(new_name())[1:4] == (2, 1, False)

    def test_who_is_served_waits_no_longer_and_finds_the_first_box(self, open_store: OpenStore) -> None:
        store, other, name = open_store(), open_store(), new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.serve(name, b"first", LONG_S)
        assert not other.serve(name, b"second", LONG_S)
        assert store.look(name)[1:4] == (1, 0, True)
        taken = store.take(name)
        assert taken is not None
        assert taken.box == b"first"

    def test_one_can_be_served_again_after_taking(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        assert store.serve(name, b"first", LONG_S)
        assert store.take(name) is not None
        assert store.serve(name, b"second", LONG_S)
        taken = store.take(name)
        assert taken is not None
        assert taken.box == b"second"

    def test_a_box_is_taken_once_and_its_ask_goes_with_it(self, open_store: OpenStore) -> None:
        store, name, other = open_store(), new_name(), new_name()
        for member in (name, other):
            store.ask(member, b"ask", waits=False, keep_s=LONG_S)
        assert store.commit(b"", REGISTER, {name: b"box", other: b"its box"}, LONG_S)
        assert store.take(name) is not None
        assert store.take(name) is None
        assert store.look(name)[1:4] == (1, 0, False)
        assert store.asks() == {other: b"ask"}
        assert store.take(other) is not None

    def test_looking_for_no_box_takes_no_ask(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.take(name) is None
        assert store.look(name)[1:4] == (1, 1, True)

    def test_who_leaves_takes_ask_and_box_along_and_nothing_of_others(self, open_store: OpenStore) -> None:
        store, name, other = open_store(), new_name(), new_name()
        for member in (name, other):
            store.ask(member, b"ask", waits=False, keep_s=LONG_S)
        assert store.commit(b"", REGISTER, {name: b"box", other: b"its box"}, LONG_S)
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        store.leave(name)
        assert store.look(name)[:4] == (REGISTER, 1, 0, False)
        assert store.take(name) is None
        assert store.take(other) is not None

    def test_leaving_twice_or_without_an_ask_is_harmless(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        store.leave(name)
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        store.leave(name)
        store.leave(name)
        assert open_store().look(name).asks == 0

    def test_forgetting_removes_asks_and_who_waits_and_keeps_the_rest(self, open_store: OpenStore) -> None:
        store, name = open_store(), new_name()
        assert store.commit(b"", REGISTER, {name: b"box"}, LONG_S)
        for waits in (True, False):
            store.ask(new_name(), b"ask", waits=waits, keep_s=LONG_S)
        store.forget_asks()
        assert store.look(name)[:4] == (REGISTER, 0, 0, False)
        assert store.asks() == store.waiting() == {}
        assert store.take(name) is not None

    def test_a_crowded_store_takes_no_more_asks_until_they_are_forgotten(self, open_store: OpenStore) -> None:
        store, first = open_store(), new_name()
        assert store.commit(b"", REGISTER, {}, LONG_S)
        store.ask(first, b"ask", waits=True, keep_s=LONG_S)
        self.fill(store, MOST_ASKS - 1)
        assert len(store.asks()) == MOST_ASKS
        with pytest.raises(CrowdedStoreError):
            store.ask(new_name(), b"ask", waits=True, keep_s=LONG_S)
        assert store.look(first)[:4] == (REGISTER, MOST_ASKS, 1, True)
        store.forget_asks()
        store.ask(first, b"ask", waits=True, keep_s=LONG_S)
        assert store.asks() == {first: b"ask"}

    def test_of_commits_at_once_exactly_one_happens(self, open_store: OpenStore) -> None:
        members = [open_store() for _ in range(4)]
        name = new_name()
        before = b""
        with ThreadPoolExecutor(len(members)) as threads:
            for turn in range(30):

                def commit(member: int, before: bytes = before, turn: int = turn) -> bool:
                    text = b"%d of %d" % (turn, member)
                    return members[member].commit(before, text, {name: text}, LONG_S)

                won = list(threads.map(commit, range(len(members))))
                assert sum(won) == 1
                before = b"%d of %d" % (turn, won.index(True))
                assert members[0].look(name).register == before
                taken = members[1].take(name)
                assert taken is not None
                assert taken.box == before

    def test_the_stores_time_goes_on(self, open_store: OpenStore, wait_s: WaitS) -> None:
        store, other, name = open_store(), open_store(), new_name()
        before = store.look(name).time_ms
        assert store.commit(b"", REGISTER, {name: b"box"}, LONG_S)
        wait_s(0.5)
        taken = other.take(name)
        assert taken is not None
        assert 400 <= taken.time_ms - before < 30_000
        assert taken.time_ms <= store.look(name).time_ms

    def test_a_closed_store_raises_and_closes_again(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        store.look(new_name())
        store.close()
        store.close()
        with pytest.raises(StoreError):
            store.look(new_name())
        assert other.look(new_name()).register == b""
