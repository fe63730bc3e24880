"""The socket of a path hears its own interface only, where the privilege is there (SO_BINDTODEVICE, socket(7))."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

# A host with two interfaces; the other host sends to the address of the first by way of the second, then by the first.
SCRIPT = """
import socket, subprocess, sys
from pgvigil.heartbeat.udp import PathSocket

other = subprocess.Popen(["unshare", "--net", "sleep", "60"])
OVER_THERE = ["nsenter", "--target", str(other.pid), "--net"]
SEND = "import socket, sys; host = sys.argv[1]; family = socket.AF_INET6 if ':' in host else socket.AF_INET; " \\
       "socket.socket(family, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (host, 9694))"

def run(words, there=False):
    subprocess.run([*(OVER_THERE if there else []), "ip", *words.split()], check=True)

def send(host, text):
    subprocess.run([*OVER_THERE, sys.executable, "-c", SEND, host, text], check=True)

try:
    while subprocess.run(["readlink", f"/proc/{other.pid}/ns/net"], capture_output=True).stdout == \\
            subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True).stdout:
        pass
    for number, name in enumerate(("path0", "path1")):
        far = f"far{number}"
        run(f"link add {name} type veth peer name {far} netns {other.pid}")
        for there, end, last in ((False, name, 1), (True, far, 2)):
            run(f"address add 10.9{number}.0.{last}/24 dev {end}", there)
            run(f"address add fd9{number}::{last}/64 dev {end} nodad", there)
            run(f"link set {end} up", there)
    for address, gateway in (("10.90.0.1", "10.91.0.1"), ("fd90::1", "fd91::1")):
        opened = PathSocket("path0", address, 9694)
        opened.socket.settimeout(20)
        run(f"route replace {address} via {gateway}", there=True)
        send(address, "by path1")
        run(f"route delete {address} via {gateway}", there=True)
        send(address, "by path0")
        print(address, opened.bound_to_interface, opened.socket.recv(100).decode())
        opened.close()
        anywhere = socket.socket(opened.socket.family, socket.SOCK_DGRAM)
        anywhere.bind((address, 9694))
        anywhere.settimeout(20)
        run(f"route replace {address} via {gateway}", there=True)
        send(address, "by path1")
        run(f"route delete {address} via {gateway}", there=True)
        print(address, "unbound", anywhere.recv(100).decode())
        anywhere.close()
finally:
    other.kill()
    other.wait()
"""


def test_what_comes_in_by_another_interface_is_not_heard() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "10.90.0.1 True by path0",
        "10.90.0.1 unbound by path1",
        "fd90::1 True by path0",
        "fd90::1 unbound by path1",
    ]
