"""What lifecheck makes of its verdicts for pgpool-II's own watchdog, and of reports for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pgvigil.ipc import frames
from pgvigil.ipc.frames import Beat, Check, Health, Heard, HeardTogether, OutsideReport, OutsideReports, Role
from pgvigil.lifecheck.core.informing import Wish
from pgvigil.lifecheck.core.judge import Judge, Told
from pgvigil.lifecheck.core.own import OwnVerdict
from pgvigil.lifecheck.core.path import Fixed
from pgvigil.lifecheck.outside import Outside
from pgvigil.lifecheck.probes.pgpool_watchdog import PgpoolWatchdogProbe
from pgvigil.lifecheck.probes.reading import Probe, Reading
from pgvigil.lifecheck.settings import LifecheckPeer, LifecheckSettings, PgpoolWatchdogSettings

S = 1_000_000_000
BEAT = Beat(Role.STANDBY, 1, True, Health.ALIVE, 1, 1, (), 0)
BESIDE = PgpoolWatchdogSettings("/nonexistent/.s.PGPOOLWD_CMD.9000", "/nonexistent/pgpool.pid", "", ())
RUNS = Check("process", Health.ALIVE, 0, "runs")
ENDED = Check("process", Health.DEAD, 0, "has ended")


class Desk:
    """Node 1 beside node 2, and what pgpool-II's watchdog would be wished to believe."""

    def __init__(self, *methods: str, beside: bool = True) -> None:
        peers = (LifecheckPeer(2, "pg02"),)
        settings = LifecheckSettings(1, peers, ("eth0",), methods or ("heartbeat", "process"), 200, 1000, "/p", "/r")
        settings = replace(settings, pgpool_watchdog=BESIDE if beside else None)
        self.judge = Judge({2: "pg02"}, ("eth0",), settings.methods, Fixed(S), S // 5, 0)
        self.probes: list[Probe] = []
        self.wishes: dict[int, Wish] = {}
        self.outside = Outside(settings, self.judge, self.probes, Nobody(), self.on_change, lambda: None, 0)
        for probe in self.probes:
            if isinstance(probe, PgpoolWatchdogProbe):
                probe.wish = lambda wishes, now_ns: self.wishes.update(wishes)  # type: ignore[method-assign]

    def on_change(self, method: str) -> Callable[[Reading], None]:
        return lambda reading: None

    def hear(self, beat: Beat = BEAT, at_ns: int = S // 2) -> None:
        self.judge.step(at_ns, HeardTogether((Heard(2, 0, at_ns, beat),)))

    def inform(self, *checks: Check, health: Health = Health.ALIVE, at_ns: int = S // 2) -> dict[int, Wish]:
        self.outside.inform(OwnVerdict(health, 0, "words"), checks, at_ns)
        return self.wishes


class Nobody:
    """A loop without descriptors."""

    def watch(self, source: object, on_readable: Callable[[], None]) -> None: ...
    def unwatch(self, source: object) -> None: ...


def test_without_need_there_is_nothing() -> None:
    desk = Desk(beside=False)
    desk.inform(ENDED, health=Health.DEAD)
    assert (desk.probes, desk.wishes, desk.outside.frames(S)) == ([], {}, ())


def test_a_peer_is_alive_only_with_its_pgpool_and_dead_only_if_silent() -> None:
    desk = Desk()
    assert desk.inform()[2].health is Health.UNKNOWN
    desk.hear()
    assert desk.inform()[2] == Wish(Health.ALIVE, "pg02 is alive: heard on eth0", certain=False)
    desk.hear(replace(BEAT, pgpool=Health.DEAD), S)
    assert desk.inform()[2].health is Health.UNKNOWN, "its own lifecheck tells its own watchdog"
    desk.judge.step(2 * S, HeardTogether((), 0, 2 * S))
    assert desk.inform(at_ns=2 * S)[2] == Wish(Health.DEAD, "pg02 is dead: silent on eth0 for 1000 ms", certain=False)


def test_a_report_of_dead_is_certain() -> None:
    desk = Desk()
    desk.hear()
    report = OutsideReport(2, Health.DEAD, "fire", "ops", S // 2, 9 * S)
    assert desk.outside.take(OutsideReports((report,)), S)
    desk.hear(at_ns=S)
    assert desk.inform(at_ns=S)[2] == Wish(Health.DEAD, "pg02 is dead: reported dead by ops: fire", certain=True)
    assert desk.outside.frames(S)[0] == OutsideReports((report,))
    assert isinstance(desk.outside.frames(S)[1], frames.PgpoolWatchdog)
    assert not desk.outside.take(OutsideReports((report,)), S)


def test_alone_a_report_of_alive_needs_no_heartbeat() -> None:
    desk = Desk("external")
    desk.outside.take(OutsideReports((OutsideReport(2, Health.ALIVE, "", "ops", S // 2, 9 * S),)), S)
    desk.judge.step(S, Told())
    assert desk.inform(at_ns=S)[2].health is Health.ALIVE


@pytest.mark.parametrize(
    ("checks", "certain"),
    [
        ((ENDED,), True),
        ((RUNS, Check("query", Health.DEAD, 0, "timed out")), False),
        ((RUNS, Check("peers", Health.DEAD, 0, "2 of 2")), False),
        ((RUNS, Check("external", Health.DEAD, 0, "reported")), True),
    ],
)
def test_the_own_death_is_certain_by_process_and_report_only(checks: tuple[Check, ...], certain: bool) -> None:
    desk = Desk()
    desk.inform(RUNS)
    wish = desk.inform(*checks, health=Health.DEAD)[1]
    assert (wish.health, wish.certain) == (Health.DEAD, certain)


def test_a_pgpool_that_was_never_seen_alive_is_not_called_dead_but_by_a_report() -> None:
    desk = Desk()
    assert desk.inform(ENDED, health=Health.DEAD)[1].health is Health.UNKNOWN
    reported = Check("external", Health.DEAD, 0, "reported")
    assert desk.inform(ENDED, reported, health=Health.DEAD)[1].health is Health.DEAD
