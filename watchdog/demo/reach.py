"""Clients whose neighbour tables disagree: does more than one node answer packets to the VIP?

ARP alone does not show all of it: a client that still knows the old leader's hardware address goes on sending there.
So this sampler, in the observer's namespace, pings the VIP at every node's hardware address in turn and writes down
who answers. The observer has an address of its own for the answers to come back to.

    python -m pgvigil.watchdog.demo.reach VIP OWN_ADDRESS INTERVAL_MS FILE MAC...
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from array import array
from pathlib import Path

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.watchdog.demo.probe import FLUSH_NS, open_output
from pgvigil.watchdog.demo.realtime import measure_in_real_time

ETH_P_IP = 0x0800
ICMP = 1
ECHO_REPLY, ECHO_REQUEST = 0, 8
IDENTIFIER = 0x7067
REMEMBERED = 1000
_ETH = struct.Struct("!6s6sH")
_IP = struct.Struct("!BBHHHBBH4s4s")
_ECHO = struct.Struct("!BBHHH")


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(source: bytes, target: bytes, number: int) -> bytes:
    """An IPv4 packet with an ICMP echo request (RFC 791, RFC 792)."""
    length = _IP.size + _ECHO.size
    head = _IP.pack(0x45, 0, length, 0, 0, 64, ICMP, 0, source, target)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    body = _ECHO.pack(ECHO_REQUEST, 0, 0, IDENTIFIER, number)
    return head + body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def reply_number(packet: bytes, source: bytes) -> int | None:
    """The number of the echo reply from an address; None for any other packet."""
    if len(packet) < _IP.size + _ECHO.size or packet[0] != 0x45 or packet[9] != ICMP or packet[12:16] != source:
        return None
    fields: tuple[int, ...] = _ECHO.unpack_from(packet, _IP.size)
    kind, _, _, identifier, number = fields
    return number if kind == ECHO_REPLY and identifier == IDENTIFIER else None


class ReachSampler:
    """Pings the VIP at each node and writes a record for every answer; `who` is the last byte of its MAC."""

    def __init__(self, vip: str, own: str, macs: list[str], output: int, interface: str = "eth0") -> None:
        self._vip, self._own = socket.inet_aton(vip), socket.inet_aton(own)
        self._macs = [bytes.fromhex(mac.replace(":", "")) for mac in macs]
        self._output = output
        self._asked: dict[int, int] = {}
        self._number = 0
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self._sock.bind((interface, ETH_P_IP))
        self._sock.setblocking(False)
        self._mac: bytes = self._sock.getsockname()[4]

    def run(self, interval_ns: int) -> None:
        next_ns = boottime_ns()
        done = array("q")
        flush_at_ns = 0
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            now_ns = boottime_ns()
            if now_ns >= next_ns:
                self._ask(now_ns)
                next_ns = max(next_ns + interval_ns, now_ns)
            if now_ns >= flush_at_ns and done:
                os.write(self._output, done.tobytes())
                del done[:]
                flush_at_ns = now_ns + FLUSH_NS
            poll.poll(max(0, next_ns - boottime_ns()) / NS_PER_MS)
            done.extend(self._read())

    def _ask(self, now_ns: int) -> None:
        """One question to every node, all with the same number: two answers to it are two nodes answering."""
        self._number = (self._number + 1) % 0x10000
        self._asked[self._number] = now_ns
        self._asked.pop((self._number - REMEMBERED) % 0x10000, None)
        packet = echo_request(self._own, self._vip, self._number)
        for mac in self._macs:
            try:
                self._sock.send(_ETH.pack(mac, self._mac, ETH_P_IP) + packet)
            except OSError:
                pass  # the interface is down: nobody answers then

    def _read(self) -> list[int]:
        numbers: list[int] = []
        while True:
            try:
                frame = self._sock.recv(256)
            except BlockingIOError:
                return numbers
            number = reply_number(frame[_ETH.size :], self._vip)
            if number is not None and number in self._asked:
                numbers += (self._asked[number], boottime_ns(), frame[11])


def main(arguments: list[str]) -> None:
    vip, own, interval_ms, path, *macs = arguments
    measure_in_real_time()
    ReachSampler(vip, own, macs, open_output(Path(path))).run(int(float(interval_ms) * NS_PER_MS))


if __name__ == "__main__":
    main(sys.argv[1:])
