"""The tools of the floods and replays: what they send is what they say, and their verdict can be a bad one."""

from __future__ import annotations

import random
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pgvigil.heartbeat.packet import Heartbeat, PacketError, Signer
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.frames import Beat, Health, Role
from pgvigil.watchdog.demo import flood, recording
from pgvigil.watchdog.demo.hostile import SCENES, UNNOTICED_MS, Result, Seen, differences
from pgvigil.watchdog.demo.reach import checksum
from pgvigil.watchdog.demo.records import Outage, TwoAnswering
from pgvigil.watchdog.demo.scenes import Phase
from pgvigil.watchdog.demo.stage import Measured

SIGNER = Signer(bytes(range(32)))
BEAT = Beat(Role.LEADER, 7, True, Health.ALIVE, 1, 5000, (2, 3), 10)
DATAGRAM = SIGNER.encode(Heartbeat(2, 3, 0, 77, 11, 12, 13, 1, 0, 0, BEAT))


def ip_packet(protocol: int, content: bytes, source: str = "10.77.0.12", fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 1, fragment, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton("10.77.0.11") + content


def udp_packet(port: int, body: bytes) -> bytes:
    return ip_packet(socket.IPPROTO_UDP, struct.pack("!HHHH", 9694, port, 8 + len(body), 0) + body + b"\0\0")


def tcp_packet(own: int, sequence: int, body: bytes = b"", flags: int = flood.ACK) -> bytes:
    content = flood.segment("10.77.0.12", "10.77.0.11", (own, 9000), sequence, flags, b"")
    return ip_packet(socket.IPPROTO_TCP, content + body)


def test_recorded_packets_are_read_up_to_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "packets"
    packets = [b"one", b"", b"three" * 1000]
    data = b"".join(struct.pack("=I", len(packet)) + packet for packet in packets)
    for cut in (0, 1, 4000):
        path.write_bytes(data[: len(data) - cut])
        assert recording.read_packets(path) == (packets if cut == 0 else packets[:2])


def test_datagrams_are_found_by_their_port() -> None:
    packets = [udp_packet(9694, DATAGRAM), udp_packet(53, b"x"), tcp_packet(1, 1), b"", b"\x60" * 40]
    packets.append(ip_packet(socket.IPPROTO_UDP, udp_packet(9694, b"x")[20:], fragment=100))
    assert recording.datagrams_to(packets, 9694) == [recording.Datagram("10.77.0.12", DATAGRAM)]


def test_a_stream_is_put_together_from_its_beginning() -> None:
    packets = [
        tcp_packet(5, 2**32 - 3, flags=flood.SYN),
        tcp_packet(6, 99, b"began before the recording"),
        tcp_packet(5, 2, b"cde"),
        tcp_packet(5, 2**32 - 2, b"12ab"),
        tcp_packet(5, 2, b"cde"),
        tcp_packet(5, 100, b"after a hole"),
        tcp_packet(7, 1, flags=flood.SYN),
    ]
    assert recording.streams_to(packets, 9000) == {("10.77.0.12", 5): b"12abcde"}
    assert recording.streams_to(packets, 9001) == {}


def test_a_replayed_datagram_is_the_same_and_a_stream_waits_for_the_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        port = target.getsockname()[1]
        packet = udp_packet(port, DATAGRAM)
        assert recording.replay_datagrams([packet, packet], "127.0.0.1", port) == recording.Replayed(2)
        assert [target.recv(2000), target.recv(2000)] == [DATAGRAM, DATAGRAM]


def test_segments_have_right_checksums() -> None:
    source, target = "10.77.0.5", "10.77.0.11"
    pseudo = socket.inet_aton(source) + socket.inet_aton(target)
    for segment in flood.garbage_segments(random.Random(1), source, target, 9000):
        assert struct.unpack_from("!H", segment, 2) == (9000,)
        assert checksum(pseudo + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment)) + segment) == 0


