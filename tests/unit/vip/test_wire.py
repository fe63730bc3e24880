"""The codecs against pyroute2, which is the reference here and nowhere else."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import nft_rule_msg, nft_set_elem_list_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from pgvigil.ipc.netlink import HEADER, attributes, message, messages, text
from pgvigil.watchdog.vip import announce, gate, nft
from pgvigil.watchdog.vip.netlink import RTM_NEWADDR, Address, address_body, parse_address

ADDRESSES = [ipaddress.ip_address("10.0.0.100"), ipaddress.ip_address("fd00::100")]
MAC = bytes.fromhex("020000000001")


def named(decoded: object) -> dict[str, object]:
    """pyroute2's attributes as a dict."""
    return dict(decoded["attrs"])  # type: ignore[index]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_reads_the_same_in_pyroute2(address: Address) -> None:
    decoded = ifaddrmsg(message(RTM_NEWADDR, 0x5, 7, address_body(address, 24, 3, 5)))
    decoded.decode()
    found = named(decoded)
    assert (decoded["prefixlen"], decoded["index"]) == (24, 3)
    assert found["IFA_LOCAL"] == found["IFA_ADDRESS"] == str(address)
    lifetime = found["IFA_CACHEINFO"]
    assert isinstance(lifetime, dict)
    assert lifetime["ifa_valid"] == 5
    assert lifetime["ifa_preferred"] == (5 if address.version == 4 else 0)
    assert found["IFA_FLAGS"] == (0 if address.version == 4 else 2)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_of_pyroute2_is_read(address: Address) -> None:
    made = ifaddrmsg()
    made["family"] = 2 if address.version == 4 else 10
    made["prefixlen"], made["index"] = 24, 3
    made["attrs"] = [["IFA_ADDRESS", str(address)], ["IFA_LOCAL", str(address)], ["IFA_FLAGS", 0x80]]
    made.encode()
    found = parse_address(bytes(made.data)[HEADER.size :])
    assert found is not None
    assert (found.address, found.prefix_length, found.index, found.flags) == (address, 24, 3, 0x80)


def test_every_rule_reads_the_same_in_pyroute2() -> None:
    for table in (gate.INET, gate.ARP):
        for chain in table.chains:
            for rule in chain.rules:
                body = nft.generic(table.family) + text(2, chain.name) + nft.rule_body(rule)
                decoded = nft_rule_msg(message(nft.SUBSYSTEM << 8 | nft.NEWRULE, 0, 1, body))
                decoded.decode()
                listed = named(decoded)["NFTA_RULE_EXPRESSIONS"]
                assert isinstance(listed, list)
                names = [dict(item["attrs"])["NFTA_EXPR_NAME"] for item in listed]
                assert names == [expression.name for expression in rule]


def test_an_element_reads_the_same_in_pyroute2() -> None:
    batch = nft.Batch()
    batch.add_elements(nft.FAMILY_INET, "pgvigil", "open4", [ADDRESSES[0].packed], 300)
    kind, _, body = batch.changes[0]
    decoded = nft_set_elem_list_msg(message(kind, 0, 1, body))
    decoded.decode()
    found = named(decoded)
    assert (found["NFTA_SET_ELEM_LIST_TABLE"], found["NFTA_SET_ELEM_LIST_SET"]) == ("pgvigil", "open4")
    assert "300" in str(found["NFTA_SET_ELEM_LIST_ELEMENTS"])


def test_a_rule_is_the_same_only_with_all_its_expressions() -> None:
    rule = gate.INPUT[0]
    assert nft.same_rule(nft.rule_body(rule), rule)
    assert not nft.same_rule(nft.rule_body(rule[:-1]), rule)
    assert not nft.same_rule(nft.rule_body((*rule, nft.drop())), rule)
    assert not nft.same_rule(nft.rule_body(gate.INPUT[1]), rule)


@pytest.mark.parametrize("data", [b"", b"\0", b"\x03\0\x01\0", b"\xff\xff\x01\0abc", b"\0" * 64])
def test_malformed_bytes_end_quietly(data: bytes) -> None:
    assert list(attributes(data)) == []
    assert list(messages(data)) == []


def test_the_announcement_of_ipv4_claims_the_address_twice() -> None:
    vip = ADDRESSES[0]
    for frame, operation in zip(announce.announcements(vip, MAC), (1, 2), strict=True):
        assert frame[:6] == announce.BROADCAST and frame[6:12] == MAC and frame[12:14] == b"\x08\x06"
        assert struct.unpack_from("!H", frame, 20)[0] == operation
        assert announce.arp_claim(frame[14:]) == (MAC, vip.packed)
        assert frame[38:42] == vip.packed


def test_the_announcement_of_ipv6_overrides_and_sums_up() -> None:
    vip = ADDRESSES[1]
    (frame,) = announce.announcements(vip, MAC)
    header, body = frame[14:54], frame[54:]
    assert frame[:6] == bytes.fromhex("333300000001") and header[7] == 255
    assert header[8:24] == vip.packed and header[24:40] == announce.ALL_NODES.packed
    assert body[4] == 0x20 and announce.advertised(body) == (MAC, vip.packed)
    assert folded(header, body) == 0xFFFF


def test_a_question_claims_nothing() -> None:
    arp = announce.question(ADDRESSES[0], MAC)
    assert announce.arp_claim(arp[14:]) == (MAC, b"\0\0\0\0")
    solicitation = announce.question(ADDRESSES[1], MAC)
    assert solicitation[22:38] == b"\0" * 16 and solicitation[:6] == bytes.fromhex("3333ff000100")
    assert folded(solicitation[14:54], solicitation[54:]) == 0xFFFF


def folded(header: bytes, body: bytes) -> int:
    """The sum that a receiver makes of an ICMPv6 packet; all ones if the checksum is right (RFC 4443 2.3)."""
    data = header[8:40] + struct.pack("!II", len(body), 58) + body
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
