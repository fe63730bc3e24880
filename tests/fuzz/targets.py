"""What a fuzzer may throw bytes at: every decoder of pgvigil that reads what others have written.

A target takes any bytes. They must come to a value that survives being written and read again, or to the error that
the decoder promises; everything else leaves the target as the exception that it is. Where a signature or a checksum
stands before the content, a target also puts the bytes behind a right one, or no fuzzer would ever get past it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.fuzz import pcp, samples
from tests.unit.config.helpers import MACHINE

from pgvigil.heartbeat import packet
from pgvigil.heartbeat.packet import Heartbeat, PacketError, Signer
from pgvigil.ipc import codec, frames
from pgvigil.ipc.errors import CommandError, PeerError
from pgvigil.ipc.hashing import blake2b
from pgvigil.watchdog import store
from pgvigil.watchdog.config.load import examine
from pgvigil.watchdog.config.write import normal_tables, to_toml
from pgvigil.watchdog.core import messages
from pgvigil.watchdog.core.messages import Message
from pgvigil.watchdog.core.record import RECORD_FORMAT
from pgvigil.watchdog.transport import envelope

T = TypeVar("T")

KEY = bytes(range(32))
SIGNER = Signer(KEY)
SENDER, DESTINATION = 1, 2


class NotTheSameError(Exception):
    """A value was read, and writing and reading it again gave another one."""


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder. `take` returns how many values the bytes came to; 0 means that they were refused."""

    name: str
    take: Callable[[bytes], int]
    samples: Callable[[], list[bytes]]
    max_bytes: int
    peak_bytes: int
    """What reading anything of at most `max_bytes` may need at most, bytes of the input not counted."""


def _accepts(read: Callable[[bytes], T], write: Callable[[T], bytes], data: bytes, error: type[Exception]) -> int:
    """1 for a value that survives, 0 for the promised error."""
    try:
        value = read(data)
    except error:
        return 0
    again = read(write(value))
    if again != value:
        raise NotTheSameError(f"{value!r} became {again!r}")
    return 1


# --- heartbeat packet -----------------------------------------------------------------------------------------


def signed(body: bytes) -> bytes:
    """The bytes as the content of a datagram with a right signature, made here and not by the code under test."""
    header = packet.MAGIC + bytes([packet.VERSION]) + bytes.fromhex(SIGNER.key_id)
    mac = blake2b(header + body, key=KEY, digest_size=packet.MAC_BYTES, person=b"pgvigil hb mac").digest()
    return header + body + mac


def heartbeat(data: bytes) -> int:
    """As a datagram, and as what stands behind a right signature."""
    return sum(_accepts(SIGNER.decode, SIGNER.encode, found, PacketError) for found in (data, signed(data)))


def _heartbeat_samples() -> list[bytes]:
    values = samples.samples_of(Heartbeat)
    return [*(SIGNER.encode(value) for value in values), *(codec.encode(value) for value in values)]


# --- frame inside a node --------------------------------------------------------------------------------------


def frame(data: bytes) -> int:
    """As a whole frame, and as the content of one whose kind is the first byte."""
    kind, payload = _kind(data, frames.KINDS)
    wrapped = codec.encode(frames.Envelope(frames.SCHEMA, kind, "fuzz", 1, 1, payload))
    return sum(_accepts(frames.unpack, _pack_again, found, PeerError) for found in (data, wrapped))


def _pack_again(received: frames.Received) -> bytes:
    return frames.pack(received.frame, received.sender, received.sequence, received.sent_at_ns)


def _frame_samples() -> list[bytes]:
    made: list[bytes] = []
    for number, kind in frames.KINDS.items():
        for value in samples.samples_of(kind):
            made += [frames.pack(value, "lifecheck", 1, 2), bytes([number]) + codec.encode(value)]
    return made


# --- message between nodes ------------------------------------------------------------------------------------


def message(data: bytes) -> int:
    """As a whole message, and as the content of one whose kind is the first byte."""
    kind, payload = _kind(data, messages.KINDS)
    sealed = envelope.Envelope(envelope.SCHEMA, kind, SENDER, DESTINATION, 1, 1, 1, payload)
    return sum(_accepts(_open, _seal, found, PeerError) for found in (data, codec.encode(sealed)))


