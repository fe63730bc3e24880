"""TCP connections of this network namespace as the kernel lists them, and their end: what `ss -tn` and `ss -K` do.

Only connections to one remote port are asked for, also those that are being made; those that have been left by their
process or listen are not. Decides nothing: whoever calls `destroy` has to know whose connection that is. Ending one
needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY; the process that reads from it sees ECONNABORTED at
once.

Sources: sock_diag(7), linux/inet_diag.h, linux/tcp.h (struct tcp_info).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from pgvigil.ipc.netlink import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    KernelRefusal,
    NetlinkSocket,
    attribute,
    attributes,
    message,
    messages,
)

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_INFO = 2
INET_DIAG_BC_D_GE, INET_DIAG_BC_D_LE = 4, 5
FAMILIES = (socket.AF_INET, socket.AF_INET6)

TCP_SYN_SENT = 2
TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING = 1, 4, 5, 8, 9, 11
WHOLE = (TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING)
STATES = sum(1 << state for state in (TCP_SYN_SENT, *WHOLE))
"""Not LISTEN and TIME_WAIT."""

REQUEST = struct.Struct("=BBBxI48s")
FOUND = struct.Struct("=BBBB48sIIIII")
PORTS = struct.Struct("!HH")
ADDRESSES_OFFSET = 4
CONDITION = struct.Struct("=BBH")
LAST_HEARD = struct.Struct("=II")
LAST_HEARD_OFFSET = 52
"""tcpi_last_data_recv and tcpi_last_ack_recv."""
MAX_FOUND = 4096
"""So many connections to one port are looked at; a dump that is longer is left unread."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection; `identity` is the kernel's own name for it, `quiet_ms` since anything came from the other end.

    `inode` is what its process's descriptor links to, 0 if it has none any more. A v4-mapped address is given as IPv4.
    """

    family: int
    state: int
    identity: bytes
    remote: str
    remote_port: int
    inode: int
    quiet_ms: int | None

    @property
    def begun(self) -> bool:
        """Whether the other end has not answered at all yet."""
        return self.state == TCP_SYN_SENT


def listing(family: int, remote_port: int) -> bytes:
    """The body of the question for all connections of a family to a port."""
    asked = REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), STATES, b"")
    # Two conditions of two words each, the second word's upper half is the port; a jump beyond the end says no.
    at_least = CONDITION.pack(INET_DIAG_BC_D_GE, 8, 20) + CONDITION.pack(0, 0, remote_port)
    at_most = CONDITION.pack(INET_DIAG_BC_D_LE, 8, 12) + CONDITION.pack(0, 0, remote_port)
    return asked + attribute(INET_DIAG_REQ_BYTECODE, at_least + at_most)


def parse_connection(body: bytes) -> Connection | None:
    """What the body of one answer says; None if it is too short."""
    if len(body) < FOUND.size:
        return None
    family, state, _, _, identity, _, _, _, _, inode = FOUND.unpack_from(body)
    _, remote_port = PORTS.unpack_from(identity)
    information = dict(attributes(body[FOUND.size :])).get(INET_DIAG_INFO, b"")
    quiet_ms = None
    if len(information) >= LAST_HEARD_OFFSET + LAST_HEARD.size:
        quiet_ms = min(LAST_HEARD.unpack_from(information, LAST_HEARD_OFFSET))
    return Connection(family, state, identity, _remote(family, identity), remote_port, inode, quiet_ms)


def _remote(family: int, identity: bytes) -> str:
    raw = identity[ADDRESSES_OFFSET + 16 : ADDRESSES_OFFSET + 32]
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    return plain_address(str(ipaddress.IPv6Address(raw)))


def plain_address(address: str) -> str:
    """An address as it is compared: without zone, and a v4-mapped one as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def connections(netlink: NetlinkSocket, remote_port: int) -> list[Connection]:
    """The connections to a remote port; `KernelRefusal` if the kernel will not say.

    After a dump that was left unread there is no other one, and the socket is of no more use for that.
    """
    found: list[Connection] = []
    for family in FAMILIES:
        if len(found) < MAX_FOUND:
            found += _dump(netlink, family, remote_port)
    return found


def _dump(netlink: NetlinkSocket, family: int, remote_port: int) -> list[Connection]:
    what, sequence = f"list of connections to port {remote_port}", netlink.next_sequence()
    request = message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, sequence, listing(family, remote_port))
    netlink.send(request, what)
    found: list[Connection] = []
    while len(found) < MAX_FOUND:
        for reply in messages(netlink.datagram(what)):
            if reply.sequence != sequence:
                continue
            if reply.kind == NLMSG_DONE:
                return found
            if reply.kind == NLMSG_ERROR:
                raise KernelRefusal(what, -struct.unpack_from("=i", reply.body)[0])
            connection = parse_connection(reply.body)
            if connection is not None:
                found.append(connection)
    return found


def destroying(connection: Connection) -> bytes:
    """The body of the order to end a connection."""
    return REQUEST.pack(connection.family, socket.IPPROTO_TCP, 0, STATES, connection.identity)


def destroy(netlink: NetlinkSocket, connection: Connection) -> None:
    """End a connection; `KernelRefusal`: ENOENT if it is gone, EOPNOTSUPP, EPERM."""
    what = f"end of the connection to {connection.remote}:{connection.remote_port}"
    netlink.request(SOCK_DESTROY, 0, destroying(connection), what)
