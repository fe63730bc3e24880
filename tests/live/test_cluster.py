"""Three real nodes: what operators see and order, and the death of every process, one at a time and all at once."""

from __future__ import annotations

import json
import os
import re
import signal

import psutil
import pytest
from tests.live.clusters import HANG_TIMEOUT_MS, KINDS, Cluster, Member, Status, leadership_stays, observe
from tests.live.conftest import MakeCluster
from tests.live.nodes import title, wait_for

from pgvigil.ipc.clock import NS_PER_MS

pytestmark = pytest.mark.live

LEASE_MS = 1000


def row_of(status: Status, name: str) -> dict[str, object]:
    """One process in a status."""
    return next((row for row in status["processes"] if row["name"].startswith(name)), {})


def peer_of(status: Status, member: Member) -> dict[str, object]:
    """One node in a status."""
    found: dict[str, object] = next(row for row in status["nodes"] if row["id"] == member.node_id)
    return found


def leads_one_of(members: list[Member]) -> bool:
    """Whether one of them leads, by its own word."""
    return any(member.status().get("state") == "leader" for member in members)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def expected_titles(member: Member, cluster: Cluster, doing: str, term: int) -> list[str]:
    """DESIGN section 1, for a cluster that is whole."""
    others = ",".join(other.label for other in cluster.members if other is not member)
    return [
        "pgvigil: supervisor (3 nodes, 5 processes)",
        f"pgvigil: heartbeat receiver lo:{member.beat_port}",
        f"pgvigil: heartbeat sender lo -> {others}",
        "pgvigil: lifecheck (2/2 peers alive, pgpool alive)",
        f"pgvigil: watchdog main ({doing}, term {term}, quorum 3/3, vip none)",
    ]


# --- what operators see ----------------------------------------------------------------------------------


