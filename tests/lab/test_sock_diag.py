"""The end of a connection by the kernel's hand, as root: this very process reads from it without a time limit."""

from __future__ import annotations

import errno
import socket
import threading

import pytest

from pgvigil.ipc.netlink import KernelRefusal, NetlinkSocket
from pgvigil.ipc.sock_diag import NETLINK_SOCK_DIAG, connections, destroy

pytestmark = [pytest.mark.lab, pytest.mark.timeout(60)]


@pytest.mark.parametrize(
    ("family", "listens", "connects"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_a_reader_without_a_time_limit_is_woken_and_nobody_else(
    family: socket.AddressFamily, listens: str, connects: str
) -> None:
    codes: list[int | None] = []
    here = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.create_server((listens, 0), family=here) as listener, socket.socket(family) as near:
        port = listener.getsockname()[1]
        near.connect((connects, port))

        def read() -> None:
            try:
                near.recv(1)
            except OSError as error:
                codes.append(error.errno)

        with listener.accept()[0], socket.create_connection((listens, port)) as beside, listener.accept()[0] as far:
            netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            try:
                own_port = near.getsockname()[1]
                (one,) = [
                    found for found in connections(netlink, port) if int.from_bytes(found.identity[:2]) == own_port
                ]
                destroy(netlink, one)
                thread.join(30)
                assert codes == [errno.ECONNABORTED]
                with pytest.raises(KernelRefusal) as caught:
                    destroy(netlink, one)
                assert caught.value.code == errno.ENOENT
                far.sendall(b"x")
                beside.settimeout(30)
                assert beside.recv(1) == b"x"
            finally:
                netlink.close()
