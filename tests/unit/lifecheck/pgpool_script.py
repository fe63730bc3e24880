"""A server that plays a pgpool-II byte by byte: what it says, and where it falls silent, is the test's choice."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"
CLEAR_TEXT_PASSWORD = b"R\0\0\0\x08\0\0\0\x03"
READY = b"Z\0\0\0\x05I"
ROW = b"T\0\0\0\x21\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x011"
DONE = b"C\0\0\0\x0dSELECT 1\0"
TLS_REFUSED = b"N"


def error(severity: str, text: str, sqlstate: str, detail: str = "") -> bytes:
    """An ErrorResponse of protocol version 3."""
    fields = [f"S{severity}", f"C{sqlstate}", f"M{text}", *([f"D{detail}"] if detail else [])]
    body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4) + body


class Client:
    """The client's side of one connection, as the script sees it."""

    def __init__(self, connection: socket.socket, ending: threading.Event) -> None:
        self._connection = connection
        self._ending = ending
        self.startup = b""

    def send(self, *parts: bytes) -> None:
        self._connection.sendall(b"".join(parts))

    def send_slowly(self, data: bytes) -> None:
        """One byte a packet."""
        for byte in data:
            self._connection.sendall(bytes([byte]))
            self._ending.wait(0.002)

    def request_for_tls(self) -> None:
        assert self._read(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"

    def negotiate(self) -> None:
        """Answer the request for TLS, take the startup packet."""
        self.request_for_tls()
        self.send(TLS_REFUSED)
        self.startup = self._read(int.from_bytes(self._read(4)) - 4)

    def message(self) -> bytes:
        """The next message, its kind first."""
        kind = self._read(1)
        return kind + self._read(int.from_bytes(self._read(4)) - 4)

    def hang(self) -> None:
        """Say nothing until the test ends."""
        self._ending.wait(60)

    def reset(self) -> None:
        """Let the end of the script end the connection with RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise ConnectionError("the client went away")
            data += part
        return data


Script = Callable[[Client], None]


def answer(client: Client) -> None:
    """A healthy pgpool-II."""
    client.negotiate()
    client.send(AUTHENTICATED, READY)
    assert client.message().startswith(b"Q")
    client.send(ROW, DONE, READY)
    with contextlib.suppress(ConnectionError):
        client.message()


class ScriptedPgpool:
    """Listens on loopback; each connection plays `script` in a thread of its own."""

    def __init__(self, script: Script = answer, port: int = 0) -> None:
        self.script = script
        self.startups: list[bytes] = []
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._serve)

    def close(self) -> None:
        """Stop listening, end every conversation; safe to call twice."""
        if self._ending.is_set():
            return
        self._ending.set()
        # Wakes `accept` and `recv`, which closing would not.
        for waiting in (self._listener, *self._connections):
            with contextlib.suppress(OSError):  # of a conversation that has ended
                waiting.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            self._connections.append(connection)
            if self._ending.is_set():  # `close` may have missed it
                connection.close()
                return
            self._start(self._play, connection)

    def _play(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            client = Client(connection, self._ending)
            self.script(client)
            self.startups.append(client.startup)
