"""What surrounds a message between two nodes; pure.

Names sender, receiver and the sender's incarnation, so that the receiver can tell a message of the peer it
authenticated from any other, and a copy from the original. It knows nothing of sockets, keys or time, and
raises only `PeerError` on bad input.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.watchdog.core.messages import KINDS, NUMBERS, Message

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """`counter` counts what this sender has said since its start `boot`; `record_id` is its durable record's."""

    schema: int
    kind: int
    sender: int
    destination: int
    boot: int
    counter: int
    record_id: int
    payload: bytes


def seal(message: Message, sender: int, destination: int, boot: int, counter: int, record_id: int) -> bytes:
    """The bytes of one message; `InvariantError` if it is no message or too long to be read again."""
    kind = NUMBERS.get(type(message))
    if kind is None:
        raise InvariantError(f"{type(message).__name__} is no message between nodes")
    payload = codec.encode(message)
    if len(payload) > codec.MAX_BIN_BYTES:
        raise InvariantError(
            f"{type(message).__name__} is {len(payload)} bytes long, at most {codec.MAX_BIN_BYTES} may be sent"
        )
    return codec.encode(Envelope(SCHEMA, kind, sender, destination, boot, counter, record_id, payload))


def read(data: bytes, sender: int, destination: int) -> Envelope:
    """The envelope of what `sender` is known to have sent to `destination`; `PeerError` if it says otherwise."""
    envelope = codec.decode(Envelope, data)
    if envelope.schema != SCHEMA:
        raise PeerError(f"message of schema {envelope.schema}, expected {SCHEMA}: do both nodes run the same pgvigil?")
    if envelope.sender != sender:
        raise PeerError(f"message in the name of node {envelope.sender}, expected {sender}, whose key was used")
    if envelope.destination != destination:
        raise PeerError(f"message for node {envelope.destination}, expected {destination}")
    if envelope.kind not in KINDS:
        raise PeerError(f"message of kind {envelope.kind}, expected one of 1 to {max(KINDS)}")
    return envelope


def message_of(envelope: Envelope) -> Message:
    """The message inside, or `PeerError`."""
    return codec.decode(KINDS[envelope.kind], envelope.payload)
