"""Who may speak to a device when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.store.conversation import (
    CLIENTS_MOST,
    NEVER,
    QUIET_TIME,
    REST_TIME,
    Conversation,
    Fetch,
    GiveUp,
    Job,
    Send,
    State,
)

ANSWER_TIME = 30.0


def job(name: str = "job", *, is_answered: bool = True, deadline: float = NEVER) -> Job:
    return Job(name.encode(), 12, is_answered, name, ANSWER_TIME, deadline)


def fetching(now: float = 0) -> Conversation:
    conversation = Conversation()
    conversation.wake()
    assert conversation.next_step(now, True) == Fetch()
    return conversation


def waiting(sent: Job, now: float = 0) -> Conversation:
    """A conversation that has sent this."""
    conversation = fetching(now)
    conversation.fetched(sent)
    assert conversation.next_step(now, True) == Send(sent)
    return conversation


def resting(sent: Job, now: float = 0) -> Conversation:
    """One that has sent this, and had no answer."""
    conversation = waiting(sent, now)
    assert conversation.next_step(now + ANSWER_TIME, True) == GiveUp(sent, True)
    return conversation


def test_a_conversation_that_nobody_woke_says_nothing() -> None:
    conversation = Conversation()
    assert conversation.next_step(0, True) is None
    assert conversation.deadline == NEVER


def test_at_first_nothing_is_said() -> None:
    """Neither for a client nor for the store, however free the line is; a client's time runs."""
    conversation = Conversation.begun(100)
    conversation.wake()
    conversation.ask(client := job("client"))
    conversation.ask(hasty := job("hasty", deadline=101))
    assert not conversation.is_eager
    assert conversation.deadline == 101
    assert conversation.next_step(100, True) is None
    assert conversation.next_step(101, True) == GiveUp(hasty, False)
    assert conversation.deadline == 100 + QUIET_TIME
    assert conversation.next_step(100 + QUIET_TIME - 0.1, True) is None
    assert conversation.next_step(100 + QUIET_TIME, True) == Send(client)
    conversation.answered()
    assert conversation.next_step(100 + QUIET_TIME, True) == Fetch()


def test_where_nobody_wants_anything_nothing_is_said_afterwards() -> None:
    """But what is wanted later goes at once."""
    conversation = Conversation.begun(100)
    conversation.ask(client := job("client"))
    assert conversation.next_step(100 + 10 * QUIET_TIME, True) == Send(client)


def test_the_end_of_a_connection_that_has_just_begun_gives_back_what_waits() -> None:
    conversation = Conversation.begun(100)
    conversation.ask(client := job("client"))
    assert conversation.close() == [client]


def test_the_store_is_asked_once_until_it_is_woken_again() -> None:
    """After an answer it is asked again: there may be more."""
    conversation = fetching()
    assert conversation.next_step(0, True) is None
    assert conversation.fetched(None) is None
    assert conversation.next_step(0, True) is None
    conversation.wake()
    assert conversation.next_step(0, True) == Fetch()
    conversation.fetched(sent := job())
    assert conversation.next_step(0, True) == Send(sent)
    assert conversation.answered() is sent
    assert conversation.next_step(0, True) == Fetch()


def test_while_the_line_is_busy_nothing_is_fetched_or_sent() -> None:
    """A fetched command counts as an attempt, so it is fetched late."""
    conversation = Conversation()
    conversation.wake()
    conversation.ask(client := job("client"))
    assert conversation.next_step(0, False) is None
    assert conversation.next_step(0, True) == Send(client)


def test_it_is_eager_where_a_free_line_is_all_that_is_missing() -> None:
    conversation = Conversation()
    assert not conversation.is_eager
    conversation.wake()
    assert conversation.is_eager
    conversation.next_step(0, True)
    assert not conversation.is_eager
    conversation.fetched(job())
    assert conversation.is_eager
    conversation.next_step(0, True)
    conversation.ask(job())
    assert not conversation.is_eager
    conversation.answered()
    assert conversation.is_eager
    conversation.close()
    assert not conversation.is_eager


def test_what_was_fetched_waits_for_the_line() -> None:
    conversation = fetching()
    conversation.fetched(stored := job())
    assert conversation.next_step(0, False) is None
    assert conversation.state is State.HOLDING
    assert conversation.next_step(1, True) == Send(stored)


def test_one_command_at_a_time() -> None:
    """The next one goes out when the answer is there."""
    conversation = waiting(first := job("first"))
    conversation.ask(second := job("second"))
    assert conversation.next_step(1, True) is None
    assert conversation.answered() is first
    assert conversation.next_step(1, True) == Send(second)


def test_clients_go_before_the_store() -> None:
    conversation = Conversation()
    conversation.wake()
    for name in "abc":
        conversation.ask(job(name))
    said = []
    for _ in range(3):
        step = conversation.next_step(0, True)
        assert isinstance(step, Send)
        said.append(step.job.origin)
        conversation.answered()
    assert said == ["a", "b", "c"]
    assert conversation.next_step(0, True) == Fetch()


def test_clients_that_wait_have_a_bound() -> None:
    conversation = Conversation()
    assert [conversation.ask(job()) for _ in range(CLIENTS_MOST + 1)] == [True] * CLIENTS_MOST + [False]


def test_no_answer_in_time_is_given_up_and_the_line_rests() -> None:
    """A late response would be taken for that of the next command."""
    conversation = waiting(sent := job(), now=100)
    assert conversation.deadline == 100 + ANSWER_TIME
    assert conversation.next_step(100 + ANSWER_TIME - 1, True) is None
    assert conversation.next_step(100 + ANSWER_TIME, True) == GiveUp(sent, True)
    conversation.ask(client := job("client"))
    assert conversation.deadline == 100 + ANSWER_TIME + REST_TIME
    assert conversation.next_step(conversation.deadline - 1, True) is None
    assert conversation.next_step(conversation.deadline, True) == Send(client)


