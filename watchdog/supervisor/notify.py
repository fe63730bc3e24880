"""Words to systemd (sd_notify(3)), without libsystemd.

Only the supervisor speaks. The environment variables are taken away on reading, so that no child and no
user's command speaks in its name. Nothing here fails: without systemd every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """A datagram socket to systemd, or nothing."""

    def __init__(self, address: str | None, watchdog_usec: int | None = None) -> None:
        self._address = address
        self.watchdog_ns = None if watchdog_usec is None or address is None else watchdog_usec * 1000
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls) -> Notifier:
        """Read and remove NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        usec = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        for_us = not pid or pid == str(os.getpid())
        return cls(address, int(usec) if for_us and usec.isdigit() and int(usec) > 0 else None)

    def say(self, *lines: str) -> None:
        """Send assignments such as `READY=1`; a systemd that does not listen is no reason to stop."""
        if self._socket is None or not self._address:
            return
        # A leading @ stands for the NUL byte of an abstract socket (unix(7)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto("\n".join(lines).encode(), address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        self.say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """systemd compares this clock with its own, and it is CLOCK_MONOTONIC by contract."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self.say("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self.say(f"STATUS={status}")

    def alive(self) -> None:
        self.say("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