def _open(data: bytes) -> tuple[envelope.Envelope, Message]:
    """The envelope without its content, whose bytes may be written in several ways, and the content."""
    opened = envelope.read(data, SENDER, DESTINATION)
    return envelope.Envelope(*_head(opened), b""), envelope.message_of(opened)


def _seal(value: tuple[envelope.Envelope, Message]) -> bytes:
    opened, content = value
    return envelope.seal(content, SENDER, DESTINATION, opened.boot, opened.counter, opened.record_id)


def _head(opened: envelope.Envelope) -> tuple[int, int, int, int, int, int, int]:
    return (
        opened.schema, opened.kind, opened.sender, opened.destination, opened.boot, opened.counter, opened.record_id
    )  # fmt: skip


def _message_samples() -> list[bytes]:
    made: list[bytes] = []
    for number, kind in messages.KINDS.items():
        for value in samples.samples_of(kind):
            sealed = envelope.seal(value, SENDER, DESTINATION, 3, 4, 5)
            made += [sealed, bytes([number]) + codec.encode(value)]
    return made


# --- store record ---------------------------------------------------------------------------------------------


def summed(content: bytes) -> bytes:
    """The bytes as the content of a record file with a right checksum, made here and not by the code under test."""
    header = struct.pack(">II", RECORD_FORMAT, len(content))
    return store.MAGIC + header + blake2b(store.MAGIC + header + content, digest_size=32).digest() + content


def record(data: bytes) -> int:
    """As a record file, and as what stands behind a right checksum."""
    return sum(_accepts(store.unpack, store.pack, found, PeerError) for found in (data, summed(data)))


def _record_samples() -> list[bytes]:
    values = samples.records()
    return [*(store.pack(value) for value in values), *(codec.encode(value) for value in values)]


# --- configuration --------------------------------------------------------------------------------------------


def config(data: bytes) -> int:
    """As a file, for node 1 of a machine that is made up; its normal form must mean the same."""
    result = examine("fuzz.toml", 1, MACHINE, environment={}, data=data)
    if (result.settings is None) != bool(result.mistakes):
        raise NotTheSameError(f"settings {result.settings is not None}, mistakes {result.mistakes}")
    for problem in (*result.mistakes, *result.warnings):
        if "\n" in str(problem) or not problem.wrong or not problem.expected:
            raise NotTheSameError(f"not one line with found and expected: {problem!r}")
    if result.settings is None or result.draft is None:
        return 0
    try:
        text = to_toml(normal_tables(result.draft))
    except CommandError:
        return 1  # the library cannot write some texts; then nothing is printed
    again = examine("fuzz.toml", 1, MACHINE, environment={}, data=text.encode())
    if again.settings != result.settings:
        raise NotTheSameError(f"{result.settings!r} became {again.settings!r} {again.mistakes}")
    return 1


def _kind(data: bytes, kinds: dict[int, type[T]]) -> tuple[int, bytes]:
    """A number of a kind from the first byte, unknown ones among them, and the rest."""
    return (data[0] % (max(kinds) + 2) if data else 0), data[1 : codec.MAX_BIN_BYTES]


MIB = 1024 * 1024
TARGETS = {
    target.name: target
    for target in (
        Target("heartbeat", heartbeat, _heartbeat_samples, packet.MAX_DATAGRAM_BYTES + 1, 4 * MIB),
        Target("frame", frame, _frame_samples, codec.MAX_FRAME_BYTES + 1, 16 * MIB),
        Target("message", message, _message_samples, codec.MAX_FRAME_BYTES + 1, 16 * MIB),
        Target("record", record, _record_samples, codec.MAX_FRAME_BYTES + 100, 16 * MIB),
        Target("pcp", pcp.take, pcp.samples, pcp.MAX_BYTES, 16 * MIB),
        Target("config", config, samples.configurations, 16 * 1024, 16 * MIB),
    )
}
