"""Record and messages survive the codec, and every kind of message has a number of its own."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc import codec
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.core.messages import KINDS, NUMBERS, Message
from pgvigil.watchdog.core.record import (
    Backend,
    Cause,
    Decision,
    Document,
    Intent,
    QuorumRule,
    Record,
    Removed,
    Stamp,
    Voter,
    blank_record,
)

NUMBER = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
STAMP = st.builds(Stamp, NUMBER, NUMBER)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
INTENT = st.builds(Intent, TEXT, TEXT, TEXT, NUMBER, NUMBER, NUMBER, TEXT, TEXTS, TEXT)
VOTERS = st.lists(st.builds(Voter, NUMBER, NUMBER), max_size=7).map(tuple)
st.register_type_strategy(int, NUMBER)
st.register_type_strategy(str, TEXT)
DOCUMENT = st.builds(
    Document,
    STAMP,
    NUMBER,
    VOTERS,
    NUMBER,
    st.booleans(),
    st.lists(INTENT, max_size=3).map(tuple),
    st.lists(st.builds(Removed, NUMBER, NUMBER, st.sampled_from(Cause)), max_size=2).map(tuple),
    st.sampled_from(QuorumRule),
    TEXT,
    st.lists(st.from_type(Backend), max_size=3).map(tuple),
    NUMBER,
    st.lists(st.from_type(Decision), max_size=3).map(tuple),
)
st.register_type_strategy(Document, DOCUMENT)


@given(message=st.one_of([st.from_type(kind) for kind in KINDS.values()]))
def test_messages_survive_the_codec(message: Message) -> None:
    """Every kind, with and without a document."""
    assert codec.decode(type(message), codec.encode(message)) == message


@given(record=st.from_type(Record))
def test_records_survive_the_codec(record: Record) -> None:
    """What is written is what is read."""
    assert codec.decode(Record, codec.encode(record)) == record


def test_every_kind_of_message_has_a_number() -> None:
    """The union, the numbers and their inverse agree."""
    assert set(get_args(Message)) == set(KINDS.values())
    assert {number: kind for kind, number in NUMBERS.items()} == KINDS


def test_a_cut_record_is_refused() -> None:
    """Every prefix."""
    data = codec.encode(blank_record("c", 1, 2))
    for length in range(len(data)):
        with pytest.raises(PeerError):
            codec.decode(Record, data[:length])


def test_stamps_order_by_term_first() -> None:
    """P16."""
    assert Stamp(1, 9) < Stamp(2, 1) < Stamp(2, 2)
    assert blank_record("c", 1, 2).stamp < Stamp(0, 1)
