"""Beliefs: fresh verdicts become views, stale ones become unknown."""

from __future__ import annotations

from dataclasses import replace

from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S
from pgvigil.ipc.frames import Beat, Health, NodeVerdict, PathEvidence, Role, Verdicts
from pgvigil.watchdog.beliefs import STALE_NS, Beliefs

NOW = 1000 * NS_PER_S


def verdicts(
    up_for_ms: int = 5000, beat_at_ns: int = NOW, health: Health = Health.ALIVE, judged_at_ns: int = NOW
) -> Verdicts:
    beat = Beat(Role.STANDBY, 3, True, Health.ALIVE, 7, up_for_ms, (1,), 10)
    peer = NodeVerdict(2, health, NOW, "heard on eth0", (PathEvidence("eth0", NOW),), beat, beat_at_ns)
    return Verdicts(judged_at_ns, Health.ALIVE, NOW, "pid 7", (peer,), ())


def test_without_a_word_everything_is_unknown() -> None:
    views = Beliefs((2,)).views(NOW)
    assert views.pgpool is Health.UNKNOWN
    assert [(peer.node_id, peer.health, peer.electable) for peer in views.peers] == [(2, Health.UNKNOWN, False)]


def test_a_fresh_verdict_counts_and_a_stale_one_does_not() -> None:
    beliefs = Beliefs((2,))
    beliefs.take(verdicts(), NOW)
    fresh = beliefs.views(NOW + STALE_NS - 1)
    assert (fresh.pgpool, fresh.peers[0].health, fresh.peers[0].electable) == (Health.ALIVE, Health.ALIVE, True)
    stale = beliefs.views(NOW + STALE_NS)
    assert (stale.pgpool, stale.peers[0].health, stale.peers[0].electable) == (Health.UNKNOWN, Health.UNKNOWN, False)
    assert "silent" in stale.evidence
    assert beliefs.verdict(2, NOW + STALE_NS) is None


def test_a_peers_start_does_not_move_with_the_jitter_of_the_network() -> None:
    beliefs = Beliefs((2,))
    beliefs.take(verdicts(up_for_ms=5000), NOW)
    first = beliefs.views(NOW).peers[0].started_at_ns
    beliefs.take(verdicts(up_for_ms=5200, beat_at_ns=NOW + 230 * NS_PER_MS), NOW)
    assert beliefs.views(NOW).peers[0].started_at_ns == first
    beliefs.take(verdicts(up_for_ms=10, beat_at_ns=NOW + NS_PER_S), NOW)
    assert beliefs.views(NOW).peers[0].started_at_ns == NOW + NS_PER_S - 10 * NS_PER_MS


def test_repeated_verdicts_do_not_stay_fresh_and_older_or_future_ones_do_not_count() -> None:
    beliefs = Beliefs((2,))
    assert beliefs.take(verdicts(), NOW)
    assert beliefs.take(verdicts(), NOW + STALE_NS - 1)
    assert beliefs.verdict(2, NOW + STALE_NS) is None
    assert not beliefs.take(verdicts(judged_at_ns=NOW - 1), NOW + 1)
    assert not beliefs.take(verdicts(judged_at_ns=NOW + 2), NOW + 1)
    assert beliefs.take(verdicts(judged_at_ns=NOW + 1), NOW + 1)


def test_nobody_waits_for_a_node_that_only_others_hear() -> None:
    beliefs = Beliefs((2,))
    told = verdicts()
    heard, silent = PathEvidence("eth0", NOW), PathEvidence("eth1", NOW - NS_PER_S, silent_since_ns=NOW - NS_PER_S)
    for paths, electable in (((heard, silent), True), ((silent, silent), False), ((heard,), True)):
        beliefs.take(replace(told, peers=(replace(told.peers[0], paths=paths),)), NOW)
        (peer,) = beliefs.views(NOW).peers
        assert (peer.health, peer.electable) == (Health.ALIVE, electable)


def test_wavering_counts_while_it_is_fresh() -> None:
    beliefs = Beliefs((2,))
    assert not beliefs.wavering(NOW)
    beliefs.take(replace(verdicts(), wavering=True), NOW)
    assert beliefs.wavering(NOW + STALE_NS - 1)
    assert not beliefs.wavering(NOW + STALE_NS)


def test_what_speaks_against_the_node_reaches_the_core() -> None:
    beliefs = Beliefs((2,))
    beliefs.take(replace(verdicts(), unfit="interface eth0 is down for 100 ms (no carrier)", vip_cut=True), NOW)
    views = beliefs.views(NOW)
    assert views.unfit.startswith("interface eth0 is down") and views.vip_cut
    stale = beliefs.views(NOW + STALE_NS)
    assert stale.unfit == "" and not stale.vip_cut
