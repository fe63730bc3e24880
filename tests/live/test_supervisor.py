"""The supervisor with real processes and stub children: titles, signals, deaths, hangs, daemon mode."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import psutil
import pytest
from tests.live import nodes
from tests.live.conftest import MakeNodes
from tests.live.nodes import Node, wait_for
from tests.live.stubs import events, stub_dir, wait_event

from pgvigil.watchdog.supervisor import exits, pidfile

pytestmark = pytest.mark.live

CHILDREN = ("watchdog main", "lifecheck", "heartbeat receiver lo", "heartbeat sender lo")


def nothing_left() -> bool:
    return not nodes.descendants()


def with_vip(node: Node) -> None:
    """Give the node a virtual IP, which stubs never raise."""
    text = node.config.read_text()
    node.config.write_text(text + '[vip]\naddresses = ["127.9.9.9/32"]\ninterface = "lo"\n')


# --- titles and readiness -------------------------------------------------------------------------------


def test_titles_and_readiness(stub_node: Node) -> None:
    outcome = stub_node.start()
    pid = stub_node.supervisor_pid()
    assert f"pgvigil started, pid {pid}" in outcome.output
    # All are ready when the command has ended, so the titles are there too, within the second that DESIGN gives.
    wait_for("the titles", lambda: len(stub_node.titles()) == 5 and "5 processes" in stub_node.titles()[0], 1)
    assert stub_node.titles() == [
        "pgvigil: supervisor (1 node, 5 processes)",
        "pgvigil: heartbeat receiver lo (stub)",
        "pgvigil: heartbeat sender lo (stub)",
        "pgvigil: lifecheck (stub)",
        "pgvigil: watchdog main (stub)",
    ]


def test_three_nodes_on_one_machine_do_not_meet(make_nodes: MakeNodes) -> None:
    three = make_nodes(3, program=(sys.executable, str(nodes.STUB)))
    for node in three:
        node.start()
    assert len({node.supervisor_pid() for node in three}) == 3
    for node in three:
        wait_for("the title", lambda node=node: "(3 nodes, 5 processes)" in node.titles()[0], 2)  # type: ignore[misc]


def test_the_supervisor_has_one_thread_and_no_zmq_context(stub_node: Node) -> None:
    stub_node.start()
    supervisor = psutil.Process(stub_node.supervisor_pid())
    assert supervisor.num_threads() == 1
    # libzmq's context owns eventfds; the supervisor has a timer, an epoll, pidfds, sockets and pipes only.
    kinds = {os.readlink(f"/proc/{supervisor.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{supervisor.pid}/fd")}
    assert not any("eventfd" in kind for kind in kinds), kinds


def test_children_inherit_only_what_they_need(stub_node: Node) -> None:
    stub_node.start()
    lock = str(stub_node.run_dir / pidfile.NAME)
    for name in CHILDREN:
        pid = stub_node.pid_of(name)
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in sorted(os.listdir(f"/proc/{pid}/fd"), key=int)]
        assert held[0] == "/dev/null"
        assert (lock in held) is (name == "watchdog main"), held
        assert "anon_inode:[pidfd]" not in held, held
        assert sum("eventpoll" in one for one in held) == 1, held
        assert sum(one.startswith("socket:") for one in held) == 1, held


@pytest.mark.parametrize(
    ("misbehaviour", "code"), [("refused", exits.FAILED), ("misconfigured", exits.CONFIGURATION), ("broken", 70)]
)
def test_a_start_that_fails_says_why(stub_node: Node, misbehaviour: str, code: int) -> None:
    (stub_dir(stub_node) / f"heartbeat receiver lo.{misbehaviour}").write_text("port 9694 is in use\nby a stranger")
    outcome = stub_node.run("start")
    assert outcome.code == code, outcome
    assert "heartbeat receiver lo cannot start" in outcome.errors
    assert r"port 9694 is in use\nby a stranger" in outcome.errors
    stub_node.wait_stopped()
    wait_for("the end of all processes", nothing_left)


def test_a_start_that_never_becomes_ready_is_given_up(stub_node: Node) -> None:
    (stub_dir(stub_node) / "lifecheck.mute").touch()
    outcome = stub_node.run("start")
    assert outcome.code == exits.TIMED_OUT, outcome
    assert "not ready after 10 s: lifecheck" in outcome.errors
    wait_for("the end of all processes", nothing_left)


def test_an_unwritable_log_is_reported_by_the_starting_command(stub_node: Node) -> None:
    text = stub_node.config.read_text()
    stub_node.config.write_text(text.replace(f"file:{stub_node.log}", f"file:{stub_node.folder}"))
    outcome = stub_node.run("start")
    assert (outcome.code, "Is a directory" in outcome.errors) == (exits.CONFIGURATION, True), outcome


# --- one supervisor at a time -----------------------------------------------------------------------------


def test_a_second_start_is_refused_and_names_the_holder(stub_node: Node) -> None:
    stub_node.start()
    pid = stub_node.supervisor_pid()
    for words in (("start",), ("start", "--foreground")):
        outcome = stub_node.run(*words)
        assert outcome.code == exits.ALREADY_RUNNING
        assert f"already running: pid {pid} holds" in outcome.errors
    assert stub_node.supervisor() == pid


def test_a_stale_pid_file_with_a_foreign_living_pid_does_not_matter(stub_node: Node) -> None:
    stub_node.run_dir.mkdir(mode=0o700)
    (stub_node.run_dir / pidfile.NAME).write_text(f"{os.getpid()}\n{pidfile.start_time_of(os.getpid())}\n")
    assert stub_node.supervisor() is None
    stub_node.start()
    assert stub_node.supervisor() not in (None, os.getpid())


def test_a_deleted_pid_file_is_made_again(stub_node: Node) -> None:
    stub_node.start()
    pid = stub_node.supervisor_pid()
    (stub_node.run_dir / pidfile.NAME).unlink()
    wait_for("the pid file", lambda: stub_node.supervisor() == pid, 3)
    assert stub_node.run("start").code == exits.ALREADY_RUNNING
    stub_node.wait_log("was deleted while pgvigil runs")


# --- signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "mode"), [(signal.SIGTERM, "smart"), (signal.SIGINT, "fast")])
def test_stop_tells_watchdog_main_first_and_ends_cleanly(stub_node: Node, number: signal.Signals, mode: str) -> None:
    stub_node.start_foreground()
    stub_node.signal(number)
    assert stub_node.foreground_code() == exits.CLEAN
    stops = [line for line in events(stub_node).splitlines() if " stop " in line]
    assert f"watchdog main {stops[0].split()[3]} stop {mode}" in stops[0], stops
    assert len({line.split()[-3] for line in stops}) == 4, stops
    assert "released" not in events(stub_node)
    assert nothing_left()


def test_a_deaf_watchdog_main_is_killed_and_its_address_released(stub_node: Node) -> None:
    with_vip(stub_node)
    (stub_dir(stub_node) / "watchdog main.deaf").touch()
    stub_node.start_foreground()
    began = time.monotonic()
    stub_node.signal(signal.SIGINT)
    assert stub_node.foreground_code() == exits.CLEAN
    assert time.monotonic() - began >= 3
    assert "released 1" in events(stub_node)
    assert nothing_left()


def test_a_second_signal_makes_the_stop_faster(stub_node: Node) -> None:
    with_vip(stub_node)
    (stub_dir(stub_node) / "watchdog main.deaf").touch()
    stub_node.start_foreground()
    began = time.monotonic()
    stub_node.signal(signal.SIGTERM)
    wait_event(stub_node, "stop smart")
    stub_node.signal(signal.SIGTERM)
    wait_event(stub_node, "stop fast")
    stub_node.signal(signal.SIGINT)
    assert stub_node.foreground_code() == exits.CLEAN
    assert time.monotonic() - began < 9  # a smart stop would wait 10 s for it
    assert "released 1" in events(stub_node)


def test_quit_kills_and_releases(stub_node: Node) -> None:
    with_vip(stub_node)
    stub_node.start_foreground()
    stub_node.signal(signal.SIGQUIT)
    assert stub_node.foreground_code() == exits.CLEAN
    assert " stop " not in events(stub_node)
    assert "released 1" in events(stub_node)
    assert nothing_left()


def test_quit_does_not_wait_for_ever_for_the_release(stub_node: Node) -> None:
    with_vip(stub_node)
    (stub_dir(stub_node) / "release.hangs").touch()
    stub_node.start_foreground()
    began = time.monotonic()
    stub_node.signal(signal.SIGQUIT)
    assert stub_node.foreground_code() == exits.CLEAN
    assert time.monotonic() - began >= 2
    assert nothing_left()


def test_usr1_reopens_the_log_everywhere(stub_node: Node) -> None:
    stub_node.start()
    rotated = stub_node.log.with_suffix(".1")
    stub_node.log.rename(rotated)
    stub_node.signal(signal.SIGUSR1)
    stub_node.wait_log("log reopened")
    wait_event(stub_node, "watchdog main .* ReopenLogsOrder")
    wait_event(stub_node, "lifecheck .* ReopenLogsOrder")


def test_usr2_hands_over_and_stays(stub_node: Node) -> None:
    stub_node.start()
    before = stub_node.processes()
    stub_node.signal(signal.SIGUSR2)
    wait_event(stub_node, "watchdog main .* HandOverOrder")
    assert stub_node.processes() == before


def test_signals_to_the_whole_group_are_for_the_supervisor_only(stub_node: Node) -> None:
    stub_node.start()
    before = stub_node.processes()
    for name in CHILDREN:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2):
            os.kill(stub_node.pid_of(name), number)
    os.kill(stub_node.pid_of("watchdog main"), signal.SIGTERM)
    time.sleep(0.1)
    assert stub_node.processes() == before


# --- deaths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_is_back_at_once(stub_node: Node, name: str) -> None:
    stub_node.start()
    others = {text: pid for text, pid in stub_node.processes().items() if not text.startswith(name)}
    pid = stub_node.pid_of(name)
    os.kill(pid, signal.SIGKILL)
    wait_for("the restart", lambda: stub_node._pid_of(name) not in (None, pid), 5)
    stub_node.wait_log(rf"{name} ended \(killed by SIGKILL\); it is started again at once")
    wait_event(stub_node, f"report .*{name}=running/1")
    assert {text: one for text, one in stub_node.processes().items() if not text.startswith(name)} == others


def test_the_second_restart_waits_and_the_third_waits_longer(stub_node: Node) -> None:
    stub_node.start()
    for times, pause in ((1, "at once"), (2, r"in \d+ ms"), (3, r"in \d+ ms")):
        pid = stub_node.pid_of("lifecheck")
        wait_event(stub_node, "lifecheck .* start", times=times)
        os.kill(pid, signal.SIGKILL)
        stub_node.wait_log(f"lifecheck ended .* {pause}", times=1 if times < 3 else 2)
        wait_event(stub_node, "lifecheck .* start", times=times + 1)
    pauses = [int(found) for found in re.findall(r"lifecheck ended .* in (\d+) ms", stub_node.log_text())]
    assert pauses == [100, 200]


def test_a_watchdog_main_that_keeps_failing_makes_the_node_give_up(stub_node: Node) -> None:
    with_vip(stub_node)
    stub_node.start_foreground()
    (stub_dir(stub_node) / "watchdog main.broken").write_text("something impossible")
    os.kill(stub_node.pid_of("watchdog main"), signal.SIGKILL)
    assert stub_node.foreground_code(30) == exits.GAVE_UP
    assert "released 1" in events(stub_node)
    assert "RuntimeError: something impossible" in stub_node.log_text()
    assert nothing_left()


def test_a_lifecheck_that_keeps_failing_is_tried_for_ever(stub_node: Node) -> None:
    stub_node.start()
    (stub_dir(stub_node) / "lifecheck.broken").write_text("no")
    os.kill(stub_node.pid_of("lifecheck"), signal.SIGKILL)
    wait_event(stub_node, "lifecheck .* start", times=7, limit_s=15)
    (stub_dir(stub_node) / "lifecheck.broken").unlink()
    wait_event(stub_node, "report .*lifecheck=running", limit_s=15)
    assert stub_node.supervisor() is not None


def test_uncaught_errors_are_one_line(stub_node: Node) -> None:
    stub_node.start()
    (stub_dir(stub_node) / "lifecheck.broken").write_text("first\nsecond")
    os.kill(stub_node.pid_of("lifecheck"), signal.SIGKILL)
    line = stub_node.wait_log("lifecheck ends with an error that was not foreseen")
    assert r"Traceback (most recent call last):\n" in line
    assert r"RuntimeError: first\nsecond" in line
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ pg01 ", one) for one in stub_node.log_text().splitlines())


# --- hangs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHILDREN)
def test_a_stopped_child_is_killed_and_replaced(make_nodes: MakeNodes, name: str) -> None:
    node = _stub(make_nodes, hang_timeout_ms=500)
    node.start()
    pid = node.pid_of(name)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    wait_for("the replacement", lambda: node._pid_of(name) not in (None, pid), 5)
    assert time.monotonic() - began >= 0.4
    node.wait_log(rf"{name} \(pid {pid}\) is killed: no sign of life for \d+ ms")


def test_nobody_is_judged_for_the_time_the_supervisor_was_away(make_nodes: MakeNodes) -> None:
    node = _stub(make_nodes, hang_timeout_ms=1000)
    node.start()
    before = node.processes()
    everybody = [node.supervisor_pid(), *before.values()]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    node.wait_log("the supervisor was away for")
    time.sleep(1.2)
    assert node.processes() == before


def test_the_address_is_released_when_watchdog_main_is_not_back_within_the_lease(stub_node: Node) -> None:
    with_vip(stub_node)
    stub_node.start()
    (stub_dir(stub_node) / "watchdog main.slow").write_text("3")
    os.kill(stub_node.pid_of("watchdog main"), signal.SIGKILL)
    died = time.monotonic()
    wait_event(stub_node, "last will .* released 1")
    assert time.monotonic() - died >= 0.9
    wait_event(stub_node, "report .*watchdog main=running/2")
    assert events(stub_node).count("released") == 1


def test_no_watchdog_main_starts_beside_the_helper_that_releases(stub_node: Node) -> None:
    with_vip(stub_node)
    stub_node.start()
    (stub_dir(stub_node) / "watchdog main.slow").write_text("1.3")
    (stub_dir(stub_node) / "release.hangs").touch()
    os.kill(stub_node.pid_of("watchdog main"), signal.SIGKILL)
    wait_event(stub_node, "last will .* released 1")
    stub_node.wait_log("releasing 127.9.9.9/32 in watchdog main's place")
    for _ in range(15):
        time.sleep(0.1)
        assert "watchdog main" not in stub_node.processes()
    wait_event(stub_node, "report .*watchdog main=running/2")


def test_a_watchdog_main_that_is_back_in_time_keeps_the_address(stub_node: Node) -> None:
    with_vip(stub_node)
    stub_node.start()
    os.kill(stub_node.pid_of("watchdog main"), signal.SIGKILL)
    wait_event(stub_node, "report .*watchdog main=running/1")
    time.sleep(1.2)
    assert "released" not in events(stub_node)


# --- the supervisor itself ----------------------------------------------------------------------------------


def test_children_die_with_the_supervisor_and_watchdog_main_by_itself(stub_node: Node) -> None:
    stub_node.start_foreground()
    stub_node.signal(signal.SIGKILL)
    wait_for("the end of all processes", nothing_left, 2)
    wait_event(stub_node, "watchdog main .* orphaned")


def test_a_daemon_comes_back_after_its_supervisor_was_killed(stub_node: Node) -> None:
    stub_node.start()
    first = stub_node.supervisor_pid()
    old = set(stub_node.processes().values())
    os.kill(first, signal.SIGKILL)
    wait_for("a new supervisor", lambda: stub_node.supervisor() not in (None, first), 5)
    stub_node.wait_log(r"started: 5 processes are ready", times=2)
    assert not old & set(stub_node.processes().values())
    second = stub_node.supervisor_pid()
    os.kill(second, signal.SIGKILL)
    wait_for("a third supervisor", lambda: stub_node.supervisor() not in (None, first, second), 5)
    stub_node.wait_log(r"starting this node again \(time 2\)")
    stub_node.wait_log(r"started: 5 processes are ready", times=3)
    stub_node.signal(signal.SIGTERM)
    wait_for("the end of all processes", nothing_left)


def test_a_new_start_is_refused_while_an_orphaned_watchdog_main_hands_over(stub_node: Node) -> None:
    stub_node.start()
    main = stub_node.pid_of("watchdog main")
    os.kill(main, signal.SIGSTOP)
    os.kill(stub_node.supervisor_pid(), signal.SIGKILL)
    wait_for("the death of the supervisor", lambda: stub_node.supervisor() is None)
    outcome = stub_node.run("start")
    assert outcome.code == exits.ALREADY_RUNNING
    assert "handing over" in outcome.errors
    os.kill(main, signal.SIGCONT)
    stub_node.wait_log(r"started: 5 processes are ready", times=2)


def test_a_daemon_that_cannot_come_back_says_why(stub_node: Node) -> None:
    stub_node.start()
    text = stub_node.config.read_text()
    stub_node.config.write_text(text.replace("hang_timeout_ms", "hang_timeout"))
    os.kill(stub_node.supervisor_pid(), signal.SIGKILL)
    stub_node.wait_log(r"\[process\] hang_timeout = 2000: unknown key")
    wait_for("the end of all processes", nothing_left)


def test_a_revived_node_waits_for_what_it_needs(stub_node: Node) -> None:
    stub_node.start()
    refused = stub_dir(stub_node) / "heartbeat sender lo.refused"
    refused.write_text("the address is not there yet")
    os.kill(stub_node.supervisor_pid(), signal.SIGKILL)
    # With an operator waiting, three failures would have ended the start.
    wait_event(stub_node, "heartbeat sender lo .* start", times=6)
    refused.unlink()
    stub_node.wait_log("started: 5 processes are ready", times=2)


# --- with the real children ---------------------------------------------------------------------------------


def test_three_real_nodes_live_through_the_death_of_every_process(make_nodes: MakeNodes) -> None:
    three = make_nodes(3)
    for node in three:
        node.start()
    first = three[0]
    wait_for("the title of watchdog main", lambda: any("quorum 3/3" in one for one in first.titles()))
    titles = first.titles()
    assert titles[0] == "pgvigil: supervisor (3 nodes, 5 processes)"
    assert titles[1].startswith("pgvigil: heartbeat receiver lo:")
    assert titles[2] == "pgvigil: heartbeat sender lo -> pg02,pg03"
    assert titles[3].startswith("pgvigil: lifecheck (2/2 peers alive, pgpool ")
    assert titles[4].startswith("pgvigil: watchdog main (")
    for name in CHILDREN:
        pid = first.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"a new {name}", lambda name=name, pid=pid: first._pid_of(name) not in (None, pid), 2)  # type: ignore[misc]
    supervisor = first.supervisor_pid()
    os.kill(supervisor, signal.SIGKILL)
    wait_for("a new supervisor", lambda: first.supervisor() not in (None, supervisor), 10)
    first.wait_log("started: 5 processes are ready", times=2)
    wait_for("the quorum", lambda: any("quorum 3/3" in one for one in first.titles()))
    for node in three:
        node.signal(signal.SIGTERM)
    wait_for("the end of all processes", nothing_left)


def _stub(make_nodes: MakeNodes, hang_timeout_ms: int) -> Node:
    return make_nodes(1, program=(sys.executable, str(nodes.STUB)), hang_timeout_ms=hang_timeout_ms)[0]
