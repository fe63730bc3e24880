"""A session and a fake pgpool-II talking to each other without a socket."""

from __future__ import annotations

from typing import Any

from tests.unit.pcp.fake import PASSWORD, USER, Answer

from pgvigil.watchdog.pcp.protocol import Request
from pgvigil.watchdog.pcp.session import Answered, Broken, Event, LoggedIn, Noticed, Refused, Session


def frames(data: bytes) -> list[tuple[str, bytes]]:
    """Letter and body of each frame of a client; the rest must be nothing."""
    found = []
    while data:
        end = int.from_bytes(data[1:5], "big") + 1
        assert end <= len(data)
        found.append((chr(data[0]), data[5:end]))
        data = data[end:]
    return found


def exchange(session: Session, answer: Answer, piece: int = 65536) -> list[Event]:
    """Carry frames to and fro, the answers in pieces, until the session has nothing more to send."""
    events: list[Event] = []
    while out := session.outgoing():
        for letter, body in frames(out):
            said = answer(letter, body)
            if said is None:
                events += session.end()
                continue
            for start in range(0, len(said), piece):
                events += session.feed(said[start : start + piece])
    return events


def logged_in(answer: Answer) -> Session:
    session = Session(USER, PASSWORD)
    assert exchange(session, answer) == [LoggedIn()]
    return session


def asked(request: Request[Any], said: bytes) -> list[Event]:
    """What a logged-in session makes of these bytes as the answer to a request."""
    from tests.unit.pcp.fake import Fake

    session = logged_in(Fake().answer)
    session.ask(request)
    session.outgoing()
    return session.feed(said)


def value_of(events: list[Event]) -> Any:
    """The value of the only event, an answer."""
    (event,) = events
    assert isinstance(event, Answered), event
    return event.value


def broken(events: list[Event]) -> str:
    """The text of the last event, a broken format."""
    event = events[-1]
    assert isinstance(event, Broken), event
    return str(event.error)


__all__ = ["Answered", "Broken", "LoggedIn", "Noticed", "Refused"]
