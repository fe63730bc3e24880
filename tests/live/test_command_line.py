"""Refusals, strangers and beginnings: what the command line and the log say when something is not as it should be."""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.live.clusters import Cluster, Member, leadership_stays, observe
from tests.live.conftest import MakeCluster
from tests.live.nodes import wait_for

from pgvigil.watchdog import store
from pgvigil.watchdog.config import keys

pytestmark = pytest.mark.live

CONFIGURATION, ALREADY_RUNNING, FAILED = 2, 3, 1
WRONG_KEY = r"signed with another key|failed the key check|has a key of no configured node|refuses this node's key"


def stop(member: Member) -> None:
    """A fast stop through the command line."""
    assert member.run("stop", "-m", "fast").code == 0


def refused(member: Member, code: int, *words: str) -> None:
    """`start` ends with the code and all of these words, and leaves no process behind."""
    outcome = member.run("start")
    assert outcome.code == code, outcome
    for word in words:
        assert word in outcome.errors, outcome
    wait_for("the end of all processes", lambda: not member.everything(), 2)


# --- one node ----------------------------------------------------------------------------------------------


def test_a_second_start_is_refused_with_the_pid_of_the_first(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        pid, children = leader.supervisor_pid(), leader.children()
        outcome = leader.run("start")
        assert outcome.code == ALREADY_RUNNING, outcome
        assert f"already running: pid {pid} holds " in outcome.errors
        assert (leader.supervisor_pid(), leader.children()) == (pid, children)


def test_a_stale_pid_file_with_the_pid_of_a_stranger_is_no_obstacle(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        standby = cluster.standbys()[0]
        stop(standby)
        (standby.run_dir / "pgvigil.pid").write_text(f"{os.getpid()}\n12345\n")
        assert standby.run("status").code == 3
        standby.start()
        assert standby.supervisor_pid() != os.getpid()
        cluster.settle()


def test_a_deleted_pid_file_is_made_again(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        pid, mark = leader.supervisor_pid(), leader.mark()
        pid_file = leader.run_dir / "pgvigil.pid"
        pid_file.unlink()
        leader.wait_since(mark, "was deleted while pgvigil runs; it was made again")
        assert leader.supervisor_pid() == pid
        outcome = leader.run("start")
        assert (outcome.code, f"pid {pid} holds" in outcome.errors) == (ALREADY_RUNNING, True), outcome


def test_a_deleted_run_directory_is_made_again_and_the_leader_stays(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        pid, mark, before = leader.supervisor_pid(), leader.mark(), leader.children()
        shutil.rmtree(leader.run_dir)
        leader.wait_since(mark, "was deleted while pgvigil runs; it was made again")
        leader.wait_since(mark, "watchdog main is restarted, because its sockets in .* are gone", 20)
        wait_for("an answer of the restarted node", lambda: leader.run("status").code == 0, 20)
        assert leader.supervisor_pid() == pid
        assert stat.S_IMODE(leader.run_dir.stat().st_mode) == 0o700
        anew = leader.children()
        kept = {name for name, child in before.items() if anew.get(name) == child}
        assert kept == {name for name in before if name.startswith("heartbeat receiver")}
        cluster.settle()


def test_a_start_into_a_deleted_run_directory_leaves_the_running_node_alone(cluster: Cluster) -> None:
    """Before its supervisor has noticed, only the lock in state_dir tells that the node runs."""
    with leadership_stays(cluster) as leader:
        supervisor = psutil.Process(leader.supervisor_pid())
        main = leader.children()["watchdog main"]
        supervisor.suspend()
        try:
            shutil.rmtree(leader.run_dir)
            outcome = leader.run("start")
        finally:
            supervisor.resume()
        assert outcome.code == ALREADY_RUNNING, outcome
        assert f"watchdog main, process {main}, holds " in outcome.errors
        wait_for("an answer of the node", lambda: leader.run("status").code == 0, 20)
        assert leader.supervisor_pid() == supervisor.pid
        cluster.settle()


def test_a_run_directory_of_somebody_else_is_refused(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        standby = cluster.standbys()[0]
        stop(standby)
        foreign = _foreign_folder(standby.folder)
        standby.write_config(standby.text.replace(str(standby.run_dir), foreign))
        refused(standby, CONFIGURATION, f"run_dir {foreign} belongs to user id ", f"expected {os.geteuid()}")


def _foreign_folder(folder: Path) -> str:
    if os.geteuid() != 0:
        return "/usr"
    foreign = folder / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    return str(foreign)


def test_a_run_directory_that_is_open_to_others_is_closed(cluster: Cluster) -> None:
    standby = cluster.standbys()[0]
    stop(standby)
    standby.run_dir.chmod(0o777)
    standby.start()
    assert standby.run_dir.stat().st_mode & 0o777 == 0o700
    for name in ("watchdog.ipc", "lifecheck.ipc", "sender-0.ipc", "control.ipc"):
        assert (standby.run_dir / name).is_socket()


def test_a_run_directory_that_is_a_file_is_refused(cluster: Cluster) -> None:
    standby = cluster.standbys()[0]
    stop(standby)
    standby.write_config(standby.text.replace(str(standby.run_dir), str(standby.config)))
    refused(standby, CONFIGURATION, "run_dir")


def bad_records(whole: bytes) -> list[tuple[bytes, str]]:
    """What may stand in the place of a record, and what is said of it."""
    record = store.unpack(whole)
    other = record.node_id % 3 + 1
    return [
        (whole[:-7], "it is torn"),
        (whole[:40], "it is torn"),
        (b"", "it is empty"),
        (b"PK" + whole[2:], "it starts with"),
        (whole + bytes(100_000), "it is torn"),
        (whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:], "its checksum does not match its content"),
        (store.pack(replace(record, format=record.format + 1)), "a newer pgvigil has written it"),
        (store.pack(replace(record, node_id=other)), f"it belongs to node {other} of cluster 'live'"),
        (store.pack(replace(record, cluster="shop")), f"it belongs to node {record.node_id} of cluster 'shop'"),
    ]


def test_a_bad_record_is_refused_and_touches_nobody_else(cluster: Cluster) -> None:
    with leadership_stays(cluster):
        standby = cluster.standbys()[0]
        stop(standby)
        record = standby.state_dir / "record"
        whole = record.read_bytes()
        for broken, why in bad_records(whole):
            record.write_bytes(broken)
            refused(standby, FAILED, "watchdog main cannot start", str(record), why, "never restore a back-up")
            assert record.read_bytes() == broken
        record.write_bytes(whole)
        standby.start()
        cluster.settle()


def test_a_key_file_that_others_may_read_is_refused(cluster: Cluster) -> None:
    standby = cluster.standbys()[0]
    stop(standby)
    try:
        standby.key_file.chmod(0o644)
        refused(standby, CONFIGURATION, "is open to others (mode 0644)", f"chmod 600 {standby.key_file}")
    finally:
        standby.key_file.chmod(0o600)
    secret = standby.key_file.read_text().strip()
    assert all(secret not in member.log_text() for member in cluster.members)


def test_a_running_node_refuses_to_reload_a_key_that_others_may_read(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        try:
            leader.key_file.chmod(0o640)
            outcome = leader.run("reload")
        finally:
            leader.key_file.chmod(0o600)
        assert outcome.code == 1
        assert "is open to others (mode 0640)" in outcome.errors


# --- strangers -----------------------------------------------------------------------------------------------


def test_a_node_with_a_wrong_key_is_kept_out_and_both_sides_say_why_once(cluster: Cluster) -> None:
    with leadership_stays(cluster) as leader:
        stranger, other = cluster.standbys()
        secret = stranger.key_file.read_text()
        stop(stranger)
        marks = {member: member.mark() for member in cluster.members}
        try:
            stranger.key_file.write_text(keys.generate())
            stranger.start()
            for member in (leader, other):
                member.wait_since(marks[member], f"{stranger.label}.*({WRONG_KEY})|({WRONG_KEY}).*{stranger.label}")
                stranger.wait_since(marks[stranger], f"{member.label}.*({WRONG_KEY})")
            for _ in observe(4):
                assert stranger.status().get("leader_id") is None
            for member in (leader, other):
                _says_once(member, marks[member], (stranger,))
                row = next(row for row in member.status()["nodes"] if row["id"] == stranger.node_id)
                assert row["health"] != "alive"
            _says_once(stranger, marks[stranger], (leader, other))
            assert leader.status()["quorum"]["have"] == 2
        finally:
            stranger.key_file.write_text(secret)
        stop(stranger)
        stranger.start()
        cluster.settle()


def _says_once(member: Member, mark: int, about: tuple[Member, ...]) -> None:
    """One line for the heartbeats and one for the connections of each, no more."""
    lines = [line for line in member.since(mark).splitlines() if re.search(WRONG_KEY, line)]
    for other in about:
        own = [line for line in lines if f"{other.label} (" in line or f"({other.label})" in line]
        beats = [line for line in own if "heartbeats" in line]
        assert (len(beats), len(own) - len(beats)) == (1, 1), "\n".join(lines)
    assert len(lines) == 2 * len(about), "\n".join(lines)


# --- beginnings ----------------------------------------------------------------------------------------------


def test_a_new_cluster_says_whom_it_waits_for_and_bootstrap_ends_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start(1, 2)
    first = cluster[1]
    status = first.wait_status("the waiting", lambda one: one["waiting_for"] == [3])
    assert (status["state"], status["leader_id"]) == ("founding", None)
    first.wait_log("WARNING a new cluster waits for pg03 to be heard.*`pgvigil bootstrap` here")
    page = first.run("status")
    assert page.code == 4, page
    assert "waiting for pg03 (3); if one of them cannot come, 'pgvigil bootstrap' ends the waiting" in page.output
    outcome = first.run("bootstrap")
    assert outcome.code == 0, outcome
    assert "founded; voters not heard yet: pg03" in outcome.output
    leader = cluster.leader(5)
    again = first.run("bootstrap")
    assert (again.code, "belongs to a cluster already" in again.errors) == (1, True), again
    with leadership_stays(cluster):
        cluster.start(3)
        assert cluster.settle() is leader
        status = cluster[3].status()
        assert all(row["voter"] for row in status["nodes"])
        assert len(cluster[3].log_text().split("became a voter")) == 2


def test_bootstrap_alone_against_a_majority_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.start(2)
    outcome = cluster[2].run("bootstrap")
    assert outcome.code == 1
    assert "only 1 of 3 nodes are heard, a majority is 2" in outcome.errors
    assert cluster[2].run("switchover").code == 1


def test_a_witness_votes_and_never_leads(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, witnesses=(3,))
    cluster.start()
    leader = cluster.settle()
    witness, standby = cluster[3], next(one for one in cluster.members[:2] if one is not leader)
    wait_for("its title", lambda: "watchdog main (witness, " in " ".join(witness.titles()), 2)
    outcome = leader.run("switchover", witness.label)
    assert (outcome.code, "witness" in outcome.errors) == (1, True), outcome
    leader.end()  # the witness's vote makes the majority
    standby.wait_status("its lead", lambda status: status["state"] == "leader", 4)
    mark = witness.mark()
    standby.end()
    for _ in observe(2):
        assert witness.status()["state"] == "witness"
    assert "asks for pre-votes" not in witness.since(mark)
    assert witness.status()["leader_id"] is None
    cluster.start(leader.node_id)
    leader.wait_status("its lead", lambda status: status["state"] == "leader", 6)


def test_a_lone_standby_of_two_nodes_does_not_lead(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    cluster.start()
    leader = cluster.settle()
    standby = cluster.standbys()[0]
    leader.end()
    standby.wait_status("a dead leader", lambda status: status["quorum"]["have"] == 1)
    for _ in observe(2):
        assert standby.status()["state"] != "leader"
    assert standby.run("status").code == 4
    leader.start()
    cluster.settle()


def test_the_methods_without_process_do_not_claim_that_pgpool_lives(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, extra='[lifecheck]\nmethods = ["heartbeat"]\n')
    cluster.start()
    node = cluster[1]
    status = node.wait_status("its lead", lambda status: status["state"] == "leader")
    assert (status["nodes"][0]["pgpool"], status["nodes"][0]["evidence"]) == ("not checked", "pgpool-II is not checked")
    assert "pgpool alive" not in node.run("status").output
    assert "pgvigil: lifecheck (0/0 peers alive, pgpool not checked)" in node.titles()
