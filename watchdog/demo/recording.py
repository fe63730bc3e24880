"""Records what a host of a lab receives, and says it again, later or from elsewhere, as somebody on the wire could.

    python -m pgvigil.watchdog.demo.recording listen INTERFACE FILE
    python -m pgvigil.watchdog.demo.recording datagrams FILE ADDRESS PORT REPORT
    python -m pgvigil.watchdog.demo.recording streams FILE ADDRESS PORT REPORT

Packets are kept as they came (IPv4), each behind its length. A replayed datagram is the same bytes; a replayed stream
is what one side of a recorded TCP connection said, in a new connection. It understands nothing of what it repeats.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pgvigil.watchdog.demo.probe import open_output
from pgvigil.watchdog.demo.realtime import measure_in_real_time

ETH_P_IP = 0x0800
LARGEST_PACKET_BYTES = 65535
HANG_UP_LIMIT_S = 5.0
GREETING_BYTES = 10
GREETING_S = 0.2
_LENGTH = struct.Struct("=I")
_PORTS = struct.Struct("!HH")
_SEQUENCE = struct.Struct("!I")
SYN = 0x02


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram: who sent it, and what."""

    source: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment of one direction."""

    source: str
    source_port: int
    sequence: int
    opens: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to. `answered` are bytes that came back, `ended` the connections that the other side ended."""

    sent: int
    answered: int = 0
    ended: int = 0


# --- reading, pure --------------------------------------------------------------------------------------------


def read_packets(path: Path) -> list[bytes]:
    """All complete packets of a file that may still be written to."""
    return list(_split(path.read_bytes()))


def _split(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            return
        yield data[at : at + length]
        at += length


def _content(packet: bytes, protocol: int) -> tuple[str, bytes] | None:
    """Source address and content of an IPv4 packet of a protocol (RFC 791); fragments are passed over."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != protocol or int.from_bytes(packet[6:8]) & 0x3FFF:
        return None
    length = int.from_bytes(packet[2:4])
    return socket.inet_ntoa(packet[12:16]), packet[(packet[0] & 15) * 4 : length]


def datagrams_to(packets: Iterable[bytes], port: int) -> list[Datagram]:
    """The UDP datagrams to a port (RFC 768), in their order."""
    found = []
    for packet in packets:
        content = _content(packet, socket.IPPROTO_UDP)
        if content is not None and len(content[1]) >= 8 and _PORTS.unpack_from(content[1])[1] == port:
            found.append(Datagram(content[0], content[1][8 : int.from_bytes(content[1][4:6])]))
    return found


def segments_to(packets: Iterable[bytes], port: int) -> list[Segment]:
    """The TCP segments to a port (RFC 9293), in their order."""
    found = []
    for packet in packets:
        content = _content(packet, socket.IPPROTO_TCP)
        if content is None or len(content[1]) < 20:
            continue
        source, data = content
        own, to = _PORTS.unpack_from(data)
        if to == port:
            (sequence,) = _SEQUENCE.unpack_from(data, 4)
            found.append(Segment(source, own, sequence, bool(data[13] & SYN), data[(data[12] >> 4) * 4 :]))
    return found


def streams_to(packets: Iterable[bytes], port: int) -> dict[tuple[str, int], bytes]:
    """What was said in each connection to a port whose beginning was recorded, by the caller's address and port."""
    pieces: dict[tuple[str, int], dict[int, bytes]] = {}
    begun: dict[tuple[str, int], int] = {}
    for one in segments_to(packets, port):
        caller = (one.source, one.source_port)
        if one.opens:
            begun[caller], pieces[caller] = one.sequence + 1, {}
        elif caller in begun and one.body:
            pieces[caller][(one.sequence - begun[caller]) % 2**32] = one.body
    return {caller: stream for caller, found in pieces.items() if (stream := _joined(found))}


def _joined(pieces: dict[int, bytes]) -> bytes:
    """The bytes up to the first hole."""
    stream = b""
    for offset in sorted(pieces):
        if offset > len(stream):
            break
        stream = stream[:offset] + pieces[offset]
    return stream


# --- recording and replaying ----------------------------------------------------------------------------------


def listen(interface: str, output: int) -> None:
    """Write down what arrives at an interface, for ever (packet(7))."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    sock.bind((interface, ETH_P_IP))
    while True:
        packet = sock.recv(LARGEST_PACKET_BYTES)
        os.write(output, _LENGTH.pack(len(packet)) + packet)


def replay_datagrams(packets: Iterable[bytes], address: str, port: int) -> Replayed:
    """Send every recorded datagram again, from this host."""
    found = datagrams_to(packets, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for one in found:
            sock.sendto(one.body, (address, port))
    return Replayed(len(found))


def replay_streams(packets: Iterable[bytes], address: str, port: int) -> Replayed:
    """Say every recorded stream again, each in a connection of its own, and wait for what comes of it."""
    answered = ended = 0
    found = streams_to(packets, port).values()
    for stream in found:
        with socket.create_connection((address, port), HANG_UP_LIMIT_S) as sock:
            try:
                # As callers do: the greeting, then the rest. A caller that is gone at once cannot be named.
                sock.sendall(stream[:GREETING_BYTES])
                time.sleep(GREETING_S)
                sock.sendall(stream[GREETING_BYTES:])
                while data := sock.recv(65536):
                    answered += len(data)
                ended += 1
            except TimeoutError:
                pass  # it stays open: `ended` says so
            except ConnectionError:
                ended += 1
    return Replayed(len(found), answered, ended)


def read_report(path: Path) -> Replayed:
    """What a replay has written."""
    return Replayed(**json.loads(path.read_text(encoding="ascii")))


def main(arguments: list[str]) -> None:
    what, *rest = arguments
    if what == "listen":
        measure_in_real_time()
        listen(rest[0], open_output(Path(rest[1])))
        return
    recording, address, port, report = rest
    replay = replay_datagrams if what == "datagrams" else replay_streams
    done = replay(read_packets(Path(recording)), address, int(port))
    Path(report).write_text(json.dumps(asdict(done)), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
