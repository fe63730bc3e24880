"""When the words of peers condemn a pgpool-II that believes itself healthy."""

from __future__ import annotations

import pytest

from pgvigil.ipc.frames import Beat, Health, NodeVerdict, Role
from pgvigil.lifecheck.core.peers import Word, judge_words
from pgvigil.lifecheck.probes.peers import PeersProbe
from pgvigil.lifecheck.probes.reading import Reading

ME = 1
LABELS = {2: "pg02", 3: "pg03", 4: "pg04", 5: "pg05"}


@pytest.mark.parametrize(
    ("against", "silent", "peers", "health"),
    [
        (2, 0, 2, Health.DEAD),
        (1, 1, 2, Health.UNKNOWN),  # a tie is no majority
        (1, 0, 2, Health.DEAD),  # the other peer is gone: this one is half of all
        (1, 0, 1, Health.DEAD),  # two nodes
        (0, 0, 2, Health.UNKNOWN),  # alone: nobody's word
        (1, 0, 4, Health.UNKNOWN),  # a lone survivor of five
        (2, 0, 4, Health.DEAD),
        (2, 1, 4, Health.DEAD),
        (2, 2, 4, Health.UNKNOWN),
        (3, 1, 4, Health.DEAD),
    ],
)
def test_a_majority_of_those_that_speak_and_half_of_all(against: int, silent: int, peers: int, health: Health) -> None:
    words = [Word(f"pg{number}", number < against) for number in range(against + silent)]
    assert judge_words(words, peers).health is health


def test_the_sentence_names_them() -> None:
    assert (
        judge_words([Word("pg02", True), Word("pg03", True)], 2).evidence == "2 of 2 peers cannot query it: pg02, pg03"
    )
    tie = judge_words([Word("pg02", True), Word("pg03", False)], 2)
    assert tie.evidence == "1 of 2 peers cannot query it: pg02; that is no majority"


def verdict(
    node_id: int,
    cannot_query: tuple[int, ...] = (),
    health: Health = Health.ALIVE,
    pgpool: Health = Health.ALIVE,
    role: Role = Role.STANDBY,
) -> NodeVerdict:
    beat = Beat(role, 1, True, pgpool, 1, 1000, (ME,), 0, cannot_query)
    return NodeVerdict(node_id, health, 0, "heard", (), beat, 0)


def probe(peers: int) -> tuple[PeersProbe, list[Reading]]:
    changes: list[Reading] = []
    labels = {node_id: label for node_id, label in LABELS.items() if node_id < 2 + peers}
    return PeersProbe(ME, labels, changes.append, 0), changes


def test_it_falls_and_recovers_by_words_alone() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2), verdict(3)], 1)
    assert changes == [] and peers.reading.health is Health.UNKNOWN
    peers.hear([verdict(2, (ME,)), verdict(3, (ME, 2))], 2)
    peers.hear([verdict(2, (ME,)), verdict(3, (ME,))], 3)
    assert [(one.health, one.since_ns) for one in changes] == [(Health.DEAD, 2)]
    peers.hear([verdict(2, (ME,)), verdict(3)], 4)
    assert [(one.health, one.since_ns) for one in changes] == [(Health.DEAD, 2), (Health.UNKNOWN, 4)]


def test_words_about_others_do_not_count() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2, (3,)), verdict(3, (2,))], 1)
    assert changes == []


@pytest.mark.parametrize(
    "doubtful",
    [
        verdict(3, (ME,), health=Health.DEAD),
        verdict(3, (ME,), pgpool=Health.DEAD),
        verdict(3, (ME,), pgpool=Health.UNKNOWN),
        verdict(3, (ME,), role=Role.UNKNOWN),
        NodeVerdict(3, Health.UNKNOWN, 0, "not heard yet", (), None, 0),
    ],
)
def test_the_dead_the_ill_and_the_silent_say_nothing(doubtful: NodeVerdict) -> None:
    peers, changes = probe(4)
    peers.hear([verdict(2, (ME,)), doubtful], 1)
    assert changes == []
    peers.hear([verdict(2, (ME,)), verdict(3, (ME,))], 2)
    assert [one.health for one in changes] == [Health.DEAD]
