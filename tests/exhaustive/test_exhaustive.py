"""The search itself: every model holds to a small depth, every broken core is found out, and no state is mistaken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.exhaustive import __main__ as command
from tests.exhaustive import node as one_node
from tests.exhaustive.catalogue import MODELS
from tests.exhaustive.model import SIZE, Model
from tests.exhaustive.mutants import CASES, Case, find
from tests.exhaustive.node import Node, Rate, bare
from tests.exhaustive.search import Search
from tests.exhaustive.space import KIND_BITS, KIND_MASK, MAIL, NODES, Kind, Space, State
from tests.exhaustive.state import BASE_NS, age, clone, key

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.engine import Watchdog, restart_wait_ns
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.states import State as Role

TINY = 10_000
WALKS, STEPS = 12, 90


def by_name(name: str) -> Model:
    """A model of the catalogue."""
    return next(model for model in MODELS if model.name == name)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_real_core_holds(model: Model) -> None:
    """To a small depth; `make exhaustive` goes deeper."""
    finding = Search(model, model.depth, TINY).run()
    assert finding.wrong is None
    assert finding.states > TINY


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_broken_core_is_found_out(case: Case) -> None:
    """By the model and the invariant that its case names; the story ends with what is wrong."""
    finding, told = find(case)
    assert finding.wrong is not None
    assert case.wrong in finding.wrong
    assert len(finding.path) <= case.depth
    assert told[-1].endswith(f"BROKEN: {finding.wrong}")


def test_clocks_beyond_the_bound_are_found_out() -> None:
    """The lease allows for one percent between two clocks; a hundredth more than that is too much."""
    slow = replace(by_name("clocks"), rates=(Rate(), Rate(100, 98), Rate(100, 98)))
    finding = Search(slow, slow.depth, 10 * TINY).run()
    assert finding.wrong == "two gates are open: n1 and n2"


def test_the_same_search_finds_the_same() -> None:
    """Twice the same states in the same number of transitions."""
    first, second = (Search(by_name("hand-over"), 9, TINY).run() for _ in range(2))
    assert (first.states, first.transitions) == (second.states, second.transitions)


def test_a_model_without_a_way_on_is_complete() -> None:
    """Nodes that are off and must not start: there is one state."""
    searching = Search(by_name("founding"), 5, TINY)
    searching.space.steps = lambda state: []  # type: ignore[method-assign]
    finding = searching.run()
    assert (finding.complete, finding.states, finding.transitions) == (True, 1, 0)


def random_walk(space: Space, seed: int) -> list[tuple[int, State]]:
    """Steps by chance, each with the state it leads to. Time passes less often than it could, so that more happens."""
    draw, state = random.Random(seed), space.first
    walk: list[tuple[int, State]] = []
    for _ in range(STEPS):
        steps = space.steps(state)
        busy = [step for step in steps if Kind(step[0] & KIND_MASK) is not Kind.TIME]
        walk.append(draw.choice(busy if busy and draw.random() < 0.8 else steps))
        state = walk[-1][1]
    return walk


class Twins:
    """The same three cores on clocks that go on, and forgetting nothing."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.now_ns = [BASE_NS] * SIZE
        nodes = [space.nodes[place][space.first[NODES + place]] for place in range(SIZE)]
        self.cores = [None if node.core is None else clone(node.core) for node in nodes]

    def follow(self, state: State, step: int) -> list[ev.Send]:
        """Do one step too; what is sent."""
        kind, what = Kind(step & KIND_MASK), step >> KIND_BITS
        if kind is Kind.TIME:
            self.now_ns = [
                now_ns + machine.rate.shown(what)
                for now_ns, machine in zip(self.now_ns, self.space.machines, strict=True)
            ]
            return []
        place = self.space.place_of(step)
        assert place is not None, "these models have no crashes"
        if kind is Kind.START:
            return self._start(place, self.space.nodes[place][state[NODES + place]])
        core = self.cores[place]
        assert core is not None
        return self._sent(core.step(self.now_ns[place], self.space.event(kind, what)))

    def _start(self, place: int, node: Node) -> list[ev.Send]:
        now_ns, machine = self.now_ns[place], self.space.machines[place]
        record = replace(node.disk, boot=node.disk.boot + 1, clean_stop=False)
        wait_ns = restart_wait_ns(node.disk.promised_ms, node.disk.clean_stop, now_ns)
        core = Watchdog(machine.settings, record, lambda n: n - 1, now_ns, wait_ns)
        core.started_at_ns, self.cores[place] = BASE_NS, core
        effects = [core.step(now_ns, event) for event in (ev.Started(), ev.FenceState(True, ""), machine.views)]
        return self._sent([effect for some in effects for effect in some])

    def _sent(self, effects: Sequence[ev.Effect]) -> list[ev.Send]:
        sent = [bare(effect) for effect in effects]
        return [effect for effect in sent if isinstance(effect, ev.Send) and 1 <= effect.to <= SIZE]

    def key(self, place: int) -> object:
        """What the search would know this core by."""
        core = self.cores[place]
        if core is None or core.state is Role.STOPPED:
            return None
        aged = clone(core)
        age(aged, self.now_ns[place] - BASE_NS)
        return key(aged)