def test_a_late_answer_belongs_to_what_was_given_up_and_ends_the_rest() -> None:
    conversation = resting(sent := job())
    assert conversation.answered() is sent
    assert conversation.next_step(ANSWER_TIME + 1, True) == Fetch()


def test_an_answer_to_nothing_is_nobody_s() -> None:
    assert Conversation().answered() is None
    assert fetching().answered() is None
    conversation = waiting(job())
    conversation.answered()
    assert conversation.answered() is None


def test_a_command_without_an_answer_is_done_when_it_is_sent() -> None:
    """The device restarts, say: it is left alone for a while."""
    conversation = fetching()
    conversation.fetched(silent := job(is_answered=False))
    assert conversation.next_step(0, True) == Send(silent)
    assert conversation.state is State.RESTING
    assert conversation.close() == []


def test_an_answer_to_a_command_without_one_is_nobody_s() -> None:
    conversation = fetching()
    conversation.fetched(job(is_answered=False))
    conversation.next_step(0, True)
    assert conversation.answered() is None


def test_a_client_does_not_wait_for_ever_for_a_busy_line() -> None:
    conversation = Conversation()
    conversation.ask(client := job("client", deadline=5))
    assert conversation.deadline == 5
    assert conversation.next_step(4, False) is None
    assert conversation.next_step(5, False) == GiveUp(client, False)
    assert conversation.next_step(5, True) is None


def test_a_client_s_time_runs_while_others_speak() -> None:
    """What is left of it is for the answer."""
    conversation = waiting(first := job("first"))
    conversation.ask(client := job("client", deadline=20))
    assert conversation.answered() is first
    assert conversation.next_step(15, True) == Send(client)
    assert conversation.deadline == 20
    assert conversation.next_step(20, True) == GiveUp(client, True)


@pytest.mark.parametrize("begin", [waiting, resting])
def test_the_end_gives_back_what_was_not_done(begin: Any) -> None:
    """What was given up before is not given back again."""
    conversation = begin(job("sent"))
    conversation.ask(job("client"))
    undone = [one.origin for one in conversation.close()]
    assert undone == (["sent", "client"] if begin is waiting else ["client"])
    assert conversation.next_step(1000, True) is None
    assert conversation.deadline == NEVER
    assert not conversation.ask(job())
    assert conversation.answered() is None


def test_what_the_store_gives_after_the_end_is_given_back() -> None:
    conversation = fetching()
    assert conversation.close() == []
    assert conversation.fetched(late := job()) is late
    assert conversation.fetched(None) is None


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever happens: one command at a time, and each job has one end."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation.begun(0.0)
        self.now = 0.0
        self.made = 0
        self.fetching = False
        self.in_flight: Job | None = None
        self.resting_until = QUIET_TIME
        self.open: set[str] = set()
        self.ended: list[str] = []

    def make(self, **values: Any) -> Job:
        self.made += 1
        return job(f"job {self.made}", **values)

    def end(self, one: Job) -> None:
        assert one.origin in self.open
        self.open.discard(one.origin)
        self.ended.append(one.origin)

    @rule(seconds=st.sampled_from([0.0, 1.0, REST_TIME, ANSWER_TIME]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.integers(5, 60))
    def client(self, seconds: int) -> None:
        asked = self.make(deadline=self.now + seconds)
        if self.conversation.ask(asked):
            self.open.add(asked.origin)

    @rule()
    def wake(self) -> None:
        self.conversation.wake()

    @precondition(lambda self: self.fetching)
    @rule(kind=st.sampled_from(["nothing", "answered", "silent"]))
    def fetched(self, kind: str) -> None:
        self.fetching = False
        given = None if kind == "nothing" else self.make(is_answered=kind == "answered")
        if given is not None:
            self.open.add(given.origin)
        back = self.conversation.fetched(given)
        if back is not None:
            self.end(back)

    @rule(is_line_free=st.booleans())
    def step(self, is_line_free: bool) -> None:
        is_eager = self.conversation.is_eager
        step = self.conversation.next_step(self.now, is_line_free)
        assert step is not None or not (is_eager and is_line_free)
        if isinstance(step, Fetch):
            assert is_line_free
            assert not self.fetching
            assert self.in_flight is None
            self.fetching = True
        elif isinstance(step, Send):
            assert is_line_free
            assert self.in_flight is None
            assert self.now >= self.resting_until
            if step.job.is_answered:
                self.in_flight = step.job
            else:
                self.end(step.job)
                self.resting_until = self.now + REST_TIME
        elif isinstance(step, GiveUp):
            assert step.was_sent is (step.job is self.in_flight)
            if step.was_sent:
                self.in_flight = None
                self.resting_until = self.now + REST_TIME
            self.end(step.job)

    @rule()
    def answer(self) -> None:
        answered = self.conversation.answered()
        if self.in_flight is not None:
            assert answered is self.in_flight
            self.end(answered)
            self.in_flight = None
        self.resting_until = -1.0

    @rule()
    def close(self) -> None:
        for undone in self.conversation.close():
            self.end(undone)
        assert not self.open
        self.in_flight = None

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert len(self.ended) == len(set(self.ended))

    @invariant()
    def whatever_waits_has_a_deadline(self) -> None:
        if self.in_flight is not None:
            assert self.conversation.deadline < NEVER


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
