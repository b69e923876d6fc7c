"""Who may speak to a device when: one command at a time, as a state machine without I/O and without a clock.

A connection has one conversation. Its driver asks :meth:`Conversation.next_step` what to do until that says None, does
it, and asks again when something has happened: the device answered, the store gave a job, the line became free, the
deadline came::

    IDLE      nothing is known to be said
    FETCHING  the store is asked for a job (Fetch); its attempt is counted, so it is asked only while the line is free
    HOLDING   a job from the store waits, because a packet came in between
    WAITING   a command is sent (Send), its answer is due
    RESTING   no answer came (GiveUp), or none was due, or the connection has just begun
    CLOSED    the connection is gone

What a client waits for goes before what the store has. Responses have no numbers: a response that is late would be
taken for the next command's, so after a command without one the line rests for a while.
"""

from __future__ import annotations

import enum
from typing import Any

from attrs import define, field, frozen

REST_TIME = 10.0
"""Seconds in which a late response is waited for before the next command is sent. A device that restarts is away."""
QUIET_TIME = 2.0
"""Seconds after the login in which nothing is sent. A tracker that was let in sends its records at once. It answers
commands while it sends, but one that comes together with our answer to the login may be lost, or its response may. Two
seconds are enough for the first packet to arrive over GPRS, and too few to miss those that hang up early."""
CLIENTS_MOST = 8
"""Commands of clients that wait for one device's line."""
NEVER = float("inf")


@frozen(eq=False)
class Job:
    """A command to be sent. ``origin``: whose it is; the conversation does not look at it.

    ``answer_time``: seconds that the answer is waited for. ``deadline``: until when the whole thing is of interest.
    """

    payload: bytes
    codec_id: int
    is_answered: bool
    origin: Any
    answer_time: float = 30.0
    deadline: float = NEVER


@frozen
class Fetch:
    """Ask the store for a job, and call fetched with it."""


@frozen
class Send:
    """Send the job's command. Where it is not answered, that was all."""

    job: Job


@frozen
class GiveUp:
    """No answer came in time; ``was_sent`` False: the line did not become free in time."""

    job: Job
    was_sent: bool


Step = Fetch | Send | GiveUp


class State(enum.Enum):
    """What the conversation waits for."""

    IDLE = "something to say"
    FETCHING = "the store"
    HOLDING = "a free line"
    WAITING = "the answer"
    RESTING = "the end of a pause"
    CLOSED = "nothing any more"


@define(eq=False)
class Conversation:
    """The commands of one connection. All times are those of the driver's clock, in seconds."""

    _state: State = State.IDLE
    _job: Job | None = None
    """HOLDING: to be sent. WAITING: sent. RESTING: sent, and not answered; None where no answer is due."""
    _until: float = NEVER
    """WAITING: when the answer is given up. RESTING: when it goes on."""
    _may_fetch: bool = False
    _clients: list[Job] = field(factory=list)

    @classmethod
    def begun(cls, now: float, quiet_time: float = QUIET_TIME) -> Conversation:
        """That of a connection whose device was let in just now."""
        return cls(state=State.RESTING, until=now + quiet_time)

    @property
    def state(self) -> State:
        """What is waited for."""
        return self._state

    @property
    def deadline(self) -> float:
        """When to ask for the next step at the latest; never: infinity."""
        return min([self._until, *(job.deadline for job in self._clients)])

    @property
    def is_eager(self) -> bool:
        """Whether there is something to be said as soon as the line is free."""
        return self._state is State.HOLDING or (self._state is State.IDLE and (self._may_fetch or bool(self._clients)))

    # -- what happens

    def ask(self, job: Job) -> bool:
        """A client wants this to be sent; False: too many wait, or the connection is gone."""
        if self._state is State.CLOSED or len(self._clients) >= CLIENTS_MOST:
            return False
        self._clients.append(job)
        return True

    def wake(self) -> None:
        """The store may have something."""
        self._may_fetch = True

    def fetched(self, job: Job | None) -> Job | None:
        """The store's answer to Fetch; None: there is nothing. Gives back what came too late, after the end."""
        if self._state is State.CLOSED:
            return job
        assert self._state is State.FETCHING
        self._job = job
        self._state = State.IDLE if job is None else State.HOLDING
        return None

    def answered(self) -> Job | None:
        """A response came; gives the job that it answers. None: nobody waits for it any longer."""
        if self._state not in (State.WAITING, State.RESTING):
            return None
        job = self._job
        self._rest_ends()
        return job

    def close(self) -> list[Job]:
        """The connection is gone; gives the jobs that were not done, the one that was sent first."""
        current = [] if self._job is None or self._state is State.RESTING else [self._job]
        undone = [*current, *self._clients]
        self._clients.clear()
        self._state, self._job, self._until = State.CLOSED, None, NEVER
        return undone

    # -- what to do

    def next_step(self, now: float, is_line_free: bool) -> Step | None:
        """What to do just now; None: nothing, before something happens or the deadline comes."""
        if self._state is State.CLOSED:
            return None
        overdue = next((job for job in self._clients if job.deadline <= now), None)
        if overdue is not None:
            self._clients.remove(overdue)
            return GiveUp(overdue, was_sent=False)
        if self._state in (State.WAITING, State.RESTING) and now < self._until:
            return None
        if self._state is State.WAITING:
            return self._give_up(now)
        if self._state is State.RESTING:
            self._rest_ends()
        return self._speak(now) if is_line_free and self._state is not State.FETCHING else None

    def _give_up(self, now: float) -> Step:
        assert self._job is not None
        self._state, self._until = State.RESTING, now + REST_TIME
        return GiveUp(self._job, was_sent=True)

    def _rest_ends(self) -> None:
        self._state, self._job, self._until = State.IDLE, None, NEVER
        self._may_fetch = True

    def _speak(self, now: float) -> Step | None:
        """A job from the store that a client overtakes was counted as an attempt, and is not put back: it is next."""
        if self._state is State.HOLDING:
            assert self._job is not None
            return self._send(self._job, now)
        if self._clients:
            return self._send(self._clients.pop(0), now)
        if self._may_fetch:
            self._may_fetch = False
            self._state = State.FETCHING
            return Fetch()
        return None

    def _send(self, job: Job, now: float) -> Step:
        if job.is_answered:
            self._state, self._job, self._until = State.WAITING, job, min(now + job.answer_time, job.deadline)
        else:
            self._state, self._job, self._until = State.RESTING, None, now + REST_TIME
        return Send(job)
