"""All states of the TCP session, and all that can happen in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import OutOfTurn, ProtocolViolation
from gateway.protocols.teltonika.exchange import COMMAND_TURNS, CommandState
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.session import NEED_DATA, TURNS, CommandAnswered, Session, State
from tests.builders import FrameFactory

FACTORY = FrameFactory()
PACKET = FACTORY.packet(records=2)
UNDECODABLE = FACTORY.packet(records=3, count_again=4)
BAD_CRC = FACTORY.packet(records=2, bad_crc=True)
AROUND_BODY = 12
LIMIT = len(UNDECODABLE) - AROUND_BODY  # the greatest of these frames
DECISIONS: dict[str, Callable[[Session], Any]] = {
    "accept_ident": Session.accept_ident,
    "reject_ident": Session.reject_ident,
    "acknowledge": lambda session: session.acknowledge(1),
    "skip": Session.skip,
    "send_command": lambda session: session.send_command(b"getver"),
}
COMMAND_DECISIONS: dict[str, Callable[[Session], Any]] = {
    "send_command": DECISIONS["send_command"],
    "abandon_command": Session.abandon_command,
}


def session_in(state: State) -> Session:
    """A session that waits for this, brought there by bytes and answers alone."""
    session = Session()
    if state is State.LOGIN:
        return session
    session.receive_data(FACTORY.login())
    session.next_event()
    if state is State.VERDICT:
        return session
    if state is State.REJECTED:
        session.reject_ident()
        return session
    session.accept_ident()
    session.receive_data(BYTES_TO[state])
    if state is State.BROKEN:
        with pytest.raises(ProtocolViolation):
            session.next_event()
    else:
        session.next_event()
    return session


BYTES_TO = {
    State.READY: b"",
    State.ACKNOWLEDGEMENT: PACKET,
    State.SILENCE: build_frame(b"\x0c\x01"),
    State.BROKEN: b"GET / HTTP/1.1\r\n",
}


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("state", State)
def test_a_decision_out_of_turn_is_refused_and_changes_nothing(state: State, decision: str) -> None:
    """The table says which is possible where; all pairs are tried."""
    session = session_in(state)
    assert session.state is state
    expected = TURNS.get((state, decision))
    if expected is None:
        with pytest.raises(OutOfTurn, match=decision):
            DECISIONS[decision](session)
    else:
        DECISIONS[decision](session)
    assert session.state is (expected or state)


def session_in_command_state(state: CommandState) -> Session:
    """A session without records under way, for which this response is due."""
    session = session_in(State.READY)
    if state is not CommandState.NONE:
        session.send_command(b"getver")
    if state is CommandState.LATE:
        session.abandon_command()
    return session


@pytest.mark.parametrize("decision", COMMAND_DECISIONS)
@pytest.mark.parametrize("state", CommandState)
def test_a_command_out_of_turn_is_refused_and_changes_nothing(state: CommandState, decision: str) -> None:
    """The second table, of commands, beside that of packets."""
    session = session_in_command_state(state)
    assert session.command_state is state
    expected = COMMAND_TURNS.get((state, decision))
    if expected is None:
        with pytest.raises(OutOfTurn, match=decision):
            COMMAND_DECISIONS[decision](session)
    else:
        COMMAND_DECISIONS[decision](session)
    assert (session.command_state, session.state) == (expected or state, State.READY)


class AnyStateAnyInput(RuleBasedStateMachine):
    """All states, all inputs: only our own errors, and never more held than one frame and what was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(max_data_length=LIMIT)
        self.fed_since_asked = 0

    @rule(data=st.sampled_from([FACTORY.login(), PACKET, BAD_CRC, UNDECODABLE, FACTORY.ping, FACTORY.command()]))
    def feed_something_right(self, data: bytes) -> None:
        self.feed(data)

    @rule(data=st.binary(max_size=30))
    def feed_noise(self, data: bytes) -> None:
        self.feed(data)

    @rule(data=st.sampled_from([PACKET, FACTORY.login()]), end=st.integers(1, 40))
    def feed_a_beginning(self, data: bytes, end: int) -> None:
        self.feed(data[:end])

    def feed(self, data: bytes) -> None:
        self.session.receive_data(data)
        self.fed_since_asked += len(data)

    @rule()
    def ask(self) -> None:
        try:
            event = self.session.next_event()
        except ProtocolViolation:
            assert self.session.state is State.BROKEN
            return
        if event is NEED_DATA:
            self.fed_since_asked = 0
            assert self.session.buffered < LIMIT + AROUND_BODY
        elif isinstance(event, CommandAnswered):
            assert self.session.command_state is CommandState.NONE

    @rule(name=st.sampled_from(sorted(set(DECISIONS) - {"send_command"})))
    def decide(self, name: str) -> None:
        before = self.session.state
        try:
            DECISIONS[name](self.session)
        except OutOfTurn:
            assert (before, name) not in TURNS
        else:
            assert self.session.state is TURNS[before, name]

    @rule(name=st.sampled_from(sorted(COMMAND_DECISIONS)))
    def command(self, name: str) -> None:
        session = self.session
        states, could_send = (session.state, session.command_state), session.may_send_command
        try:
            COMMAND_DECISIONS[name](session)
        except OutOfTurn:
            is_possible = name == "abandon_command" or (session.state, name) in TURNS
            assert not (is_possible and (session.command_state, name) in COMMAND_TURNS)
            assert not (could_send and name == "send_command")
            assert (session.state, session.command_state) == states
        else:
            assert (session.state, session.command_state) == (states[0], COMMAND_TURNS[states[1], name])

    @precondition(lambda self: self.session.state is State.VERDICT)
    @rule()
    def accept(self) -> None:
        assert self.session.accept_ident() == b"\x01"

    @invariant()
    def holds_no_more_than_a_frame_and_what_was_fed(self) -> None:
        assert self.session.buffered < LIMIT + AROUND_BODY + self.fed_since_asked


TestAnyStateAnyInput = AnyStateAnyInput.TestCase
