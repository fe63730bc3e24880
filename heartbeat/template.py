"""Heartbeats of one node on one path, which differ from each other in six numbers only.

Nearly all do: no nonce and no word of watchdog main changes for hours. So the sender writes the rest once and puts the
numbers in at full width, and the receiver compares the rest with what it has read before, byte by byte. That is
decoding too: equal bytes have equal meaning. A template says nothing about authenticity or freshness; what does not
fit it byte for byte is nothing wrong, and left to `Signer.read`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pgvigil.ipc import codec

if TYPE_CHECKING:
    from pgvigil.heartbeat.packet import Heartbeat

# The fields of `Heartbeat`, and those of `Beat` (msgpack, fixarray); both stay below 16.
ARRAY_OF_11, ARRAY_OF_9 = b"\x9b", b"\x99"
MARK = 0xCF  # uint 64
UINT64 = bytes([MARK])
NUMBER_BYTES = 8
_FOUR = struct.Struct(">BQBQBQBQ")
"""The neighbours sequence, counter, echoed and held_ns, with their marks."""

Numbers = tuple[int, int, int, int, int, int]
"""sequence, counter, echoed, held_ns, up_for_ms, content_age_ms."""


class Template:
    """All of a heartbeat but its `Numbers`; `size` is without the signature."""

    def __init__(self, header: bytes, heartbeat: Heartbeat) -> None:
        one, beat = heartbeat, heartbeat.beat
        ids = codec.encode_each(one.sender, one.destination, one.path, one.boot, one.nonce, one.echo)
        words = codec.encode_each(beat.role, beat.term, beat.electable, beat.pgpool, beat.priority)
        self._head = header + ARRAY_OF_11 + ids
        self._words = ARRAY_OF_9 + words + UINT64
        self._hears = codec.encode_each(beat.hears) + UINT64
        self._tail = codec.encode_each(beat.cannot_query)
        self._four_at = len(self._head)
        self._words_at = self._four_at + _FOUR.size
        self._hears_at = self._words_at + len(self._words) + NUMBER_BYTES
        self._tail_at = self._hears_at + len(self._hears) + NUMBER_BYTES
        self.size = self._tail_at + len(self._tail)

    def fill(
        self, sequence: int, counter: int, echoed: int, held_ns: int, up_for_ms: int, content_age_ms: int
    ) -> bytes:
        """Header and body, to be signed."""
        four = _FOUR.pack(MARK, sequence, MARK, counter, MARK, echoed, MARK, held_ns)
        return b"".join((
            self._head, four, self._words, up_for_ms.to_bytes(8), self._hears, content_age_ms.to_bytes(8), self._tail,
        ))  # fmt: skip

    def read(self, datagram: bytes, signature_bytes: int) -> Numbers | None:
        """The numbers of a datagram whose signature is right, or None if anything else is different."""
        words_at, hears_at, tail_at = self._words_at, self._hears_at, self._tail_at
        if (
            len(datagram) != self.size + signature_bytes
            or not datagram.startswith(self._head)
            or not datagram.startswith(self._words, words_at)
            or not datagram.startswith(self._hears, hears_at)
            or not datagram.startswith(self._tail, tail_at)
        ):
            return None
        one, sequence, two, counter, three, echoed, four, held_ns = _FOUR.unpack_from(datagram, self._four_at)
        up_for_ms = int.from_bytes(datagram[hears_at - NUMBER_BYTES : hears_at])
        content_age_ms = int.from_bytes(datagram[tail_at - NUMBER_BYTES : tail_at])
        numbers = sequence, counter, echoed, held_ns, up_for_ms, content_age_ms
        if not one == two == three == four == MARK or max(numbers) > codec.MAX_INT:
            return None
        return numbers
