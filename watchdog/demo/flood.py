"""Garbage at a steady rate, from one host of a lab to a port of another.

    python -m pgvigil.watchdog.demo.flood datagrams OWN_ADDRESS ADDRESS PORT RATE SECONDS REPORT [RECORDING]
    python -m pgvigil.watchdog.demo.flood segments|connections OWN_ADDRESS ADDRESS PORT RATE SECONDS REPORT

`datagrams` are UDP: noise, things that look like heartbeats, and damaged copies of recorded ones. `segments` are
single TCP segments that belong to no connection, with right checksums, so that the kernel looks at them.
`connections` are real ones that bring garbage or nothing. The report (JSON) says how many were sent: a machine may
manage fewer than it was told.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pgvigil.heartbeat.packet import HEADER_BYTES, MAGIC, MAX_DATAGRAM_BYTES, VERSION
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.watchdog.demo.reach import checksum
from pgvigil.watchdog.demo.recording import datagrams_to, read_packets

VARIETY = 512
"""Different pieces of garbage, sent round and round: to make each anew would cost more than to send it."""
PAUSE_S = 0.0005
MADE_UP_NS = 20 * NS_PER_MS
"""What was missed for so long is sent late; what was missed for longer is not sent: that would be a burst."""
HELD = 200
CONNECT_LIMIT_S = 0.2
SYN, RST, ACK, FIN, PUSH = 0x02, 0x04, 0x10, 0x01, 0x08
ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
_TCP = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Report:
    """What one flood was."""

    kind: str
    wanted_per_s: int
    sent: int
    failed: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.sent / self.seconds if self.seconds else 0.0


def paced(rate: int, seconds: float, send: Callable[[], bool]) -> tuple[int, int, float]:
    """Send at a steady rate; how many were sent, how many could not be, and for how long it went on."""
    start_ns = paced_from_ns = boottime_ns()
    end_ns = start_ns + int(seconds * NS_PER_S)
    sent = failed = done = 0
    while (now_ns := boottime_ns()) < end_ns:
        due = (now_ns - paced_from_ns) * rate // NS_PER_S
        most = max(1, rate * MADE_UP_NS // NS_PER_S)
        if due - done > most:
            paced_from_ns += (due - done - most) * NS_PER_S // rate
            due = done + most
        for _ in range(due - done):
            if send():
                sent += 1
            else:
                failed += 1
        done = max(done, due)
        time.sleep(PAUSE_S)
    return sent, failed, (boottime_ns() - start_ns) / NS_PER_S


# --- UDP ------------------------------------------------------------------------------------------------------


def garbage_datagrams(dice: random.Random, recorded: Sequence[bytes]) -> list[bytes]:
    """Noise of all sizes, near misses, and damaged or lengthened copies of real datagrams."""
    makers: list[Callable[[], bytes]] = [
        lambda: dice.randbytes(dice.randrange(200)),
        lambda: dice.randbytes(dice.choice((0, 1, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES + 1, 1400))),
        lambda: MAGIC + bytes([VERSION]) + dice.randbytes(dice.randrange(200)),
        lambda: MAGIC + dice.randbytes(60),
    ]
    if recorded:
        makers += [
            lambda: damaged(dice, dice.choice(recorded)),
            lambda: dice.choice(recorded)[:HEADER_BYTES] + dice.randbytes(dice.randrange(300)),
            lambda: dice.choice(recorded) + dice.randbytes(dice.randrange(1, 20)),
            lambda: dice.choice(recorded),
        ]
    return [dice.choice(makers)() for _ in range(VARIETY)]


def damaged(dice: random.Random, data: bytes) -> bytes:
    """A copy with another byte in one place."""
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ dice.randrange(1, 256)]) + data[place + 1 :]


def datagram_sender(address: str, port: int, pieces: Sequence[bytes]) -> Callable[[], bool]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((address, port))
    sock.setblocking(False)
    return _sender(pieces, sock.send)


# --- TCP ------------------------------------------------------------------------------------------------------


def garbage_segments(dice: random.Random, source: str, target: str, port: int) -> list[bytes]:
    """Segments with every mixture of flags, from many ports, a third of them with some bytes."""
    mixtures = (SYN, RST, ACK, FIN, SYN | ACK, SYN | FIN, PUSH | ACK, RST | ACK, 0, 0x3F, SYN | RST)
    made = []
    for _ in range(VARIETY):
        body = dice.randbytes(2 * dice.randrange(60)) if dice.random() < 0.33 else b""
        own_port = dice.randrange(1024, 65536)
        made.append(segment(source, target, (own_port, port), dice.getrandbits(32), dice.choice(mixtures), body))
    return made


def segment(source: str, target: str, ports: tuple[int, int], sequence: int, flags: int, body: bytes) -> bytes:
    """A TCP header without options before an even number of bytes, with its checksum (RFC 9293, section 3.1)."""
    length = _TCP.size + len(body)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, length)
    head = _TCP.pack(*ports, sequence, 0, (_TCP.size // 4) << 4, flags, 1024, 0, 0)
    return head[:16] + struct.pack("!H", checksum(pseudo + head + body)) + head[18:] + body


def segment_sender(address: str, pieces: Sequence[bytes]) -> Callable[[], bool]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sock.connect((address, 0))
    sock.setblocking(False)
    # Nobody reads what comes back, and a full buffer of it would only cost time.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return _sender(pieces, sock.send)


def connection_sender(own: str, address: str, port: int, dice: random.Random) -> Callable[[], bool]:
    """Connect, say something that is no greeting of ours or nothing, and stay until there are too many."""
    pieces = [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        ZMTP_GREETING,
        ZMTP_GREETING[:11],
        *(dice.randbytes(2000) for _ in range(8)),
    ]
    held: deque[socket.socket] = deque()

    def send() -> bool:
        if len(held) >= HELD:
            held.popleft().close()
        try:
            one = socket.create_connection((address, port), CONNECT_LIMIT_S, (own, 0))
        except OSError:
            return False
        held.append(one)
        try:
            one.send(dice.choice(pieces))
        except OSError:
            return False  # the node has hung up already
        return True

    return send


def _sender(pieces: Sequence[bytes], send: Callable[[bytes], int]) -> Callable[[], bool]:
    at = 0

    def send_next() -> bool:
        nonlocal at
        at = (at + 1) % len(pieces)
        try:
            send(pieces[at])
        except OSError:
            return False  # a full queue, or the answer that nobody listens there
        return True

    return send_next


def main(arguments: list[str]) -> None:
    kind, own, address, port, rate, seconds, report, *recording = arguments
    dice = random.Random(f"{kind} {os.getpid()}")
    recorded = [one.body for one in datagrams_to(read_packets(Path(recording[0])), int(port))] if recording else []
    if kind == "datagrams":
        send = datagram_sender(address, int(port), garbage_datagrams(dice, recorded))
    elif kind == "segments":
        send = segment_sender(address, garbage_segments(dice, own, address, int(port)))
    else:
        send = connection_sender(own, address, int(port), dice)
    sent, failed, took_s = paced(int(rate), float(seconds), send)
    text = json.dumps(asdict(Report(kind, int(rate), sent, failed, took_s)))
    Path(report).write_text(text, encoding="ascii")


def read_report(path: Path) -> Report:
    """What `main` has written."""
    return Report(**json.loads(path.read_text(encoding="ascii")))


if __name__ == "__main__":
    main(sys.argv[1:])
