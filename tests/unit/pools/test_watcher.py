"""How the local pgpool-II is watched: what it has in memory often, what PostgreSQL says seldom, a dead host never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.pcp.fake import PARAMETERS, parameter_rows
from tests.unit.pools.loops import FakePool, Ground, fake_pool, ground, node

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import PeerError
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import BackendRole
from pgvigil.watchdog.pcp.records import HealthStats
from pgvigil.watchdog.pools import watcher
from pgvigil.watchdog.pools.view import View, has_status, seen_backend
from pgvigil.watchdog.pools.watcher import Watcher


@dataclass
class Scene:
    """A watcher on its loop, and what it watches."""

    place: Ground
    pool: FakePool
    watcher: Watcher

    def wake(self) -> int | None:
        return self.watcher.wake()

    def tick(self, now_ns: int) -> None:
        self.watcher.tick(now_ns)

    def look(self, times: int = 1) -> View:
        """So many views more; the last one."""
        seen: list[View] = []

        def more() -> bool:
            view = self.watcher.view
            if view is not None and (not seen or view is not seen[-1]):
                seen.append(view)
            return len(seen) > times

        self.place.until(more)
        return seen[-1]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    for name in ("USUAL_NS", "SOON_NS"):
        monkeypatch.setattr(watcher, name, 20 * NS_PER_MS)
    with (
        ground(tmp_path) as place,
        fake_pool(tmp_path, node("db1", role="2", pg_role="primary"), node("db2")) as (pool, host, port),
    ):
        link = place.link(host, port)
        made = Scene(place, pool, Watcher(link, str(pool.pid_file), boottime_ns, lambda: None))
        place.loop.join(made)
        yield made
        place.loop.leave(made)
        link.close()


def test_status_and_role_and_what_postgresql_says(scene: Scene) -> None:
    view = scene.look(0)
    assert [(one.host, one.status, one.role, one.server_role) for one in view.backends] == [
        ("db1", SeenStatus.UP, BackendRole.PRIMARY, "primary"),
        ("db2", SeenStatus.UP, BackendRole.STANDBY, "standby"),
    ]


def test_postgresql_is_not_asked_again_while_nothing_changes(scene: Scene) -> None:
    scene.look(0)
    scene.pool.asked.clear()
    view = scene.look(5)
    assert "I" not in scene.pool.asked and scene.pool.asked.count("H") >= 10
    assert [one.server_role for one in view.backends] == ["primary", "standby"]


def test_once_all_is_calm_a_glance_is_enough_until_a_status_changes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgpool-II 4.3.5 writes into its log for every count that is read."""
    monkeypatch.setattr(watcher, "ALERT_NS", 0)
    scene.look(0)
    scene.pool.asked.clear()
    view = scene.look(5)
    assert set(scene.pool.asked) - set("MRX") == {"B"}
    assert [one.server_role for one in view.backends] == ["primary", "standby"]
    scene.pool.nodes[1]["quarantine"] = "1"
    scene.pool.nodes[1]["status"] = "3"
    scene.place.until(lambda: scene.look().backends[1].quarantined)
    assert "H" in scene.pool.asked
    scene.pool.asked.clear()
    scene.look(3)
    assert "H" not in scene.pool.asked, "quarantine is a word of the glance, too"


