"""When the words of peers condemn a pgpool-II that believes itself healthy."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from pgvigil.ipc.frames import Beat, Health, NodeVerdict, Role
from pgvigil.lifecheck.core.peers import Word, judge_words
from pgvigil.lifecheck.probes.peers import PeersProbe
from pgvigil.lifecheck.probes.reading import Reading

ME = 1
LABELS = {2: "pg02", 3: "pg03", 4: "pg04", 5: "pg05"}


def labels(peers: int) -> dict[int, str]:
    return {node_id: label for node_id, label in LABELS.items() if node_id < 2 + peers}


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
    words = [Word(2 + number, (ME,) if number < against else ()) for number in range(against + silent)]
    assert judge_words(ME, [Word(ME, ()), *words], labels(peers)).health is health


def judged(*cannot_query: tuple[int, ...]) -> tuple[Health, str]:
    """The words of nodes 1, 2, 3, ..."""
    words = [Word(node_id, words) for node_id, words in enumerate(cannot_query, 1)]
    opinion = judge_words(ME, words, labels(len(words) - 1))
    return opinion.health, opinion.evidence


def test_the_sentence_names_them() -> None:
    assert judged((), (1,), (1,)) == (Health.DEAD, "2 of 2 peers cannot query it: pg02, pg03")
    assert judged((), (1,), ())[1] == "1 of 2 peers cannot query it: pg02; that is no majority"
    assert judged((), (), (2,))[1] == "none of 2 peers says that it cannot query it"


def test_where_the_port_is_closed_between_all_nodes_nobody_is_condemned() -> None:
    told = "cannot be queried by pg02, pg03, but nor can theirs by most others"
    assert judged((2, 3), (1, 3), (1, 2)) == (Health.UNKNOWN, told)
    assert judged((2,), (1,))[0] is Health.UNKNOWN


def test_the_one_that_is_cut_off_both_ways_is_condemned() -> None:
    assert judged((2, 3), (1,), (1,)) == (Health.DEAD, "2 of 2 peers cannot query it: pg02, pg03")


def test_the_word_of_one_whose_own_pgpool_is_dead_does_not_count() -> None:
    assert judged((3,), (3,), (1,))[0] is Health.UNKNOWN
    assert judged((3,), (1, 3), (1,)) == (Health.DEAD, "1 of 1 peers cannot query it: pg02")


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_they_never_condemn_everybody(nodes: int) -> None:
    """Else nobody could be elected although every pgpool-II runs: every word of every node is tried."""
    everybody = {node_id: f"pg0{node_id}" for node_id in range(1, nodes + 1)}
    peers = {me: {node_id: label for node_id, label in everybody.items() if node_id != me} for me in everybody}
    choices = [[chosen for size in range(nodes) for chosen in combinations(peers[me], size)] for me in everybody]
    for said in product(*choices):
        words = [Word(node_id, cannot_query) for node_id, cannot_query in enumerate(said, 1)]
        assert not all(judge_words(me, words, peers[me]).health is Health.DEAD for me in everybody), said


def verdict(
    node_id: int,
    cannot_query: tuple[int, ...] = (),
    health: Health = Health.ALIVE,
    role: Role = Role.STANDBY,
) -> NodeVerdict:
    beat = Beat(role, 1, True, Health.ALIVE, 1, 1000, (ME,), 0, cannot_query)
    return NodeVerdict(node_id, health, 0, "heard", (), beat, 0)


ROUND_NS = 10


def probe(peers: int) -> tuple[PeersProbe, list[Reading]]:
    changes: list[Reading] = []
    return PeersProbe(ME, labels(peers), changes.append, 0, ROUND_NS), changes


def test_it_falls_and_recovers_by_words_alone() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2), verdict(3)], (), 1)
    assert changes == [] and peers.reading.health is Health.UNKNOWN
    peers.hear([verdict(2, (ME,)), verdict(3, (ME, 2))], (), 2)
    peers.hear([verdict(2, (ME,)), verdict(3, (ME,))], (), 3)
    assert [(one.health, one.since_ns) for one in changes] == [(Health.DEAD, 2)]
    peers.hear([verdict(2, (ME,)), verdict(3)], (), 4)
    assert [(one.health, one.since_ns) for one in changes] == [(Health.DEAD, 2), (Health.UNKNOWN, 4)]


def test_words_about_others_do_not_count() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2, (3,)), verdict(3, (2,))], (), 1)
    assert changes == []


def test_what_our_own_queries_find_counts_against_accusers() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2, (ME, 3)), verdict(3, (ME, 2))], (2, 3), 1)
    assert changes == []
    assert peers.wake() is None  # as long as our queries fail


def test_who_finds_out_first_that_a_port_is_open_again_is_not_condemned() -> None:
    """The others have not asked again yet: our doubt about them lasts for a round of questions more."""
    peers, changes = probe(2)
    peers.hear([verdict(2, (ME, 3)), verdict(3, (ME, 2))], (2, 3), 1)
    peers.hear([verdict(2, (ME, 3)), verdict(3, (ME, 2))], (), 2)
    peers.hear([verdict(2, (ME,)), verdict(3, (2,))], (), 5)
    assert peers.wake() == 2 + ROUND_NS
    peers.hear([verdict(2), verdict(3)], (), 9)
    peers.tick(2 + ROUND_NS)
    assert changes == [] and peers.wake() is None


def test_accusers_that_stay_with_it_count_when_our_doubt_has_ended() -> None:
    peers, changes = probe(2)
    peers.hear([verdict(2, (ME, 3)), verdict(3, (ME, 2))], (2, 3), 1)
    peers.hear([verdict(2, (ME,)), verdict(3, (ME,))], (), 2)
    peers.tick(1 + ROUND_NS)
    assert [one.health for one in changes] == []
    peers.tick(2 + ROUND_NS)
    assert [one.health for one in changes] == [Health.DEAD]


@pytest.mark.parametrize(
    "doubtful",
    [
        verdict(3, (ME,), health=Health.DEAD),
        verdict(3, (ME,), role=Role.UNKNOWN),
        NodeVerdict(3, Health.UNKNOWN, 0, "not heard yet", (), None, 0),
    ],
)
def test_the_dead_and_the_silent_say_nothing(doubtful: NodeVerdict) -> None:
    peers, changes = probe(4)
    peers.hear([verdict(2, (ME,)), doubtful], (), 1)
    assert changes == []
    peers.hear([verdict(2, (ME,)), verdict(3, (ME,))], (), 2)
    assert [one.health for one in changes] == [Health.DEAD]
