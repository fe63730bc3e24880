"""The heartbeat datagram, from values to bytes and back.

Heartbeats cross networks that others can write to, so nothing is decoded before its keyed hash was checked, and a
datagram of another key is told apart from a forged one: that is nearly always an operator's mistake, and
worth a sentence with both key ids. Freshness is not judged here (`heartbeat.session`). The module refuses to
raise anything but `PacketError` on bad bytes, and never shows the key.

    offset  0   4 bytes   magic
            4   1 byte    version of the format
            5   8 bytes   key id
           13   n bytes   body: msgpack of `Heartbeat` (`ipc.codec`), the numbers that change always in 8 bytes
         13+n  16 bytes   keyed BLAKE2b (RFC 7693) of everything before it
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pgvigil.heartbeat.template import Numbers, Template
from pgvigil.ipc import codec
from pgvigil.ipc.errors import InvariantError, PeerError
from pgvigil.ipc.frames import Beat
from pgvigil.ipc.hashing import blake2b, compare_digest

MAGIC = b"pgvH"
VERSION = 2
KEY_ID_BYTES = 8
MAC_BYTES = 16
HEADER_BYTES = len(MAGIC) + 1 + KEY_ID_BYTES
SHORTEST_BYTES = HEADER_BYTES + MAC_BYTES
WIDENING_BYTES = 6 * 8  # a template writes six numbers at full width: 9 bytes instead of 1
MAX_DATAGRAM_BYTES = 1200  # below the smallest IPv6 MTU (RFC 8200, section 5): never fragmented


class Rejection(enum.Enum):
    """Why a datagram was not taken; one counter and one log line a minute for each."""

    OVERSIZE = "larger than a heartbeat can be"
    FOREIGN = "not a heartbeat of pgvigil"
    VERSION = "of another version of pgvigil"
    OTHER_KEY = "signed with another key"
    FORGED = "wrongly signed"
    MALFORMED = "signed, but not readable"
    MISDIRECTED = "meant for another node or path"
    STRANGER = "from a node that is not configured as a peer on this path"
    REPEATED = "seen before, or older than one seen before"
    UNPROVEN = "without proof that they are new"


class PacketError(PeerError):
    """A datagram that is no valid heartbeat, with the class of the reason."""

    def __init__(self, rejection: Rejection, message: str) -> None:
        super().__init__(message)
        self.rejection = rejection


class OtherKeyError(PacketError):
    """A heartbeat that is signed with another key; `theirs` is its key id in hexadecimal digits."""

    def __init__(self, theirs: str) -> None:
        super().__init__(Rejection.OTHER_KEY, f"signed with the key of id {theirs}")
        self.theirs = theirs


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one node tells another on one path.

    `boot` names the sender's start of its kernel: sequences of different boots cannot be compared. `nonce` is what
    the destination shall echo, `echo` the destination's nonce as last learned (0: none yet), `sequence` the
    sender's CLOCK_BOOTTIME in ns at sending. `counter` rises by one with every heartbeat of one life of the sender.
    `echoed` is the sequence of a heartbeat of the destination that arrived `held_ns` before (0: none this time).
    """

    sender: int
    destination: int
    path: int
    boot: int
    nonce: int
    echo: int
    sequence: int
    counter: int
    echoed: int
    held_ns: int
    beat: Beat

    @property
    def numbers(self) -> Numbers:
        """What changes with every heartbeat."""
        beat = self.beat
        return self.sequence, self.counter, self.echoed, self.held_ns, beat.up_for_ms, beat.content_age_ms


class Signer:
    """Writes and checks datagrams under one key of 16 to 64 bytes."""

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= blake2b.MAX_KEY_SIZE:
            raise InvariantError(f"a heartbeat key of {len(key)} bytes, expected 16 to {blake2b.MAX_KEY_SIZE}")
        key_id = blake2b(key, digest_size=KEY_ID_BYTES, person=b"pgvigil hb keyid").digest()
        self.key_id = key_id.hex()
        self._header = MAGIC + bytes([VERSION]) + key_id
        self._keyed = blake2b(key=key, digest_size=MAC_BYTES, person=b"pgvigil hb mac")

    def encode(self, heartbeat: Heartbeat) -> bytes:
        """The signed datagram; `InvariantError` if it does not fit into `MAX_DATAGRAM_BYTES`."""
        return self.sign(self.template(heartbeat).fill(*heartbeat.numbers))

    def template(self, heartbeat: Heartbeat) -> Template:
        """For all heartbeats that differ from this one in their numbers only; `InvariantError` if they are too long."""
        template = Template(self._header, heartbeat)
        size = template.size + MAC_BYTES
        if size > MAX_DATAGRAM_BYTES:
            raise InvariantError(f"a heartbeat of {size} bytes, expected at most {MAX_DATAGRAM_BYTES}")
        return template

    def sign(self, filled: bytes) -> bytes:
        """The datagram of a filled template."""
        return filled + self._mac(filled)

    def decode(self, datagram: bytes) -> Heartbeat:
        """An authentic heartbeat, or `PacketError` (`OtherKeyError` if only the key differs)."""
        self.check(datagram)
        return self.read(datagram)

    def check(self, datagram: bytes) -> None:
        """`PacketError` if the datagram is not authentic; to be called before anything of it is read."""
        if not (datagram.startswith(self._header) and SHORTEST_BYTES <= len(datagram) <= MAX_DATAGRAM_BYTES):
            raise self._header_error(datagram)
        if not compare_digest(self._mac(datagram[:-MAC_BYTES]), datagram[-MAC_BYTES:]):
            raise PacketError(Rejection.FORGED, "the signature does not fit the content; expected ours")

    def read(self, datagram: bytes) -> Heartbeat:
        """The content of a datagram that has passed `check`, or `PacketError`."""
        try:
            heartbeat = codec.decode(Heartbeat, datagram[HEADER_BYTES:-MAC_BYTES], MAX_DATAGRAM_BYTES)
        except PeerError as error:
            raise PacketError(Rejection.MALFORMED, str(error)) from None
        if len(datagram) > MAX_DATAGRAM_BYTES - WIDENING_BYTES:
            self._check_width(heartbeat)
        return heartbeat

    def _check_width(self, heartbeat: Heartbeat) -> None:
        """What is too long when it is written as we write it has no template and was not sent by us."""
        size = Template(self._header, heartbeat).size + MAC_BYTES
        if size > MAX_DATAGRAM_BYTES:
            raise PacketError(Rejection.MALFORMED, f"{size} bytes in full width, expected at most {MAX_DATAGRAM_BYTES}")

    def _header_error(self, datagram: bytes) -> PacketError:
        size = len(datagram)
        if size > MAX_DATAGRAM_BYTES:
            return PacketError(Rejection.OVERSIZE, f"more than {MAX_DATAGRAM_BYTES} bytes")
        if size < SHORTEST_BYTES or not datagram.startswith(MAGIC):
            return PacketError(Rejection.FOREIGN, f"{size} bytes that start with {datagram[:4].hex() or 'nothing'}")
        version = datagram[len(MAGIC)]
        if version != VERSION:
            return PacketError(Rejection.VERSION, f"format version {version}, expected {VERSION}")
        return OtherKeyError(datagram[len(MAGIC) + 1 : HEADER_BYTES].hex())

    def _mac(self, signed: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(signed)
        return keyed.digest()
