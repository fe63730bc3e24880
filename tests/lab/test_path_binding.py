"""The socket of a path hears its own interface only, where the privilege is there (SO_BINDTODEVICE, socket(7))."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

SCRIPT = """
import socket, subprocess
from pgvigil.heartbeat.udp import PathSocket

for command in ("link set lo up", "link add path0 type veth peer name far0", "link set path0 up", "link set far0 up",
                "address add 10.99.0.1/24 dev path0", "address add fd99::1/64 dev path0 nodad"):
    subprocess.run(["ip", *command.split()], check=True)
for family, address in ((socket.AF_INET, "10.99.0.1"), (socket.AF_INET6, "fd99::1")):
    for interface in ("path0", "lo"):
        opened = PathSocket(interface, address, 9694)
        opened.check()
        # What a host sends to an address of its own comes in over lo, whatever interface the address is on.
        with socket.socket(family, socket.SOCK_DGRAM) as other:
            other.sendto(b"from lo", (address, 9694))
        try:
            heard = opened.socket.recv(100)
        except BlockingIOError:
            heard = b"nothing"
        print(address, interface, opened.bound_to_interface, heard.decode())
        opened.close()
"""


def test_what_comes_in_elsewhere_is_not_heard() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "10.99.0.1 path0 True nothing",
        "10.99.0.1 lo True from lo",
        "fd99::1 path0 True nothing",
        "fd99::1 lo True from lo",
    ]
