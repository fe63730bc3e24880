"""Templates: the same bytes as the long way, and nothing but that."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.heartbeat.test_packet import HEARTBEATS, INT, KEY, PLAIN

from pgvigil.heartbeat.packet import MAC_BYTES, Heartbeat, PacketError, Signer
from pgvigil.heartbeat.template import Numbers

SIGNER = Signer(KEY)
TEMPLATE = SIGNER.template(PLAIN)
NUMBERS = st.tuples(INT, INT, INT, INT, INT, INT)


def with_numbers(heartbeat: Heartbeat, numbers: Numbers) -> Heartbeat:
    sequence, counter, echoed, held_ns, up_for_ms, age_ms = numbers
    beat = replace(heartbeat.beat, up_for_ms=up_for_ms, content_age_ms=age_ms)
    return replace(heartbeat, sequence=sequence, counter=counter, echoed=echoed, held_ns=held_ns, beat=beat)


@given(HEARTBEATS, NUMBERS)
def test_what_is_filled_in_is_what_the_long_way_reads(heartbeat: Heartbeat, numbers: Numbers) -> None:
    template = SIGNER.template(heartbeat)
    datagram = SIGNER.sign(template.fill(*numbers))
    assert SIGNER.decode(datagram) == with_numbers(heartbeat, numbers)
    assert SIGNER.encode(with_numbers(heartbeat, numbers)) == datagram
    assert template.read(datagram, MAC_BYTES) == numbers
    assert with_numbers(heartbeat, numbers).numbers == numbers
    assert len(datagram) == template.size + MAC_BYTES


@given(HEARTBEATS, HEARTBEATS)
def test_a_template_reads_only_what_says_the_same(known: Heartbeat, other: Heartbeat) -> None:
    read = SIGNER.template(known).read(SIGNER.encode(other), MAC_BYTES)
    assert read == (other.numbers if with_numbers(known, other.numbers) == other else None)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=3))
def test_whatever_a_template_reads_the_long_way_reads_too(changes: list[tuple[int, int]]) -> None:
    """Also what nobody of ours would sign."""
    filled = bytearray(TEMPLATE.fill(2**40, 7, 2**39, 8, 5, 6))
    for place, value in changes:
        filled[place % len(filled)] = value
    datagram = SIGNER.sign(bytes(filled))
    numbers = TEMPLATE.read(datagram, MAC_BYTES)
    try:
        long_way = SIGNER.decode(datagram)
    except PacketError:
        assert numbers is None
        return
    assert numbers is None or with_numbers(PLAIN, numbers) == long_way


def test_numbers_beyond_the_limit_and_other_lengths_are_left_to_the_long_way() -> None:
    for place in range(6):
        numbers = [1] * 6
        numbers[place] = 2**63 if place % 2 else 2**64 - 1
        assert TEMPLATE.read(SIGNER.sign(TEMPLATE.fill(*numbers)), MAC_BYTES) is None
    datagram = SIGNER.encode(PLAIN)
    for other in (b"", datagram[:-1], datagram + b"\0"):
        assert TEMPLATE.read(other, MAC_BYTES) is None