def test_garbage_datagrams_are_no_heartbeats_but_for_whole_copies() -> None:
    pieces = flood.garbage_datagrams(random.Random(1), [DATAGRAM])
    assert len(pieces) == flood.VARIETY
    kinds = set()
    for piece in pieces:
        if piece != DATAGRAM:
            with pytest.raises(PacketError) as raised:
                SIGNER.decode(piece)
            kinds.add(raised.value.rejection.name)
    assert DATAGRAM in pieces
    assert {"FOREIGN", "FORGED", "OTHER_KEY", "OVERSIZE", "VERSION"} <= kinds
    assert DATAGRAM not in flood.garbage_datagrams(random.Random(1), [])


def test_the_rate_is_kept_and_failures_are_told_apart() -> None:
    times: list[int] = []

    def send() -> bool:
        times.append(boottime_ns())
        return len(times) % 4 != 0

    sent, failed, seconds = flood.paced(2000, 0.5, send)
    assert sent + failed == len(times) <= 2000 * seconds + 1
    assert failed == len(times) // 4
    assert times[-1] - times[0] <= 0.5e9


def test_a_late_sender_makes_no_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    burst = [0]

    def sleep(_: float) -> None:
        burst.append(0)
        now_ns[0] += 10**9

    def send() -> bool:
        burst[-1] += 1
        return True

    monkeypatch.setattr(flood, "boottime_ns", lambda: now_ns[0])
    monkeypatch.setattr(time, "sleep", sleep)
    sent, _, _ = flood.paced(1000, 10, send)
    assert max(burst) == 20
    assert sent == sum(burst)


# --- the verdict ----------------------------------------------------------------------------------------------------

NEVER = TwoAnswering(0.0, 0, ())
CALM = Measured(
    Outage(4.0, 0, 1000, (1,), 3.0), Outage(12.0, 0, 200, (0,), 11.0), NEVER, NEVER, NEVER, arp_answers=100
)  # fmt: skip
SEEN = Seen("n1", {"n1": 3, "n2": 3}, {"n1": (10, 11), "n2": (20, 21)})


def result(measured: Measured = CALM, broken: tuple[str, ...] = ()) -> Result:
    report = flood.Report("datagrams", 20_000, 100_000, 5, 5.0)
    return Result("heartbeat-port", (report,), Phase("heartbeat-port", UNNOTICED_MS, measured), broken, 1.0, 3)


def test_a_calm_flood_holds_and_says_its_rate() -> None:
    assert result().holds
    assert "datagrams 100000 at 20000/s of 20000/s" in str(result())


def test_an_outage_and_a_broken_promise_do_not_hold() -> None:
    late = replace(CALM, light=Outage(80.0, 20, 1000, (1,), 3.0))
    assert result(late).noticed and not result(late).holds
    assert "80 ms without an answer" in str(result(late))
    assert not result(replace(CALM, light=Outage(4.0, 2, 1000, (1,), 3.0))).holds
    assert not result(broken=("the VIP moved",)).holds


def test_a_prober_that_slept_has_seen_no_outage() -> None:
    assert result(replace(CALM, light=Outage(80.0, 0, 1000, (1,), 79.0))).holds


@pytest.mark.parametrize(
    "after",
    [
        replace(SEEN, leader="n2"),
        replace(SEEN, leader=""),
        replace(SEEN, terms={"n1": 3, "n2": 4}),
        replace(SEEN, pids={"n1": (10, 12), "n2": (20, 21)}),
        replace(SEEN, pids={"n1": (10, 11), "n2": (20,)}),
    ],
)
def test_every_difference_is_told(after: Seen) -> None:
    assert differences(SEEN, SEEN) == []
    assert len(differences(SEEN, after)) == 1


def test_a_share_is_of_the_wanted_rate_and_connections_have_their_own() -> None:
    rates = {stream.kind: stream.rate(20_000) for stream in SCENES["both-ports"]}
    assert rates == {"datagrams": 10_000, "segments": 10_000, "connections": 300}