def walk_with_twins(name: str) -> None:
    """Some random walks: the cores of the search and their twins must send the same and come to the same state."""
    for seed in range(WALKS):
        space = Space(replace(by_name(name), crashes=0))
        twins, state = Twins(space), space.first
        for label, after in random_walk(space, seed):
            sent = twins.follow(state, label)
            place = space.place_of(label)
            if place is not None:
                outcome = space.outcome(place, state[NODES + place], label, False)
                assert [ev.Send(mail.to, mail.message) for mail in outcome.mail] == sent
            state = after
            for place in range(SIZE):
                core = space.nodes[place][state[NODES + place]].core
                assert (None if core is None else key(core)) == twins.key(place)


@pytest.mark.parametrize("name", ["founding", "lease", "clocks", "late", "stop", "hand-over", "voters"])
def test_what_the_search_forgets_matters_to_no_core(name: str) -> None:
    """Cores that forget nothing behave alike, whatever happens to them."""
    walk_with_twins(name)


def test_forgetting_too_much_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a promise forgotten a little early, the twins would tell."""

    def forgetful(core: Watchdog, passed_ns: int) -> None:
        age(core, passed_ns)
        if core.promise is not None and core.promise.until_ns < BASE_NS + NS_PER_MS:
            core.promise = replace(core.promise, until_ns=BASE_NS)

    monkeypatch.setattr(one_node, "age", forgetful)
    with pytest.raises(AssertionError):
        walk_with_twins("lease")


def test_an_unknown_part_of_a_core_is_kept_exact() -> None:
    """Whatever it is: two cores that differ in it differ, and an instant in it grows older."""
    core = clone(core_of_leader())
    vars(core).update(novel_until_ns=BASE_NS + 5, novel=({"a": 1},))
    twin = clone(core)
    assert key(twin) == key(core)
    age(twin, 3)
    assert vars(twin)["novel_until_ns"] == BASE_NS + 2
    vars(core)["novel"][0]["a"] = 2
    assert vars(twin)["novel"] == ({"a": 1},)


def core_of_leader() -> Watchdog:
    """The core of n1 while it leads."""
    space = Space(by_name("lease"))
    core = space.nodes[0][space.first[NODES]].core
    assert core is not None
    return core


def test_a_crash_loses_what_was_not_written() -> None:
    """Memory is gone and every write that was not done; the disk and what is on its way stay."""
    space = Space(by_name("two crashes"))
    lost = 0
    for before in states_within(space, 5):
        for label, after in space.steps(before):
            if label & KIND_MASK == Kind.CRASH:
                place = label >> KIND_BITS
                alive, dead = (space.nodes[place][state[NODES + place]] for state in (before, after))
                assert (dead.core, dead.waiting, dead.disk) == (None, (), alive.disk)
                assert (dead.gate_ns, after[MAIL:]) == (alive.gate_ns, before[MAIL:])
                lost += bool(alive.waiting)
    assert lost


def states_within(space: Space, depth: int) -> set[State]:
    """Every state that so many steps lead to."""
    seen = level = {space.first}
    for _ in range(depth):
        level = {after for state in level for _, after in space.steps(state)} - seen
        seen = seen | level
    return seen


def test_the_command_prints_a_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    """With the number of states; the exit status says whether all holds."""
    assert command.main(["lease", "hand-over", "--depth", "6", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "lease", "hand-over", "all"]
    assert lines[1].endswith("holds to depth 6")


def test_the_command_knows_its_models(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is none is refused with the names there are; `--list` says what they are about."""
    with pytest.raises(SystemExit):
        command.main(["no-such-model"])
    assert "hand-over" in capsys.readouterr().err
    assert command.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MODELS)