def test_a_cold_start_gives_one_leader_whom_all_know(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.settle()
    assert leader.node_id == 1  # of equals the lowest id stands first
    assert [status["state"] for status in cluster.statuses()] == ["leader", "standby", "standby"]
    assert {status["term"] for status in cluster.statuses()} == {1}


def test_titles_are_those_of_the_design_and_follow_within_a_second(cluster: Cluster) -> None:
    leader = cluster.leader()
    standby, other = cluster.standbys()
    term = leader.status()["term"]
    for member in cluster.members:
        wanted = expected_titles(member, cluster, "leader" if member is leader else "standby", term)
        wait_for(f"the titles of {member.label}", lambda: member.titles() == wanted, 1)  # noqa: B023
    standby.kill_pgpool()
    standby.wait_log("pgpool is dead")
    lifecheck = psutil.Process(standby.pid_of("lifecheck"))
    wait_for("the title", lambda: title(lifecheck) == "pgvigil: lifecheck (2/2 peers alive, pgpool dead)", 1)
    standby.start_pgpool()
    wait_for("the title", lambda: title(lifecheck) == "pgvigil: lifecheck (2/2 peers alive, pgpool alive)", 2)
    other.signal(signal.SIGTERM)
    leader.wait_status("a dead node", lambda status: status["quorum"]["have"] == 2)
    main = psutil.Process(leader.pid_of("watchdog main"))
    wait_for("the title", lambda: title(main).endswith(f"(leader, term {term}, quorum 2/3, vip none)"), 1)


def test_status_is_the_same_story_on_every_node(cluster: Cluster) -> None:
    leader = cluster.leader()
    stories = []
    for member in cluster.members:
        outcome = member.run("status", "--json")
        assert (outcome.code, outcome.errors) == (0, "")
        status = json.loads(outcome.output)
        assert status["running"] is True
        assert status["supervisor_pid"] == member.supervisor_pid()
        assert {row["name"]: row["pid"] for row in status["processes"][1:]}.keys() == {
            "heartbeat receiver lo", "heartbeat sender lo", "lifecheck", "watchdog main"
        }  # fmt: skip
        stories.append(
            (
                status["leader_id"], status["term"], status["quorum"], status["document"]["version"],
                [(row["id"], row["role"], row["term"], row["health"], row["pgpool"]) for row in status["nodes"]],
            )
        )  # fmt: skip
    assert stories[0] == stories[1] == stories[2]
    assert stories[0][0] == leader.node_id
    page = leader.run("status")
    assert page.code == 0
    assert re.search(rf"^leader +{leader.label} \({leader.node_id}\)$", page.output, re.MULTILINE)
    assert "INSECURE" not in page.output


# --- orders --------------------------------------------------------------------------------------------


def test_a_switchover_from_a_standby_to_a_named_node(cluster: Cluster) -> None:
    leader = cluster.leader()
    term = leader.status()["term"]
    asked, wanted = cluster.standbys()
    outcome = asked.run("switchover", wanted.label)
    assert outcome.code == 0, outcome
    wanted.wait_status("its lead", lambda status: status["state"] == "leader")
    assert cluster.settle() is wanted
    assert wanted.status()["term"] > term


def test_a_switchover_without_a_name_on_the_leader(cluster: Cluster) -> None:
    leader = cluster.leader()
    outcome = leader.run("switchover")
    assert outcome.code == 0, outcome
    assert cluster.settle() is not leader


def test_a_switchover_that_cannot_be_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        standby = cluster.standbys()[0]
        outcome = standby.run("switchover", "pg99")
        assert outcome.code == 1
        assert "no node 'pg99', expected one of 1 (pg01), 2 (pg02), 3 (pg03)" in outcome.errors
        outcome = standby.run("switchover", leader.label)
        assert (outcome.code, f"{leader.label} is the leader already" in outcome.output) == (0, True), outcome
        standby.kill_pgpool()
        # Said at once, not with the next of the words that are repeated once a second.
        leader.wait_status("the dead pgpool", lambda status: peer_of(status, standby)["pgpool"] == "dead", 0.5)
        outcome = leader.run("switchover", standby.label)
        assert outcome.code == 1, outcome
        assert standby.label in outcome.errors


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_stop_of_the_leader_leaves_nothing_but_another_leader(cluster: Cluster, mode: str) -> None:
    leader, others = cluster.leader(), cluster.standbys()
    outcome = leader.run("stop", "-m", mode)
    assert outcome.code == 0, outcome
    assert f"({mode})" in outcome.output
    assert leader.everything() == []
    limit_s = 5 if mode != "smart" else 1
    wait_for("a new leader", lambda: leads_one_of(others), limit_s)
    outcome = leader.run("status")
    assert (outcome.code, "does not run here" in outcome.output) == (3, True), outcome
    assert leader.run("stop").code == 3


def test_usr1_writes_the_status_and_reopens_the_log(cluster: Cluster) -> None:
    member = cluster.leader()
    old = member.log.with_suffix(".1")
    member.log.rename(old)
    member.signal(signal.SIGUSR1)
    line = member.wait_log(r"watchdog main\[\d+\] INFO status: ")
    status = json.loads(line.partition("status: ")[2])
    assert status["leader_id"] == member.node_id
    assert len(status["processes"]) == 5
    pids = [member.supervisor_pid(), *member.children().values()]
    for pid in pids:
        process = psutil.Process(pid)
        wait_for("the new log", lambda process=process: str(old) not in {one.path for one in process.open_files()}, 2)  # type: ignore[misc]


def test_usr2_hands_over_and_the_node_stays(cluster: Cluster) -> None:
    leader = cluster.leader()
    before = leader.children()
    mark = leader.mark()
    leader.signal(signal.SIGUSR2)
    leader.wait_since(mark, "handed over: gate closed")
    assert cluster.settle() is not leader
    assert leader.children() == before
    assert "hand-over by signal: " in leader.since(mark)


def test_a_good_reload_applies_and_keeps_the_leader(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        sender, main = leader.pid_of("heartbeat sender"), leader.pid_of("watchdog main")
        leader.write_config(leader.text + "\n[heartbeat]\ninterval_ms = 150\n")
        outcome = leader.run("reload")
        assert outcome.code == 0, outcome
        assert "configuration reloaded" in outcome.output
        leader.wait_status("a new sender", lambda status: row_of(status, "heartbeat sender").get("pid") != sender)
        assert leader.pid_of("watchdog main") != main
        leader.write_config(leader.text)
        assert leader.run("reload").code == 0
        cluster.settle()


def test_a_bad_reload_changes_nothing_and_says_why(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        before, mark = leader.children(), leader.mark()
        leader.write_config(leader.text.replace("hang_timeout_ms", "hang_timeout"))
        outcome = leader.run("reload")
        assert outcome.code == 1, outcome
        assert "hang_timeout" in outcome.errors
        assert "nothing was changed" in outcome.errors
        leader.wait_since(mark, "ERROR reload refused, nothing changes.*hang_timeout")
        mark = leader.mark()
        leader.write_config('[cluster\nname = "live"')
        leader.signal(signal.SIGHUP)
        leader.wait_since(mark, "ERROR reload refused, nothing changes")
        leader.write_config(leader.text.replace('name = "live"', 'name = "other"'))
        outcome = leader.run("reload")
        assert outcome.code == 1, outcome
        assert "cluster.name cannot change" in outcome.errors
        assert leader.children() == before


# --- processes that die ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["leader", "standby"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_is_back_and_the_leader_stays(cluster: Cluster, kind: str, role: str) -> None:
    with leadership_stays(cluster):
        member = cluster.by_role(role)
        before = member.row(kind)
        os.kill(int(before["pid"]), signal.SIGKILL)
        status = member.wait_status(f"a new {kind}", lambda status: _is_new(row_of(status, kind), before))
        assert row_of(status, kind)["last_exit"] == "killed by SIGKILL"
        assert row_of(status, "supervisor")["restarts"] == 0
        cluster.settle()


def _is_new(row: dict[str, object], before: dict[str, object]) -> bool:
    return (
        row.get("state") == "running"
        and row["pid"] != before["pid"]
        and row["restarts"] == int(str(before["restarts"])) + 1
    )


@pytest.mark.parametrize("kind", ["lifecheck", "heartbeat sender", "heartbeat receiver"])
def test_a_hung_process_is_replaced_and_the_leader_stays(cluster: Cluster, kind: str) -> None:
    with leadership_stays(cluster):
        both = [cluster.by_role("leader"), cluster.by_role("standby")]
        before = {member: member.row(kind) for member in both}
        for row in before.values():
            os.kill(int(row["pid"]), signal.SIGSTOP)
        for member, row in before.items():
            status = member.wait_status(f"a new {kind}", lambda status, row=row: _is_new(row_of(status, kind), row))  # type: ignore[misc]
            assert "no sign of life" in str(row_of(status, kind)["last_exit"])
            assert gone(int(row["pid"]))
        cluster.settle()


@pytest.mark.parametrize("role", ["leader", "standby"])
def test_a_hung_watchdog_main_is_replaced(cluster: Cluster, role: str) -> None:
    member = cluster.by_role(role)
    others = [one for one in cluster.members if one is not member]
    term = member.status()["term"]
    before = member.row("watchdog main")
    os.kill(int(before["pid"]), signal.SIGSTOP)
    if role == "leader":  # it hangs for longer than its lease: another one leads meanwhile
        wait_for("a new leader", lambda: leads_one_of(others), 3)
    status = member.wait_status("a new main", lambda status: _is_new(row_of(status, "watchdog main"), before))
    assert "no sign of life" in str(row_of(status, "watchdog main")["last_exit"])
    assert (cluster.settle() is member, member.status()["term"] > term) == (False, role == "leader")


def test_children_die_with_the_supervisor_and_the_daemon_comes_back(cluster: Cluster) -> None:
    leader = cluster.leader()
    mark, supervisor, children = leader.mark(), leader.supervisor_pid(), leader.children()
    os.kill(supervisor, signal.SIGKILL)
    for pid in children.values():
        wait_for("the end of every child", lambda pid=pid: gone(pid) or title(psutil.Process(pid)) == "", 3)  # type: ignore[misc]
    leader.wait_since(mark, "the supervisor is gone: hands over and ends")
    leader.wait_since(mark, "starting this node again")
    leader.wait_since(mark, "started: 5 processes are ready")
    assert leader.supervisor_pid() != supervisor
    assert not set(children.values()) & set(leader.children().values())
    assert cluster.settle() is not leader


def test_a_killed_supervisor_of_a_standby_does_not_touch_the_leader(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        standby = cluster.standbys()[0]
        mark = standby.mark()
        os.kill(standby.supervisor_pid(), signal.SIGKILL)
        standby.wait_since(mark, "started: 5 processes are ready")
        cluster.settle()


def test_a_supervisor_that_slept_judges_nobody_for_it(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        before = leader.children()
        supervisor = leader.supervisor_pid()
        os.kill(supervisor, signal.SIGSTOP)
        for _ in observe(HANG_TIMEOUT_MS / 1000 + 0.5):
            assert leader.status()["state"] == "leader"
        os.kill(supervisor, signal.SIGCONT)
        leader.wait_log("the supervisor was away for")
        cluster.settle()
        assert leader.children() == before


def test_all_processes_of_the_leader_killed_at_once_and_started_again(cluster: Cluster) -> None:
    leader, others = cluster.leader(), cluster.standbys()
    for process in leader.everything():
        process.kill()
    wait_for("the end of the node", lambda: not leader.everything(), 2)
    wait_for("a new leader", lambda: leads_one_of(others), 4)
    leader.start()  # over the pid file and the sockets that the dead have left
    assert cluster.settle() is not leader


def test_all_nodes_killed_at_once_and_started_again(cluster: Cluster) -> None:
    leader = cluster.leader()
    term = leader.status()["term"]
    for member in cluster.members:
        member.end()
    cluster.start()
    # Who is up first decides whether the old leader resumes or another one is elected; a term never comes back.
    again = cluster.settle()
    assert again.status()["term"] >= (term if again is leader else term + 1)


def test_all_watchdog_mains_killed_at_once_resume_the_term(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        before = {member: member.row("watchdog main") for member in cluster.members}
        for row in before.values():
            os.kill(int(row["pid"]), signal.SIGKILL)
        for member, row in before.items():
            member.wait_status("a new main", lambda status, row=row: _is_new(row_of(status, "watchdog main"), row))  # type: ignore[misc]
        cluster.settle()


def test_without_the_old_leader_the_others_wait_for_their_promises(cluster: Cluster) -> None:
    others = cluster.standbys()
    for member in cluster.members:
        member.end()
    cluster.start(*(member.node_id for member in others))
    assert any(member.status()["restart_wait_ms"] > 0 for member in others)
    wait_for("a new leader", lambda: leads_one_of(others), 5)
    for member in others:
        status = member.status()
        begun_ms = status["now_ns"] // NS_PER_MS - int(str(row_of(status, "watchdog main")["up_ms"]))
        told = [(one["at_ns"] // NS_PER_MS - begun_ms, one["text"]) for one in status["events"]]
        asked = [after_ms for after_ms, text in told if "asks for pre-votes" in text]
        assert all(after_ms >= LEASE_MS - 1 for after_ms in asked), told


def test_the_death_of_pgpool_makes_the_leader_hand_over(cluster: Cluster) -> None:
    leader, others = cluster.leader(), cluster.standbys()
    mark = leader.mark()
    leader.kill_pgpool()
    wait_for("another leader", lambda: leads_one_of(others), 3)
    leader.wait_since(mark, "handed over: gate closed")
    status = leader.wait_status("its reason", lambda status: "pgpool-II is dead" in status["sentence"])
    assert peer_of(status, leader)["electable"] is False


# --- unknown, rather than stale ----------------------------------------------------------------------------


def test_peers_are_unknown_while_lifecheck_is_silent(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        standby = cluster.standbys()[0]
        # The supervisor sleeps too, or it would replace what hangs.
        sleepers = (standby.supervisor_pid(), standby.pid_of("lifecheck"))
        for pid in sleepers:
            os.kill(pid, signal.SIGSTOP)
        status = standby.wait_status("unknown peers", lambda status: peer_of(status, leader)["health"] == "unknown")
        assert peer_of(status, leader)["role"] == "unknown"
        assert peer_of(status, standby)["pgpool"] == "unknown"
        assert standby.run("status").output.count("unknown") >= 3
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
        cluster.settle()


def test_status_says_so_when_watchdog_main_does_not_answer(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        standby = cluster.standbys()[0]
        sleepers = (standby.supervisor_pid(), standby.pid_of("watchdog main"))
        for pid in sleepers:
            os.kill(pid, signal.SIGSTOP)
        outcome = standby.run("status")
        assert outcome.code == 4, outcome
        assert outcome.output.startswith("unknown: watchdog main does not take requests")
        assert f"process {sleepers[0]} runs" in outcome.output
        outcome = standby.run("status", "--json")
        assert (outcome.code, json.loads(outcome.output)["state"]) == (4, "unknown")
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
        cluster.settle()
