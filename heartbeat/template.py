"""Heartbeats of one node on one path, which differ from each other in three numbers only.

Nearly all do: no nonce and no word of watchdog main changes for hours. So the sender writes the rest once and puts the
numbers in at full width, and the receiver compares the rest with what it has read before, byte by byte. That is
decoding too: equal bytes have equal meaning. A template says nothing about authenticity or freshness; what does not
fit it byte for byte is nothing wrong, and left to `Signer.read`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgvigil.ipc import codec

if TYPE_CHECKING:
    from pgvigil.heartbeat.packet import Heartbeat

ARRAY_OF_8, ARRAY_OF_9 = b"\x98", b"\x99"  # the fields of `Heartbeat`, and those of `Beat` (msgpack, fixarray)
UINT64 = b"\xcf"
NUMBER_BYTES = 8


class Template:
    """All of a heartbeat but `sequence`, `up_for_ms` and `content_age_ms`; `size` is without the signature."""

    def __init__(self, header: bytes, heartbeat: Heartbeat) -> None:
        one, beat = heartbeat, heartbeat.beat
        ids = codec.encode_each(one.sender, one.destination, one.path, one.boot, one.nonce, one.echo)
        words = codec.encode_each(beat.role, beat.term, beat.electable, beat.pgpool, beat.priority)
        self._head = header + ARRAY_OF_8 + ids + UINT64
        self._words = ARRAY_OF_9 + words + UINT64
        self._hears = codec.encode_each(beat.hears) + UINT64
        self._tail = codec.encode_each(beat.cannot_query)
        self._words_at = len(self._head) + NUMBER_BYTES
        self._hears_at = self._words_at + len(self._words) + NUMBER_BYTES
        self._tail_at = self._hears_at + len(self._hears) + NUMBER_BYTES
        self.size = self._tail_at + len(self._tail)

    def fill(self, sequence: int, up_for_ms: int, content_age_ms: int) -> bytes:
        """Header and body, to be signed."""
        return b"".join((
            self._head, sequence.to_bytes(8), self._words, up_for_ms.to_bytes(8), self._hears,
            content_age_ms.to_bytes(8), self._tail,
        ))  # fmt: skip

    def read(self, datagram: bytes, signature_bytes: int) -> tuple[int, int, int] | None:
        """The three numbers of a datagram whose signature is right, or None if anything else is different."""
        words_at, hears_at, tail_at, size = self._words_at, self._hears_at, self._tail_at, self.size
        if (
            len(datagram) != size + signature_bytes
            or not datagram.startswith(self._head)
            or not datagram.startswith(self._words, words_at)
            or not datagram.startswith(self._hears, hears_at)
            or not datagram.startswith(self._tail, tail_at)
        ):
            return None
        sequence = int.from_bytes(datagram[words_at - NUMBER_BYTES : words_at])
        up_for_ms = int.from_bytes(datagram[hears_at - NUMBER_BYTES : hears_at])
        content_age_ms = int.from_bytes(datagram[tail_at - NUMBER_BYTES : tail_at])
        if sequence > codec.MAX_INT or up_for_ms > codec.MAX_INT or content_age_ms > codec.MAX_INT:
            return None
        return sequence, up_for_ms, content_age_ms
