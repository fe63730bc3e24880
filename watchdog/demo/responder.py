"""The service that the light probe asks for: it answers each connection with its node's number.

It runs on every node beside pgpool-II and is part of the host, so it dies and stops with it. It tells the client
who answered, which pgpool-II does not.

    python -m pgvigil.watchdog.demo.responder NUMBER PORT
"""

from __future__ import annotations

import socket
import sys

from pgvigil.watchdog.demo.realtime import measure_in_real_time

PORT = 7777


def main(arguments: list[str]) -> None:
    number, port = int(arguments[0]), int(arguments[1])
    measure_in_real_time()
    with socket.create_server(("0.0.0.0", port), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            try:
                client.send(bytes((number,)))
            except OSError:
                pass  # the client is gone already
            client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
