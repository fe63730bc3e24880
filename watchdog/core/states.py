"""The states of a node and every way from one to another, one sentence a row.

The sentence goes to the log, to `pgvigil status` and into the diagram of the documentation, which is made
from this table. A way that is not in the table is a mistake of ours and ends the process.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.ipc.errors import InvariantError


class State(enum.Enum):
    """What a node is doing."""

    BLANK = "blank"
    STANDBY = "standby"
    ASKING = "asking"
    VOTING = "voting"
    ELECTED = "elected"
    LEADER = "leader"
    RELEASING = "releasing"
    STOPPED = "stopped"


class Trigger(enum.Enum):
    """Why a node changes its state."""

    NAMED = "named"
    UNNAMED = "unnamed"
    RESUMES = "resumes"
    STANDS = "stands"
    PREVOTES_WON = "pre-votes won"
    VOTES_WON = "votes won"
    ROUND_LOST = "round lost"
    STEPS_BACK = "steps back"
    LEASE_GAINED = "lease gained"
    REELECTED = "re-elected"
    LEASE_LOST = "lease lost"
    NEVER_LEASED = "never leased"
    UNFIT = "unfit"
    HIGHER_TERM = "higher term"
    FOLLOWS = "follows"
    RELEASES = "releases"
    RELEASED = "released"
    RELEASE_LATE = "release late"
    STOPS = "stops"


@dataclass(frozen=True, slots=True)
class Row:
    """Where a trigger leads, and what an operator reads. `{reason}` and `{term}` are filled in."""

    to: State
    sentence: str


S, T = State, Trigger

TABLE: dict[tuple[State, Trigger], Row] = {
    (S.BLANK, T.NAMED): Row(S.STANDBY, "became a voter: {reason}"),
    (S.STANDBY, T.UNNAMED): Row(S.BLANK, "is no voter any more: {reason}"),
    (S.ASKING, T.UNNAMED): Row(S.BLANK, "is no voter any more: {reason}"),
    (S.VOTING, T.UNNAMED): Row(S.BLANK, "is no voter any more: {reason}"),
    (S.STANDBY, T.RESUMES): Row(S.ELECTED, "resumes its own term {term} after a restart, without a lease yet"),
    (S.STANDBY, T.STANDS): Row(S.ASKING, "asks for pre-votes for term {term}: {reason}"),
    (S.ASKING, T.PREVOTES_WON): Row(S.VOTING, "stands for term {term}: a majority would vote for it"),
    (S.ASKING, T.ROUND_LOST): Row(S.STANDBY, "gave its candidacy up: {reason}"),
    (S.VOTING, T.ROUND_LOST): Row(S.STANDBY, "lost the election for term {term}: {reason}"),
    (S.ASKING, T.STEPS_BACK): Row(S.STANDBY, "stepped back: {reason}"),
    (S.ASKING, T.FOLLOWS): Row(S.STANDBY, "follows {reason}"),
    (S.VOTING, T.FOLLOWS): Row(S.STANDBY, "follows {reason}"),
    (S.VOTING, T.VOTES_WON): Row(S.ELECTED, "won term {term}, without a lease yet"),
    (S.ELECTED, T.LEASE_GAINED): Row(S.LEADER, "leads term {term}: {reason}"),
    (S.LEADER, T.REELECTED): Row(S.LEADER, "leads term {term} now: it had itself elected again, the lease ran on"),
    (S.LEADER, T.LEASE_LOST): Row(S.STANDBY, "lost its lease and closed the gate: {reason}"),
    (S.ELECTED, T.NEVER_LEASED): Row(S.STANDBY, "stepped down from term {term}: {reason}"),
    (S.ELECTED, T.UNFIT): Row(S.STANDBY, "stepped down from term {term}: {reason}"),
    (S.ASKING, T.UNFIT): Row(S.STANDBY, "withdrew its candidacy: {reason}"),
    (S.VOTING, T.UNFIT): Row(S.STANDBY, "withdrew its candidacy: {reason}"),
    (S.ELECTED, T.HIGHER_TERM): Row(S.STANDBY, "stepped down: {reason}"),
    (S.LEADER, T.HIGHER_TERM): Row(S.STANDBY, "closed the gate and stepped down: {reason}"),
    (S.RELEASING, T.HIGHER_TERM): Row(S.STANDBY, "stepped down while it handed over: {reason}"),
    (S.LEADER, T.RELEASES): Row(S.RELEASING, "hands over: {reason}"),
    (S.ELECTED, T.RELEASES): Row(S.RELEASING, "gives term {term} back: {reason}"),
    (S.RELEASING, T.RELEASED): Row(S.STANDBY, "handed over: gate closed, address gone, promises released"),
    (S.RELEASING, T.RELEASE_LATE): Row(S.STANDBY, "let its lease run out: {reason}"),
    (S.BLANK, T.STOPS): Row(S.STOPPED, "stops: {reason}"),
    (S.STANDBY, T.STOPS): Row(S.STOPPED, "stops: {reason}"),
    (S.ASKING, T.STOPS): Row(S.STOPPED, "stops: {reason}"),
    (S.VOTING, T.STOPS): Row(S.STOPPED, "stops: {reason}"),
}


def follow(state: State, trigger: Trigger) -> Row:
    """The row of a transition; `InvariantError` if there is none."""
    row = TABLE.get((state, trigger))
    if row is None:
        raise InvariantError(f"no way from {state.value} by '{trigger.value}' in the transition table")
    return row
