"""The bodies on the wire: what was said is read again, and what cannot be meant is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc import codec
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.asides import MAX_BODY_BYTES
from pgvigil.watchdog.drift import messages
from pgvigil.watchdog.drift.compare import Difference
from pgvigil.watchdog.drift.facts import MAX_TEXT_BYTES, digest
from pgvigil.watchdog.drift.messages import MAX_TOLD, Ask, Fact, Said, State, Values

ALL, FATAL = bytes(range(16)), bytes(16)
STATE = State(1, ALL, FATAL, b"", 1, 1, (Difference("vip.driver", "netlink", "command"),))


@pytest.mark.parametrize(
    "said", [STATE, State(1, ALL, FATAL, ALL, 0, 0, ()), Ask(ALL), Values(ALL, 0, 1, (Fact("a", "b"),))]
)
def test_what_was_said_is_read_again(said: Said) -> None:
    assert messages.decode(messages.encode(said)) == said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "a message of 0 bytes of an unknown kind"),
        (b"\x09abc", "a message of 4 bytes of an unknown kind, expected one of 1 to 3"),
        (b"\x02\xc1", "not a valid msgpack frame"),
        (messages.encode(Ask(b"short")), "a digest of 5 bytes, expected 16"),
        (messages.encode(State(1, ALL, FATAL, b"x", 0, 0, ())), "a digest of 1 bytes, expected 16"),
        (messages.encode(State(1, ALL, FATAL, b"", 1, 0, STATE.told)), "1 difference told of 0"),
        (messages.encode(State(1, ALL, FATAL, b"", 1, 99, STATE.told * 65)), "65 differences, expected at most 64"),
        (messages.encode(Values(ALL, 1, 1, ())), "part 1 of 1, expected less than all"),
        (messages.encode(Values(ALL, 0, 65, ())), "part 0 of 65, expected less than all of at most 64"),
        (messages.encode(Values(ALL, 0, 1, (Fact("k" * 81, ""),))), "a setting longer than 80 and 256 bytes"),
        (messages.encode(Values(ALL, 0, 1, (Fact("k", "v" * 257),))), "a setting longer than 80 and 256 bytes: 'k'"),
        (messages.encode(Values(ALL, 0, 1, (Fact("k", "\x1b[2J"),))), "a setting with letters that cannot be shown"),
    ],
)
def test_what_cannot_be_meant_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words.replace("[", r"\[")):
        messages.decode(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        said = messages.decode(body)
    except PeerError:
        return
    assert messages.decode(messages.encode(said)) == said


@given(st.integers(1, 2500), st.integers(1, MAX_TEXT_BYTES // 4))
def test_all_settings_fit_into_their_parts(count: int, length: int) -> None:
    facts = {f"node.{number:04}.paths": "\N{GRINNING FACE}" * length for number in range(count)}
    made = messages.parts(digest(facts), facts)
    assert [(one.part, one.parts) for one in made] == [(number, len(made)) for number in range(len(made))]
    bodies = [messages.encode(one) for one in made]
    assert max(map(len, bodies)) <= MAX_BODY_BYTES
    again = [messages.decode(body) for body in bodies]
    assert {fact.key: fact.text for one in again if isinstance(one, Values) for fact in one.facts} == facts


def test_no_settings_are_one_part() -> None:
    assert messages.parts(digest({}), {}) == (Values(digest({}), 0, 1, ()),)


@given(st.integers(0, 200), st.integers(1, MAX_TEXT_BYTES // 4))
def test_as_many_differences_are_told_as_fit(count: int, length: int) -> None:
    text = "\N{GRINNING FACE}" * length
    found = [Difference(f"key{number}", text, text) for number in range(count)]
    told = messages.told(found)
    assert told == tuple(found[: len(told)]) and len(told) <= MAX_TOLD
    assert len(told) == min(count, MAX_TOLD) or length > 30
    assert len(messages.encode(State(1, ALL, FATAL, ALL, 1, count, told))) <= MAX_BODY_BYTES


def test_the_codec_bounds_a_body_too() -> None:
    with pytest.raises(PeerError, match="expected at most"):
        messages.decode(b"\x02" + bytes(codec.MAX_FRAME_BYTES + 1))
