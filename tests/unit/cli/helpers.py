"""A node that is only a lock and a control socket, and a way to call the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.endpoints import control_endpoint
from pgvigil.watchdog.supervisor.pidfile import PidFile

Answer = Callable[[frames.Request], list[frames.Reply]]


def write_config(folder: Path, extra: str = "", node: str = "127.0.0.1") -> Path:
    """A valid one-node file whose run directory is inside `folder`."""
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    path = folder / "pgvigil.toml"
    path.write_text(
        f'[cluster]\nname = "t"\ninsecure = true\n[[node]]\nid = 1\nhost = "{node}"\n'
        f'[process]\nrun_dir = "{folder}/run"\nstate_dir = "{folder}/state"\n{extra}',
        encoding="utf-8",
    )
    return path


@contextmanager
def running(folder: Path, answer: Answer | None = None) -> Iterator[None]:
    """This process holds the lock of the run directory; `answer` plays watchdog main (None: it does not answer)."""
    pid_file = PidFile.take(str(folder / "run"))
    try:
        if answer is None:
            yield
        else:
            with _serving(folder, answer):
                yield
    finally:
        pid_file.release()


@contextmanager
def _serving(folder: Path, answer: Answer) -> Iterator[None]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server = ControlServer(context, control_endpoint(str(folder / "run")), print)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            if server.socket.poll(20, zmq.POLLIN):
                for address, request in server.requests():
                    for reply in answer(request):
                        server.reply(address, reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        server.close()
        context.term()


def json_reply(request: frames.Request, value: object) -> list[frames.Reply]:
    """The final answer to a question."""
    return [frames.Reply(request.request_id, True, True, "", json.dumps(value).encode())]


def status(**changes: Any) -> dict[str, Any]:
    """What watchdog main of a healthy leader says."""
    value: dict[str, Any] = {
        "version": "0.1.0", "node_id": 1, "label": "pg01", "cluster": "shop", "insecure": False, "now_ns": 10**12,
        "state": "leader", "sentence": "leads with the word of 3 of 3 voters", "term": 7, "leader_id": 1,
        "quorum": {"have": 3, "need": 2, "voters": 3}, "lease": {"left_ms": 812, "length_ms": 1000},
        "waiting_for": [], "restart_wait_ms": 0, "document": {"term": 7, "version": 3, "committed": True},
        "vip": {
            "wanted": "up", "interface": "eth0", "addresses": [{"address": "10.0.0.100/24", "present": True}],
            "gate": "open", "gate_left_ms": 811, "fence_problems": [], "conflict": "",
        },
        "nodes": [node(1, role="leader", self=True, age_ms=0, paths=[]), node(2), node(3, role="witness")],
        "processes": [
            {"name": "supervisor", "pid": 100, "state": "running", "restarts": 0, "up_ms": 5000, "last_exit": ""},
            {"name": "watchdog main", "pid": 101, "state": "running", "restarts": 1, "up_ms": 7_200_000,
             "last_exit": "killed by SIGKILL"},
        ],
        "events": [{"at_ns": 1, "age_ms": 900 * number, "text": f"event {number}"} for number in range(9, 0, -1)],
    }  # fmt: skip
    return value | changes


PATH = {"interface": "eth0", "last_heard_ms": 120, "lost_permille": 5, "round_trip_us": 310, "jitter_us": 70}


def node(node_id: int, **changes: Any) -> dict[str, Any]:
    """One entry of "nodes"."""
    value: dict[str, Any] = {
        "id": node_id, "label": f"pg0{node_id}", "role": "standby", "self": False, "term": 7, "health": "alive",
        "evidence": "heard on 1 of 1 paths", "since_ms": 61_000, "age_ms": 180, "pgpool": "alive", "electable": True,
        "priority": 1, "voter": True, "paths": [PATH],
    }  # fmt: skip
    return value | changes
