from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.watchdog.core.messages import Ack, Refused, Release, Renew, RoundId
from pgvigil.watchdog.core.record import Document, Stamp, Voter
from pgvigil.watchdog.transport import envelope

DOCUMENT = Document(Stamp(7, 1), 1, (Voter(1, 11), Voter(2, 22)), 1000, False, ())
RENEW = Renew(7, 3, 41, 1000, Stamp(7, 1), DOCUMENT)
SEALED = envelope.seal(RENEW, 1, 2, 3, 99, 11)


def test_round_trip() -> None:
    opened = envelope.read(SEALED, 1, 2)
    assert (opened.sender, opened.destination, opened.boot, opened.counter, opened.record_id) == (1, 2, 3, 99, 11)
    assert envelope.message_of(opened) == RENEW


def test_sender_and_destination_must_be_the_known_ones() -> None:
    with pytest.raises(PeerError, match="in the name of node 1, expected 3"):
        envelope.read(SEALED, 3, 2)
    with pytest.raises(PeerError, match="message for node 2, expected 3"):
        envelope.read(SEALED, 1, 3)


@pytest.mark.parametrize(
    ("change", "reason"), [({"schema": 2}, "schema 2, expected 1"), ({"kind": 99}, "kind 99, expected one of 1 to")]
)
def test_unknown_schema_and_kind_are_refused(change: dict[str, int], reason: str) -> None:
    opened = codec.decode(envelope.Envelope, SEALED)
    with pytest.raises(PeerError, match=reason):
        envelope.read(codec.encode(replace(opened, **change)), 1, 2)  # type: ignore[arg-type]


def test_content_of_another_kind_is_refused() -> None:
    opened = replace(envelope.read(SEALED, 1, 2), kind=2)
    with pytest.raises(PeerError, match="Ack"):
        envelope.message_of(opened)


def test_too_long_a_message_is_an_error_of_ours() -> None:
    with pytest.raises(InvariantError, match="at most"):
        envelope.seal(Refused(RoundId(1, 1), 1, True, 1, "x" * 62_000, None), 1, 2, 1, 1, 1)


@given(st.one_of(st.binary(max_size=400), st.integers(0, len(SEALED)).map(lambda end: SEALED[:end] + b"\xc1")))
def test_garbage_raises_nothing_but_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        envelope.message_of(envelope.read(data, 1, 2))


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_changed_bytes_raise_nothing_but_peer_error(position: int, change: int) -> None:
    data = bytearray(SEALED)
    data[position] ^= change
    try:
        envelope.message_of(envelope.read(bytes(data), 1, 2))
    except PeerError:
        pass


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_all_numbers_travel(term: int, counter: int) -> None:
    for message in (Ack(term, 1, counter, Stamp(term, counter)), Release(term, 1, counter, 0)):
        opened = envelope.read(envelope.seal(message, 1, 2, 1, counter, 5), 1, 2)
        assert envelope.message_of(opened) == message
