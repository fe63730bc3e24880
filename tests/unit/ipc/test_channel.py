"""Channels inside a node: nothing blocks, nothing broken ends a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgvigil.ipc import channel, frames
from pgvigil.ipc.channel import Complaints, ControlClient, ControlServer, Inbox, Outbox, new_context
from pgvigil.ipc.codec import MAX_FRAME_BYTES
from pgvigil.ipc.errors import CommandError

T = TypeVar("T")


class Bench:
    """A context, and everything that was opened in it."""

    def __init__(self, folder: Path) -> None:
        self.context = new_context()
        self.endpoint = f"ipc://{folder}/a"
        self.said: list[str] = []
        self._opened: list[Any] = []

    def keep(self, opened: T) -> T:
        self._opened.append(opened)
        return opened

    def inbox(self, endpoint: str | None = None) -> Inbox:
        return self.keep(Inbox(self.context, endpoint or self.endpoint, self.said.append))

    def outbox(self) -> Outbox:
        return self.keep(Outbox(self.context, self.endpoint, "lifecheck"))

    def server(self) -> ControlServer:
        return self.keep(ControlServer(self.context, self.endpoint, self.said.append))

    def raw(self, kind: int, endpoint: str | None = None) -> Any:
        """A socket that keeps none of our rules."""
        socket = self.keep(self.context.socket(kind))
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint or self.endpoint)
        return socket

    def close(self) -> None:
        for opened in self._opened:
            opened.close()
        self.context.term()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def drain(inbox: Inbox, count: int) -> list[frames.Received]:
    """So many frames, or an assertion after five seconds."""
    arrived: list[frames.Received] = []

    def enough() -> bool:
        arrived.extend(inbox.receive())
        return len(arrived) >= count

    until(enough)
    return arrived


def test_frames_arrive_with_their_envelope(bench: Bench) -> None:
    inbox = bench.inbox()
    outbox = bench.outbox()
    until(lambda: outbox.send(frames.Ready("x")))
    (received,) = drain(inbox, 1)
    assert received.frame == frames.Ready("x")
    assert received.sender == "lifecheck"
    assert received.sequence == outbox.dropped + 1
    assert received.sent_at_ns > 0


def test_without_a_receiver_a_frame_is_dropped_and_counted(bench: Bench) -> None:
    outbox = bench.outbox()
    start = time.monotonic()
    assert not outbox.send(frames.Ready("x"))
    assert time.monotonic() - start < 5.0
    assert outbox.dropped == 1


def test_a_receiver_that_does_not_read_never_blocks_the_sender(bench: Bench) -> None:
    inbox = bench.inbox()
    outbox = bench.outbox()
    until(lambda: outbox.send(frames.Ready("first")))
    start = time.monotonic()
    taken = sum(outbox.send(frames.Ready("x")) for _ in range(5000))
    assert time.monotonic() - start < 20.0
    assert taken < 5000 and outbox.dropped > 0
    assert drain(inbox, 10)[0].frame == frames.Ready("first")


def test_a_receiver_that_comes_back_is_found_again(bench: Bench) -> None:
    outbox = bench.outbox()
    assert not outbox.send(frames.Ready("nobody is there"))
    for _ in range(2):
        inbox = bench.inbox()
        until(lambda: outbox.send(frames.Ready("again")))
        assert drain(inbox, 1)[0].frame == frames.Ready("again")
        inbox.close()
        until(lambda: not outbox.send(frames.Ready("gone")))


def test_an_outbox_says_when_its_receiver_is_there_anew(bench: Bench) -> None:
    outbox = bench.outbox()
    connections = outbox.connections()
    assert not connections.poll(50)
    for _ in range(2):
        inbox = bench.inbox()
        assert connections.poll(5000)
        outbox.connected()
        assert not connections.poll(0)
        until(lambda: outbox.send(frames.Ready("again")))
        assert drain(inbox, 1)[0].frame == frames.Ready("again")
        inbox.close()
        until(lambda: not outbox.send(frames.Ready("gone")))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_a_broken_message_does_not_kill_an_inbox(bench: Bench, parts: list[bytes]) -> None:
    bench.said.clear()
    endpoint = f"inproc://broken-{time.monotonic_ns()}"
    inbox = bench.inbox(endpoint)
    raw = bench.raw(zmq.PUSH, endpoint)
    raw.send_multipart(parts)
    raw.send(frames.pack(frames.Ready("good"), "x", 1, 1))
    assert [received.frame for received in drain(inbox, 1)] == [frames.Ready("good")]
    assert inbox.complaints.count == 1
    assert len(bench.said) == 1 and bench.said[0].startswith("dropped 1 invalid frames; the newest: ")
    raw.close()
    inbox.close()


def test_an_oversized_message_never_arrives(bench: Bench) -> None:
    inbox = bench.inbox()
    raw = bench.raw(zmq.PUSH)
    raw.send(b"x" * (MAX_FRAME_BYTES + 1))
    outbox = bench.outbox()
    until(lambda: outbox.send(frames.Ready("good")))
    assert drain(inbox, 1)[0].frame == frames.Ready("good")


def test_an_endpoint_that_cannot_be_bound_is_named(bench: Bench) -> None:
    with pytest.raises(CommandError, match="no/such/folder"):
        bench.inbox(f"{bench.endpoint}/no/such/folder/a")


def test_complaints_speak_once_a_minute_with_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    monkeypatch.setattr(channel, "boottime_ns", lambda: now_ns[0])
    said: list[str] = []
    complaints = Complaints(said.append, "invalid frames")
    for second in range(121):
        now_ns[0] = second * 1_000_000_000
        complaints.add(f"reason {second}")
    assert said == [
        "dropped 1 invalid frames; the newest: reason 0",
        "dropped 60 invalid frames; the newest: reason 60",
        "dropped 60 invalid frames; the newest: reason 120",
    ]
    assert complaints.count == 121


def test_a_client_gets_progress_and_the_final_reply(bench: Bench) -> None:
    server = bench.server()
    client = ControlClient(bench.endpoint)
    replies = client.ask("status", ("json",), 5000)
    first: list[frames.Reply] = []

    def serve() -> None:
        assert server.socket.poll(5000)
        for address, request in server.requests():
            assert (request.verb, request.arguments) == ("status", ("json",))
            server.reply(address, frames.Reply(request.request_id + 1, True, False, "for somebody else", b""))
            server.reply(address, frames.Reply(request.request_id, False, True, "working", b""))
            server.reply(address, frames.Reply(request.request_id, True, True, "done", b"{}"))

    thread = threading.Thread(target=serve)
    thread.start()
    first.extend(replies)
    thread.join()
    assert [(reply.message, reply.final) for reply in first] == [("working", False), ("done", True)]
    client.close()


def test_a_client_does_not_wait_for_ever(tmp_path: Path) -> None:
    client = ControlClient(f"ipc://{tmp_path}/control")
    with pytest.raises(CommandError, match="does not take requests"):
        list(client.ask("status", (), 50))
    client.close()


def test_a_server_that_is_silent_is_named(bench: Bench) -> None:
    bench.server()
    client = ControlClient(bench.endpoint)
    with pytest.raises(CommandError, match="did not answer within 100 ms"):
        list(client.ask("status", (), 100))
    client.close()


def test_broken_requests_do_not_kill_the_server(bench: Bench) -> None:
    server = bench.server()
    raw = bench.raw(zmq.DEALER)
    raw.send(b"rubbish")
    raw.send_multipart([b"a", b"b"])
    raw.send(frames.pack(frames.Ready("no request"), "x", 1, 1))
    raw.send(frames.pack(frames.Request(5, "status", ()), "x", 1, 1))
    served: list[frames.Request] = []

    def one_was_served() -> bool:
        served.extend(request for _, request in server.requests())
        return len(served) == 1

    until(one_was_served)
    assert served == [frames.Request(5, "status", ())]
    assert server.complaints.count == 3 and len(bench.said) == 1
    server.reply(b"unknown", frames.Reply(1, True, True, "", b""))
