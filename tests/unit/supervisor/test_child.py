"""Signs of life that wait in the link, and what watchdog main is told of the processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgvigil.ipc import frames
from pgvigil.ipc.clock import NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, make_pair
from pgvigil.watchdog.supervisor import roster
from pgvigil.watchdog.supervisor.child import Child
from pgvigil.watchdog.supervisor.children import WATCHDOG_MAIN, ChildSpec
from pgvigil.watchdog.supervisor.roster import Roster


class Owner:
    """Notes that it was asked."""

    def __init__(self) -> None:
        self.ready: list[str] = []

    def on_change(self) -> None: ...
    def on_killed(self, child: Child) -> None: ...
    def on_failure(self, child: Child, ran_ready_ns: int | None) -> None: ...

    def on_ready(self, child: Child) -> None:
        self.ready.append(child.spec.name)

    def on_exit(self, child: Child, status: int) -> bool:
        return False


class Scene:
    """Watchdog main as a child without a process: the test holds the other end of its link."""

    def __init__(self) -> None:
        ours, theirs = make_pair()
        self.link = Link(theirs, "child", print)
        self.loop = Loop()
        self.owner = Owner()
        self.roster = Roster(self.loop, self.owner, lambda: -1, lambda: None)
        self.roster.fill((ChildSpec(WATCHDOG_MAIN, _never, None, True, 1, ()),))
        self.child = self.roster.main
        self.child.pid, self.child.link = 1, Link(ours, "supervisor", print)
        self.loop.watch(self.child.link.fd, lambda: self.roster.listen(self.child))

    def wakes(self) -> bool:
        """Whether the loop wakes up for what lies in the link."""
        began_ns = boottime_ns()
        self.loop.run_once(NS_PER_S // 10)
        return boottime_ns() - began_ns < NS_PER_S // 20

    def close(self) -> None:
        self.child.drop()
        self.link.close()
        self.loop.close()


def _never(_settings: Any, _link: Link, _life_interval_ns: int) -> int:
    raise AssertionError


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def alive(number: int) -> frames.Alive:
    return frames.Alive(False, f"sign {number}")


def test_the_supervisor_wakes_for_readiness_and_not_for_signs_of_life(scene: Scene) -> None:
    scene.link.send(frames.Ready("bound"))
    assert scene.wakes() and scene.owner.ready == [WATCHDOG_MAIN] and scene.child.state == "running"
    for number in range(3):
        scene.link.send(alive(number))
    assert not scene.wakes()
    scene.roster.listen(scene.child)
    assert scene.child.summary == "sign 2" and scene.owner.ready == [WATCHDOG_MAIN]


def test_a_sign_of_life_counts_from_its_sending(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.link.send(frames.Ready("bound"))
    scene.child.hear()
    before_ns = boottime_ns()
    scene.link.send(alive(1))
    after_ns = boottime_ns()
    monkeypatch.setattr("pgvigil.watchdog.supervisor.child.boottime_ns", lambda: after_ns + 2 * NS_PER_S)
    scene.child.hear()
    assert before_ns <= scene.child.life_ns <= after_ns


def test_signs_of_life_of_the_future_count_from_now(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = boottime_ns()
    monkeypatch.setattr("pgvigil.ipc.ready.boottime_ns", lambda: now_ns + 3600 * NS_PER_S)
    scene.link.send(alive(1))
    scene.child.hear()
    assert now_ns <= scene.child.life_ns <= boottime_ns()


def test_old_signs_of_life_take_no_pardon_back(scene: Scene) -> None:
    for number in range(100):
        scene.link.send(alive(number))
    now_ns = boottime_ns() + NS_PER_S
    scene.child.pardon(now_ns)
    scene.child.hear()
    assert scene.child.life_ns == now_ns and scene.child.summary == "sign 99"


def test_a_child_that_talks_without_end_does_not_keep_the_supervisor(scene: Scene) -> None:
    sent = 0
    while scene.link.send(alive(sent)):
        sent += 1
    assert sent > 128
    scene.child.hear()
    assert scene.child.summary == "sign 127"


def test_watchdog_main_is_told_of_changes_at_once_and_of_the_rest_now_and_then(scene: Scene) -> None:
    own, now_ns = frames.ProcessInfo("supervisor", 1, "running", 0, 0, ""), boottime_ns()

    def told(after_ns: int) -> int:
        scene.roster.tell_main(own, now_ns + after_ns)
        return len(scene.link.receive())

    assert told(0) == 1
    assert told(NS_PER_S) == told(roster.REPEAT_INTERVAL_NS - 1) == 0
    scene.child.state = "stopping"
    assert told(roster.REPEAT_INTERVAL_NS - 1) == 1
    assert told(roster.REPEAT_INTERVAL_NS) == 0
    assert told(2 * roster.REPEAT_INTERVAL_NS) == 1


def test_what_watchdog_main_could_not_take_is_told_again(scene: Scene) -> None:
    own = frames.ProcessInfo("supervisor", 1, "running", 0, 0, "")
    scene.child.pid = 0
    scene.roster.tell_main(own, 1)
    scene.child.pid = 1
    scene.roster.tell_main(own, 2)
    assert len(scene.link.receive()) == 1
