"""The loop: in time, wide awake, and never without an end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from pgvigil.ipc.channel import ZmqPoller
from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.loop import EpollPoller, Loop, Poller, Timer


class Alarm:
    """A participant with one deadline."""

    def __init__(self, at_ns: int | None = None) -> None:
        self.at_ns = at_ns
        self.ticks: list[int] = []
        self.on_tick: Callable[[], None] = lambda: None

    def wake(self) -> int | None:
        return self.at_ns

    def tick(self, now_ns: int) -> None:
        self.ticks.append(now_ns)
        self.at_ns = None
        self.on_tick()


@pytest.fixture(params=[EpollPoller, ZmqPoller], ids=["epoll", "zmq"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    make: Callable[[], Poller] = request.param
    loop = Loop(make())
    yield loop
    loop.close()


def in_ms(milliseconds: int) -> int:
    return boottime_ns() + milliseconds * NS_PER_MS


def test_it_wakes_in_time(loop: Loop) -> None:
    alarm = Alarm(in_ms(30))
    due_ns = alarm.at_ns
    assert due_ns is not None
    alarm.on_tick = loop.stop
    loop.join(alarm)
    loop.run()
    late_ns = alarm.ticks[0] - due_ns
    assert 0 <= late_ns < 50 * NS_PER_MS  # usually 0.1 ms; a loaded machine may take its time


def test_a_deadline_of_the_past_ticks_at_once(loop: Loop) -> None:
    alarm = Alarm(1)
    loop.join(alarm)
    start_ns = boottime_ns()
    loop.run_once()
    assert len(alarm.ticks) == 1
    assert boottime_ns() - start_ns < 4000 * NS_PER_MS


def test_wake_is_asked_again_after_a_callback_moved_the_deadline(loop: Loop) -> None:
    alarm = Alarm(None)
    reader, writer = os.pipe()

    def on_readable() -> None:
        os.read(reader, 1)
        alarm.at_ns = in_ms(10)

    alarm.on_tick = loop.stop
    loop.join(alarm)
    loop.watch(reader, on_readable)
    os.write(writer, b"x")
    start_ns = boottime_ns()
    loop.run()
    assert boottime_ns() - start_ns < 4000 * NS_PER_MS  # not the five seconds of an idle loop
    loop.unwatch(reader)
    os.close(reader)
    os.close(writer)


def test_wake_is_asked_again_after_another_participant_moved_it(loop: Loop) -> None:
    first, second = Alarm(1), Alarm(None)

    def move() -> None:
        second.at_ns = boottime_ns()

    first.on_tick = move
    loop.join(first)
    loop.join(second)
    loop.run_once()
    assert len(second.ticks) == 1


def test_a_deadline_can_be_moved_away(loop: Loop) -> None:
    alarm = Alarm(in_ms(10))
    loop.join(alarm)
    alarm.at_ns = in_ms(10_000)
    loop.run_once(30 * NS_PER_MS)
    assert alarm.ticks == []


def test_it_never_sleeps_longer_than_its_limit(loop: Loop) -> None:
    start_ns = boottime_ns()
    loop.run_once(20 * NS_PER_MS)
    assert 15 * NS_PER_MS < boottime_ns() - start_ns < 4000 * NS_PER_MS


def test_a_participant_may_leave_during_a_round(loop: Loop) -> None:
    first, second = Alarm(1), Alarm(1)
    first.on_tick = lambda: loop.leave(second)
    loop.join(first)
    loop.join(second)
    loop.run_once()
    loop.run_once(NS_PER_MS)
    assert len(first.ticks) == 1


def test_a_source_that_is_forgotten_calls_back_no_more(loop: Loop) -> None:
    reader, writer = os.pipe()
    called: list[int] = []
    loop.watch(reader, lambda: called.append(1))
    loop.unwatch(reader)
    loop.unwatch(reader)
    os.write(writer, b"x")
    loop.run_once(10 * NS_PER_MS)
    assert called == []
    os.close(reader)
    os.close(writer)


def test_signals_are_handled_inside_the_loop_in_order(loop: Loop) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    seen: list[int] = []
    try:
        loop.on_signals((signal.SIGUSR1, signal.SIGUSR2), seen.append)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == []
        loop.run_once()
        assert seen == [signal.SIGUSR2, signal.SIGUSR1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_timer_is_exact_to_less_than_a_millisecond_of_early() -> None:
    timer = Timer()
    poller = EpollPoller()
    poller.add(timer.fd)
    at_ns = in_ms(7)
    timer.arm(at_ns)
    assert poller.poll(2000) == [timer.fd]
    assert boottime_ns() >= at_ns
    timer.expired()
    timer.arm(None)
    assert poller.poll(20) == []
    again_ns = in_ms(7)
    timer.arm(again_ns)
    assert poller.poll(2000) == [timer.fd]
    timer.expired()
    timer.arm(again_ns)  # of the past by now: expires at once, and only once
    assert poller.poll(2000) == [timer.fd]
    poller.close()
    os.close(timer.fd)
