"""The whole hand on a pgpool-II: a fake one behind a real socket, a core that only agrees."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.pools.bench import DOWN, PRIMARY, STANDBY, UP, document
from tests.unit.pools.loops import FakePool, Ground, fake_pool, ground, node
from tests.unit.watchdog.peers_lab import settings

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.loop import Loop
from pgvigil.watchdog.core import events
from pgvigil.watchdog.core.messages import SeenStatus
from pgvigil.watchdog.core.record import Backend, BackendRole, BackendStatus, DecisionKind, Document
from pgvigil.watchdog.pools import classify, driver, reconcile, watcher
from pgvigil.watchdog.pools.classify import Classifier
from pgvigil.watchdog.pools.driver import FIRST_REQUEST, Pools
from pgvigil.watchdog.pools.link import Answer
from pgvigil.watchdog.pools.opening import Unwatched, open_pools, wanted
from pgvigil.watchdog.pools.view import PoolBackend, View
from pgvigil.watchdog.settings import PgpoolSettings, Settings


@dataclass
class Agreeing:
    """A core whose document is what the test says."""

    document: Document | None = None

    @property
    def agreed(self) -> Document | None:
        return self.document

    def agreed_at(self, now_ns: int) -> Document | None:
        return self.document


@dataclass
class Scene:
    """One node's hand on the fake."""

    place: Ground
    pool: FakePool
    pools: Pools
    core: Agreeing
    heard: list[events.Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def seen(self) -> events.BackendsSeen | None:
        return next((one for one in reversed(self.heard) if isinstance(one, events.BackendsSeen)), None)

    def asks(self) -> list[events.AskDecision]:
        return [one for one in self.heard if isinstance(one, events.AskDecision)]

    def obstacles(self) -> list[str]:
        return [one.reason for one in self.heard if isinstance(one, events.Obstacle)]

    def agree(self, *backends: Backend) -> None:
        self.core.document = document(*backends)
        self.pools.look()

    def until(self, happened: Callable[[], bool]) -> None:
        self.place.until(happened)

    def statuses(self) -> list[str]:
        seen = self.seen()
        return [] if seen is None else [one.status.value for one in seen.backends]


class Servers:
    """Two PostgreSQLs that answer, as far as a probe can tell: the kernel takes the connection, `answer` the rest."""

    def __init__(self, place: Ground) -> None:
        self._place = place
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = int(self.listener.getsockname()[1])
        self.silent = False
        place.loop.watch(self.listener.fileno(), self._accept)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            if not self.silent:
                connection.sendall(b"R\0\0\0\x08\0\0\0\0")

    def close(self) -> None:
        self._place.loop.unwatch(self.listener.fileno())
        self.listener.close()


def settings_for(pool: FakePool, host: str, port: int, password_file: str, user: str = "pgpool") -> Settings:
    made = settings(1, 1, 1)
    own = replace(made.nodes[0], pgpool_host=host, pcp_port=port)
    return replace(made, nodes=(own,), pgpool=PgpoolSettings(user, password_file, str(pool.pid_file)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a tenth of the time."""
    looks = ((watcher, "USUAL_NS"), (watcher, "SOON_NS"), (watcher, "ROLES_AGAIN_NS"))
    for module, name in (*looks, (driver, "STEP_NS"), (reconcile, "SETTLE_NS")):
        monkeypatch.setattr(module, name, 100 * NS_PER_MS)
    monkeypatch.setattr(reconcile, "WRONG_PRIMARY_NS", 300 * NS_PER_MS)


@pytest.fixture
def servers(place: Ground) -> Iterator[Servers]:
    made = Servers(place)
    yield made
    made.close()


@contextmanager
def running(place: Ground, servers: Servers) -> Iterator[Scene]:
    first = node("127.0.0.1", servers.port, role="2", pg_role="primary")
    with fake_pool(place.folder, first, node("127.0.0.1", servers.port)) as (pool, host, port):
        scene_events: list[events.Event] = []
        notes: list[str] = []
        core = Agreeing()
        made = settings_for(pool, host, port, str(place.password_file))
        pools = Pools(made, place.loop, core, scene_events.append, lambda _, text: notes.append(text))
        scene = Scene(place, pool, pools, core, scene_events, notes)
        try:
            yield scene
        finally:
            pools.close()


@pytest.fixture
def scene(place: Ground, servers: Servers) -> Iterator[Scene]:
    with running(place, servers) as made:
        yield made


def backend(
    scene: Scene, backend_id: int, status: BackendStatus = UP, role: BackendRole = STANDBY, decision: int = 1
) -> Backend:
    port = int(scene.pool.nodes[backend_id]["port"])
    return Backend(backend_id, "127.0.0.1", port, status, role, "", decision)


def test_what_pgpool_has_goes_to_the_core_and_each_change_of_it(scene: Scene) -> None:
    scene.until(lambda: scene.statuses() == ["up", "up"])
    seen = scene.seen()
    assert seen is not None and not seen.problem and [one.role for one in seen.backends] == [PRIMARY, STANDBY]
    scene.pool.nodes[1]["status"] = "3"
    scene.until(lambda: scene.statuses() == ["up", "down"])
    assert scene.pool.orders == [] and scene.asks() == []


def test_agreed_down_is_imposed_and_written_down_once(scene: Scene) -> None:
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, DOWN, decision=2))
    scene.until(lambda: scene.statuses() == ["up", "down"])
    assert scene.pool.orders == [("D", "1")]
    told = [text for text in scene.notes if text.startswith("told its pgpool-II to detach backend 1: agreed down")]
    assert len(told) == 1
    scene.until(lambda: scene.obstacles()[-1:] == [""])
    assert any("backend 1 is up there, agreed down" in text for text in scene.obstacles())


def test_agreed_up_is_imposed_only_while_postgresql_answers(scene: Scene, servers: Servers) -> None:
    servers.silent = True
    scene.pool.nodes[1]["status"] = "3"
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, decision=4))

    def votes() -> bool:
        seen = scene.seen()
        return seen is not None and [one.failed for one in seen.backends] == [False, True]

    scene.until(votes)
    assert scene.pool.orders == []
    servers.silent = False
    scene.until(lambda: scene.pool.orders == [("C", "1")])
    scene.until(lambda: not votes())


def test_what_is_agreed_no_more_when_it_would_leave_is_not_ordered(scene: Scene) -> None:
    """P21: the promise to the leader may end between the wish and the login."""
    scene.until(lambda: scene.statuses() == ["up", "up"])
    known: list[Document | None] = []

    def agreed_at(now_ns: int) -> Document | None:
        known.append(scene.core.document)
        return None if scene.pools._ordering else scene.core.document

    scene.core.agreed_at = agreed_at  # type: ignore[method-assign]
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, DOWN, decision=2))
    scene.until(lambda: any("not wanted any more" in text for text in scene.notes))
    assert scene.pool.orders == []


def test_an_attach_by_hand_is_asked_for_and_its_answer_is_taken(scene: Scene) -> None:
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, DOWN, decision=2))
    scene.until(lambda: scene.statuses() == ["up", "down"])
    scene.pool.nodes[1]["status"] = "1"
    scene.until(lambda: bool(scene.asks()))
    (ask,) = scene.asks()
    assert (ask.kind, ask.backend_id, ask.operator) == (DecisionKind.UP, 1, True)
    assert ask.reason == "attached by hand on pg01" and ask.request_id > FIRST_REQUEST
    assert not scene.pools.answer(events.Answer(7, True, True, "of somebody else"))
    assert scene.pools.answer(events.Answer(ask.request_id, False, False, "waits"))
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, UP, decision=3))
    assert scene.pools.answer(events.Answer(ask.request_id, True, True, "decision 3"))
    assert any("is agreed on: decision 3" in text for text in scene.notes)
    assert scene.pool.orders == [("D", "1")]


def wrong_primary(scene: Scene) -> None:
    scene.pool.nodes[0] |= {"pg_role": "standby"}
    scene.pool.nodes[1] |= {"pg_role": "primary"}
    scene.agree(backend(scene, 0), backend(scene, 1, role=PRIMARY))


def test_the_agreed_primary_is_promoted(scene: Scene) -> None:
    wrong_primary(scene)
    scene.until(lambda: any("told its pgpool-II to promote backend 1" in text for text in scene.notes))
    assert scene.pool.orders == [("J", "1")]


def test_a_promotion_that_pgpool_would_only_pretend_is_not_ordered(scene: Scene) -> None:
    scene.pool.on_look[1] = {"status": "3"}
    wrong_primary(scene)
    scene.until(lambda: any("could not tell its pgpool-II to promote" in text for text in scene.notes))
    assert any("backend 1 is down, expected it up or waiting" in text for text in scene.notes)
    assert "J" not in [letter for letter, _ in scene.pool.orders]


def test_a_pgpool_that_does_not_answer_is_a_problem_with_its_last_known_state(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "STALE_NS", NS_PER_S)
    scene.until(lambda: scene.statuses() == ["up", "up"])
    scene.pool.deaf = True

    def problem() -> str:
        seen = scene.seen()
        return "" if seen is None else seen.problem

    scene.until(lambda: "expected the salt of the login" in problem())
    assert scene.statuses() == ["up", "up"]
    own = scene.pools.own()
    assert problem() in own.trouble and own.age_ms >= 1000
    scene.pool.deaf = False
    scene.until(lambda: not problem())


def test_a_restart_of_pgpool_makes_what_was_seen_worthless(scene: Scene) -> None:
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1))
    scene.until(lambda: scene.statuses() == ["up", "up"] and scene.obstacles()[-1:] == [""])
    scene.pool.deaf = True
    scene.pool.pid_file.write_text(str(os.getppid()), encoding="ascii")
    scene.until(lambda: scene.statuses() == [])
    assert scene.obstacles()[-1] == "its pgpool-II has not said yet which backends are up there"
    scene.pool.deaf = False
    scene.until(lambda: scene.obstacles()[-1] == "")


def test_a_call_keeps_orders_away_until_a_while_after_it(scene: Scene) -> None:
    scene.until(lambda: scene.statuses() == ["up", "up"])
    scene.pools.call_started(DecisionKind.DOWN, 1)
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, DOWN, decision=2))
    ended_ns = boottime_ns() + NS_PER_S
    scene.until(lambda: boottime_ns() > ended_ns)
    assert scene.pool.orders == []
    scene.pools.call_ended(DecisionKind.DOWN, 1)
    scene.until(lambda: scene.pool.orders == [("D", "1")])


# --- by hand, or failed? ----------------------------------------------------------------------------------------------


def test_the_counts_of_many_backends_keep_nobody_else_from_asking(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as pgpool-II takes, which is more than the queue does."""
    monkeypatch.setattr(scene.pools.link, "ask", lambda *words: asked.append(words))
    asked: list[tuple[Any, ...]] = []
    counter = Classifier(scene.pools.link, scene.pools._prober, boottime_ns)
    backends = [PoolBackend(number, "db", 5432, SeenStatus.UP, BackendRole.STANDBY) for number in range(64)]
    counter.count(View(1, None, tuple(backends)), boottime_ns())
    for number in range(64):
        assert len(asked) == number + 1  # the next one follows the answer
        counter.count(View(1, None, tuple(backends)), boottime_ns() + 2 * classify.COUNT_AGAIN_NS)
        assert len(asked) == number + 1  # no second round beside this one
        asked[-1][1](Answer(None, "no answer") if number == 3 else Answer(SimpleNamespace(fail=7)))
    assert len(asked) == 64 and set(counter._counts) == set(range(64)) - {3}
    counter.count(View(1, None, tuple(backends)), boottime_ns() + 2 * classify.COUNT_AGAIN_NS)
    assert len(asked) == 65


def classified(scene: Scene) -> tuple[bool, str]:
    known: list[tuple[bool, str]] = []
    scene.pools.classify(1, lambda by_hand, why: known.append((by_hand, why)))
    scene.until(lambda: bool(known))
    return known[0]


@pytest.fixture
def counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Its failed checks were counted, long enough ago."""
    monkeypatch.setattr(classify, "OLD_ENOUGH_NS", 0)
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1))
    scene.until(lambda: len(scene.pools._classifier._counts) == 2)
    scene.pool.nodes[1]["status"] = "3"
    return scene


def test_what_nothing_else_can_have_detached_was_detached_by_hand(counted: Scene) -> None:
    assert classified(counted) == (True, "detached by hand on pg01")


@pytest.mark.parametrize("name", classify.OTHER_CAUSES)
def test_a_setting_by_which_pgpool_detaches_by_itself_makes_it_a_failure(name: str, counted: Scene) -> None:
    counted.pool.settings[name] = "1"
    by_hand, why = classified(counted)
    assert not by_hand and name in why


def test_what_pgpool_does_not_list_it_may_do(counted: Scene) -> None:
    del counted.pool.settings["failover_on_backend_shutdown"]
    by_hand, why = classified(counted)
    assert not by_hand and "failover_on_backend_shutdown" in why


def test_a_failed_health_check_makes_it_a_failure(counted: Scene) -> None:
    counted.pool.failed[1] = 1
    by_hand, why = classified(counted)
    assert not by_hand and "health check has failed" in why


def test_a_server_that_does_not_answer_has_failed(counted: Scene, servers: Servers) -> None:
    servers.silent = True
    by_hand, why = classified(counted)
    assert not by_hand and "PostgreSQL" in why


def test_what_was_not_counted_before_the_call_is_a_failure(scene: Scene) -> None:
    scene.until(lambda: scene.statuses() == ["up", "up"])
    by_hand, why = classified(scene)
    assert not by_hand and "not been watched for long enough" in why


def test_what_pgvigil_detached_itself_is_no_word_of_a_person(counted: Scene) -> None:
    counted.agree(backend(counted, 0, role=PRIMARY), backend(counted, 1, DOWN, decision=2))
    assert "agreed down already, by decision 2" in classified(counted)[1]
    counted.pool.nodes[1]["status"] = "2"
    counted.until(lambda: counted.pool.orders == [("D", "1")])
    assert "pgvigil itself" in classified(counted)[1]


def test_an_order_that_is_carried_out_late_is_not_taken_for_a_wish(scene: Scene) -> None:
    """pgpool-II takes orders at once; what it calls when it gets to them must not undo what was decided since."""
    scene.pool.obeys = False
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, DOWN, decision=2))
    scene.until(lambda: scene.pool.orders == [("D", "1")])
    assert not scene.pools.outdated(DecisionKind.DOWN, 1)  # agreed: the call waits for what comes of it
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1, UP, decision=3))
    assert scene.pools.outdated(DecisionKind.DOWN, 1)
    assert not scene.pools.outdated(DecisionKind.UP, 1) and not scene.pools.outdated(DecisionKind.FOLLOW, 1)
    assert not scene.pools.outdated(DecisionKind.DOWN, 0) and not scene.pools.outdated(DecisionKind.DOWN, 9)


def test_whether_a_backend_is_still_down_is_told_with_the_first_view(scene: Scene) -> None:
    known: list[bool] = []
    scene.pool.nodes[1]["status"] = "3"
    for backend_id in (0, 1, 9):
        scene.pools.still_down(backend_id, lambda down, why: known.append(down))
    assert known == []
    scene.until(lambda: len(known) == 3)
    assert known == [False, True, False]


def test_what_is_not_seen_for_long_is_not_repeated(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SEEN_LIMIT_NS", 0)
    known: list[tuple[bool, str]] = []
    scene.pool.deaf = True
    scene.pools.still_down(1, lambda down, why: known.append((down, why)))
    scene.until(lambda: bool(known))
    assert known[0][0] is False and "watchdog main was restarted meanwhile" in known[0][1]


def cut_off(scene: Scene, backend_id: int = 1) -> bool:
    known: list[bool] = []
    scene.pools.cut_off(backend_id, lambda gone, why: known.append(gone))
    scene.until(lambda: bool(known))
    return known[0]


def test_a_report_from_when_this_node_was_cut_off_ends_where_the_backend_answers(
    scene: Scene, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.until(lambda: scene.statuses() == ["up", "up"])
    assert not cut_off(scene)  # nothing is agreed yet: the core waits for a leader
    scene.agree(backend(scene, 0, role=PRIMARY), backend(scene, 1))
    assert cut_off(scene) and not cut_off(scene, 9)
    servers.silent = True
    assert not cut_off(scene)  # a real failure goes the usual way
    servers.silent = False
    monkeypatch.setattr(driver, "CUT_OFF_NS", 0)
    assert not cut_off(scene)  # and so does each report once it has been led for a while


def test_a_backend_that_nobody_knows_has_failed(scene: Scene) -> None:
    known: list[tuple[bool, str]] = []
    scene.pools.classify(9, lambda by_hand, why: known.append((by_hand, why)))
    assert known[0][0] is False


# --- what is not wanted costs nothing ---------------------------------------------------------------------------------


def test_without_user_and_password_nothing_is_watched() -> None:
    made = settings(1, 1, 1)
    for pgpool in (PgpoolSettings(), PgpoolSettings("pgpool"), PgpoolSettings("", "/x")):
        assert not wanted(replace(made, pgpool=pgpool))
    known: list[tuple[bool, str]] = []
    loop = Loop()
    pools = open_pools(made, loop, Agreeing(), lambda _: None, lambda _, __: None)
    assert isinstance(pools, Unwatched) and pools.own() is None and not pools.answer(events.Answer(1, True, True, ""))
    pools.look()
    pools.call_started(DecisionKind.DOWN, 1)
    pools.call_ended(DecisionKind.DOWN, 1)
    pools.classify(1, lambda by_hand, why: known.append((by_hand, why)))
    pools.still_down(1, lambda down, why: known.append((down, why)))
    pools.cut_off(1, lambda gone, why: known.append((gone, why)))
    assert [told for told, _ in known] == [False, False, False] and all("pcp_user" in why for _, why in known)
    pools.close()
    loop.close()


def test_a_witness_without_a_pgpool_watches_nothing() -> None:
    made = settings(1, 1, 1)
    told = replace(made, pgpool=PgpoolSettings("pgpool", "/x", "/y"))
    assert wanted(told)
    witness = replace(made.nodes[0], witness=True)
    assert not wanted(replace(told, nodes=(witness,)))