def test_a_glance_at_a_pgpool_that_lists_no_status_is_not_enough(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ALERT_NS", 0)
    monkeypatch.setattr(FakePool, "_settings", lambda self: parameter_rows(PARAMETERS))
    scene.look(0)
    scene.pool.asked.clear()
    scene.look(3)
    assert scene.pool.asked.count("H") >= 6


def test_a_number_that_is_no_backend_takes_nothing_from_the_glance(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgpool-II does not list its status."""
    monkeypatch.setattr(watcher, "ALERT_NS", 0)
    scene.pool.nodes.append(node("", status="0"))
    listed = parameter_rows([("backend_status0", "up", ""), ("backend_status1", "up", "")])
    monkeypatch.setattr(FakePool, "_settings", lambda self: listed)
    assert scene.look(0).backends[2].status is SeenStatus.UNUSED
    scene.pool.asked.clear()
    scene.look(3)
    assert "H" not in scene.pool.asked


def test_where_the_glance_is_not_answered_the_counts_may_be(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ALERT_NS", 0)
    monkeypatch.setattr(watcher, "GLANCE_LIMIT_MS", 200)
    scene.look(0)
    scene.pool.refused = "B"
    scene.pool.nodes[1]["status"] = "3"
    scene.place.until(lambda: scene.look().backends[1].down)


def test_a_role_that_changes_alone_is_seen_although_a_glance_does_not_show_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "ALERT_NS", 0)
    monkeypatch.setattr(watcher, "ROLES_AGAIN_NS", 100 * NS_PER_MS)
    scene.look(0)
    scene.pool.nodes[1] |= {"role": "2"}
    scene.place.until(lambda: scene.look().backends[1].role is BackendRole.PRIMARY)


def test_a_node_info_without_a_row_is_no_answer(scene: Scene) -> None:
    scene.pool.empty.add(0)
    assert [one.server_role for one in scene.look(0).backends] == ["", "standby"]


def test_a_wait_that_was_for_nothing_leaves_the_next_change_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that is undone while it waits."""
    monkeypatch.setattr(watcher, "ROLE_LIMIT_MS", 200)
    scene.look(0)
    scene.pool.slow.add(0)
    scene.pool.nodes[1]["status"] = "3"
    scene.place.until(lambda: bool(scene.watcher.problem))
    scene.pool.nodes[1]["status"] = "2"
    scene.pool.slow.clear()
    scene.place.until(lambda: not scene.watcher.problem)
    assert not scene.watcher._patient


@pytest.mark.parametrize("word", ["unused", "waiting", "up", "down", "quarantine", "sleeping", ""])
def test_a_word_is_the_same_status_only_if_quarantine_is_the_same(word: str) -> None:
    for before in ("unused", "waiting", "up", "down", "quarantine"):
        assert has_status(seen_backend(stats(before, "standby")), word) is (word == before)


def test_a_view_that_shows_a_change_waits_once_for_what_postgresql_says(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is primary now tells whether somebody promoted it by hand, and only the view of the change is asked that."""
    monkeypatch.setattr(watcher, "ROLE_LIMIT_MS", 300)
    scene.look(0)
    scene.pool.nodes[0] |= {"status": "3"}
    scene.pool.nodes[1] |= {"role": "2", "pg_role": "primary"}
    scene.pool.slow.add(1)
    scene.place.until(lambda: bool(scene.watcher.problem))
    assert scene.watcher.view is not None and scene.watcher.view.backends[0].usable
    scene.pool.slow.clear()
    scene.place.until(lambda: scene.look().backends[0].down)
    assert [one.server_role for one in scene.watcher.view.backends] == ["", "primary"]


def test_a_change_asks_postgresql_at_once_but_never_what_is_down(scene: Scene) -> None:
    scene.look(0)
    scene.pool.asked.clear()
    scene.pool.nodes[0] |= {"status": "3", "pg_role": "unknown"}
    scene.pool.nodes[1] |= {"role": "2", "pg_role": "primary"}
    scene.pool.slow.add(0)
    scene.place.until(lambda: scene.look().backends[0].down)
    assert scene.watcher.view is not None and scene.pool.asked.count("I") == 1
    assert [one.server_role for one in scene.watcher.view.backends] == ["", "primary"]


def test_what_postgresql_says_is_asked_for_again_after_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ROLES_AGAIN_NS", 100 * NS_PER_MS)
    scene.look(0)
    scene.pool.nodes[1] |= {"pg_role": "primary"}
    scene.place.until(lambda: scene.look().backends[1].server_role == "primary")


def test_a_host_that_keeps_silent_hides_its_own_server_role_and_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgpool-II takes 10 s for such an answer: the view does not wait for it."""
    monkeypatch.setattr(watcher, "ROLE_LIMIT_MS", 200)
    scene.pool.slow.add(0)
    view = scene.look(0)
    assert [one.status for one in view.backends] == [SeenStatus.UP, SeenStatus.UP]
    assert [one.server_role for one in view.backends] == ["", "standby"]
    scene.pool.asked.clear()
    scene.look(3)
    assert "I" not in scene.pool.asked and not scene.watcher.problem


def test_a_view_is_as_old_as_its_first_question(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ROLE_LIMIT_MS", 300)
    scene.pool.slow.add(0)
    view = scene.look(0)
    assert boottime_ns() - view.at_ns >= 300 * NS_PER_MS


def test_backends_that_a_reload_adds_are_seen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "ROLES_AGAIN_NS", 100 * NS_PER_MS)
    scene.look(0)
    scene.pool.nodes.append(node("db3"))
    scene.place.until(lambda: [one.host for one in scene.look().backends] == ["db1", "db2", "db3"])


def test_an_unknown_word_is_a_problem_that_names_it(scene: Scene) -> None:
    before = scene.look(0)
    scene.pool.words[1] = "sleeping"
    scene.place.until(lambda: bool(scene.watcher.problem))
    assert scene.watcher.problem.startswith("status 'sleeping' of backend 1, expected unused, waiting, up, down")
    assert scene.watcher.view is not None and scene.watcher.view.backends == before.backends
    del scene.pool.words[1]
    scene.place.until(lambda: not scene.watcher.problem)


def stats(status: str, role: str) -> HealthStats:
    return HealthStats(
        2, "db3", 5432, status, role, "", 0, 0, 0, 0, 0, None, 0, 0, 0, None, "", "", "", ""
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "status", "quarantined"),
    [
        ("unused", SeenStatus.UNUSED, False),
        ("waiting", SeenStatus.WAITING, False),
        ("up", SeenStatus.UP, False),
        ("down", SeenStatus.DOWN, False),
        ("quarantine", SeenStatus.DOWN, True),
    ],
)
def test_the_words_of_pgpool_for_a_status(word: str, status: SeenStatus, quarantined: bool) -> None:
    one = seen_backend(stats(word, "standby"))
    assert (one.backend_id, one.status, one.quarantined) == (2, status, quarantined)


@pytest.mark.parametrize("role", list(BackendRole))
def test_the_words_of_pgpool_for_a_role(role: BackendRole) -> None:
    if role is BackendRole.UNKNOWN:
        with pytest.raises(PeerError, match="role 'unknown' of backend 2, expected main, replica, primary, standby"):
            seen_backend(stats("up", role.value))
    else:
        assert seen_backend(stats("up", role.value)).role is role
