"""A ring hands out pairs in their time only and erases the rest, in whatever order and however late it is used."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server_keys import EntropyError, KeyPair, KeyRing, KeysUnavailableError
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source

PERIOD_S = 300.0
OVERLAP_S = 100.0
LIFE_S = PERIOD_S + OVERLAP_S


class RingInAnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.held = HeldTime()
        self.source = Source()
        self.made_at_s: dict[KeyPair, float] = {}
        self.ring = KeyRing(PERIOD_S, overlap_s=OVERLAP_S, generate=self.generate, clock=self.held.boot)

    def generate(self) -> KeyPair:
        pair = self.source()
        self.made_at_s[pair] = self.held.boot()
        return pair

    @rule(seconds=st.one_of(st.floats(0, 1000), st.sampled_from([0.05, OVERLAP_S, PERIOD_S, LIFE_S])))
    def time_passes(self, seconds: float) -> None:
        self.held.pass_s(seconds)

    @rule()
    def the_task_wakes(self) -> None:
        self.ring.refresh_if_due()
        wait_s = self.ring.next_event_in_s()
        assert wait_s is not None
        assert wait_s > 0, "the task would spin"
        for pair, made_at_s in self.made_at_s.items():
            assert pair.erased or self.held.boot() < made_at_s + LIFE_S

    @precondition(lambda self: self.source.error is None)
    @rule()
    def somebody_refreshes(self) -> None:
        self.ring.refresh()

    @rule()
    def somebody_erases_the_current_pair(self) -> None:
        try:
            self.ring.current.erase()
        except KeysUnavailableError:
            assert self.ring.status.last_error is not None

    @rule()
    def the_random_source_fails(self) -> None:
        self.source.error = EntropyError("for this test")

    @rule()
    def the_random_source_works(self) -> None:
        self.source.error = None

    @invariant()
    def what_is_handed_out_is_in_its_time_and_the_rest_is_erased(self) -> None:
        try:
            accepted = self.ring.accepted
        except KeysUnavailableError:
            assert self.ring.status.last_error is not None
            # One may be left: the predecessor of a pair that somebody erased.
            accepted = tuple(pair for pair in self.source.pairs if not pair.erased)
            assert len(accepted) <= 1
        else:
            assert self.ring.current is accepted[0]
        assert len(accepted) <= 2
        assert self.source.usable == sorted(self.source.pairs.index(pair) for pair in accepted)
        assert all(self.held.boot() < self.made_at_s[pair] + LIFE_S for pair in accepted)

    def teardown(self) -> None:
        self.ring.close()
        assert self.source.usable == []


RingInAnyOrder.TestCase.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
TestRingInAnyOrder = RingInAnyOrder.TestCase
