"""Reading what the kernel and pgvigil say: netlink, echo replies, smaps, status documents."""

from __future__ import annotations

import os
import socket
import struct

from pgvigil.watchdog.demo.bench import read_counters
from pgvigil.watchdog.demo.cluster import NodeView, is_settled, view_of
from pgvigil.watchdog.demo.memory import Memory, alone_mb, read_memory
from pgvigil.watchdog.demo.observe import RTM_NEWADDR, addresses_in, messages
from pgvigil.watchdog.demo.reach import checksum, echo_request, reply_number

A, B = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")


def address_message(address: bytes) -> bytes:
    attributes = struct.pack("=HH", 8, 1) + B + struct.pack("=HH", 8, 2) + address
    body = struct.pack("=BBBBi", socket.AF_INET, 24, 0, 0, 2) + attributes
    return struct.pack("=IHHII", 16 + len(body), RTM_NEWADDR, 0, 1, 0) + body


def test_every_address_of_a_datagram_is_found() -> None:
    data = address_message(A) + struct.pack("=IHHII", 16, 3, 0, 1, 0) + address_message(B)
    assert addresses_in(data) == [(RTM_NEWADDR, A), (RTM_NEWADDR, B)]


def test_broken_netlink_ends_the_reading() -> None:
    assert messages(struct.pack("=IHHII", 4, RTM_NEWADDR, 0, 1, 0)) == []
    assert messages(b"short") == []


def test_an_echo_request_has_valid_checksums() -> None:
    packet = echo_request(A, B, 4711)
    assert checksum(packet[:20]) == 0
    assert checksum(packet[20:]) == 0
    assert reply_number(packet, A) is None  # a request is no reply


def test_an_echo_reply_gives_its_number() -> None:
    packet = bytearray(echo_request(A, B, 4711))
    packet[20] = 0
    assert reply_number(bytes(packet), A) == 4711
    assert reply_number(bytes(packet), B) is None
    assert reply_number(b"short", A) is None


def test_files_shared_by_a_family_count_once() -> None:
    piece = ("/usr/bin/python", "0")
    family = [Memory(9, 1, {piece: 5}), Memory(9, 2, {piece: 6, ("/lib/x", "0"): 1})]
    assert alone_mb(family) == 1 + 2 + 6 + 1


def test_memory_and_counters_of_this_process_are_plausible() -> None:
    memory = read_memory(os.getpid())
    assert 1 < memory.pss_mb < 2000
    assert memory.anonymous_mb > 1 and memory.files_mb
    assert read_counters(os.getpid()).cpu_ns > 0


def test_a_process_that_is_gone_reads_as_nothing() -> None:
    assert read_memory(2**22 + 1).pss_mb == 0
    assert read_counters(2**22 + 1).cpu_ns == 0


def status(state: str, leader: int, gate: str, health: str = "alive") -> dict[str, object]:
    nodes = [{"id": number, "health": health, "electable": True} for number in (1, 2)]
    vip = {"gate": gate, "addresses": [{"address": "10.0.0.9/24", "present": gate == "open"}]}
    return {"state": state, "term": 3, "leader_id": leader, "nodes": nodes, "vip": vip}


def test_a_cluster_is_settled_when_all_agree_and_the_leader_has_the_vip() -> None:
    leader, standby = view_of(status("leader", 1, "open")), view_of(status("standby", 1, "closed"))
    assert is_settled([leader, standby])
    assert not is_settled([standby, standby])
    assert not is_settled([leader, leader])
    assert not is_settled([leader, NodeView()])
    assert not is_settled([view_of(status("leader", 1, "closed")), standby])
    assert not is_settled([leader, view_of(status("standby", 2, "closed"))])
    assert not is_settled([leader, view_of(status("standby", 1, "closed", health="dead"))])
