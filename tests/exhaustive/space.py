"""A small cluster as a value, and every step on from it.

A state is a tuple of small numbers: the memory of the invariants, what is left of the budget, one number a node, and
the messages on their way. What a node does with an event is worked out once, by the real core, and remembered.
The network keeps of several messages of one kind on one link only the newest: the older ones are lost. A message that
changes nothing where it arrives stays on its way, for what can follow without it can follow with it, too. Time goes on
to the next instant at which anything changes on any node: a wish to wake, the end of a gate, promise or restart wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Generic, TypeVar

from tests.exhaustive import invariants
from tests.exhaustive.invariants import Fact, Memory
from tests.exhaustive.model import SIZE, Budget, Model, Start
from tests.exhaustive.node import Machine, Mail, Node, Outcome
from tests.exhaustive.state import BASE_NS

from pgvigil.watchdog.core import events as ev
from pgvigil.watchdog.core.messages import KINDS, NUMBERS, Granted, Message, Refused, RoundId
from pgvigil.watchdog.core.states import State as Role

State = tuple[int, ...]
Step = tuple[int, State]
MEMORY, BUDGET, NODES, MAIL = 0, 1, 2, 2 + SIZE
PLACES = range(SIZE)
SETTLED_STEPS = 2_000
IMPATIENT = (False,) * SIZE
V = TypeVar("V")


class Kind(IntEnum):
    """What a step is; the low bits of its label. The rest of the label is a message, a node or an operation."""

    START = 0
    WRITE = 1
    VIP_DOWN = 2
    TAKE = 3
    TIMER = 4
    TIME = 5
    CRASH = 6
    TAKE_AND_KEEP = 7
    OPERATE = 8


KIND_BITS = 4
KIND_MASK = (1 << KIND_BITS) - 1


def label(kind: Kind, what: int = 0) -> int:
    """A step as a number."""
    return what << KIND_BITS | kind


# The same for every state, so made once: this is the inner loop of millions.
TAKES, KEEPS = int(Kind.TAKE), int(Kind.TAKE_AND_KEEP)
STARTS, WRITES, DOWNS, TIMERS, CRASHES = (
    tuple(label(kind, place) for place in PLACES)
    for kind in (Kind.START, Kind.WRITE, Kind.VIP_DOWN, Kind.TIMER, Kind.CRASH)
)


class Broken(Exception):
    """A step has broken an invariant."""

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step
        self.text = text


class Numbers(Generic[V]):
    """Values and their numbers."""

    def __init__(self, first: V | None = None) -> None:
        self.values: list[V] = []
        self._numbers: dict[V, int] = {}
        if first is not None:
            self.of(first)

    def of(self, value: V) -> int:
        """The number of a value."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


@dataclass(frozen=True, slots=True)
class _Result:
    """An `Outcome` in numbers."""

    node: int
    mail: tuple[int, ...]
    slots: frozenset[int]
    facts: int
    holds: bool
    wrong: str | None


class Space:
    """All states of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.machines = [
            Machine(model.settings(node), model.rates[node - 1], model.views(node, BASE_NS), model.record(node))
            for node in range(1, SIZE + 1)
        ]
        self.nodes: list[list[Node]] = [machine.states for machine in self.machines]
        self._memories = Numbers(Memory())
        self._budgets = Numbers(Budget())
        self.mail: Numbers[Mail] = Numbers()
        self._facts: Numbers[tuple[Fact, ...]] = Numbers(())
        self._to: list[int] = []
        self._slot: list[int] = []
        self._newness: list[tuple[int, int, int]] = []
        self._results: list[dict[tuple[int, int, bool], _Result]] = [{} for _ in PLACES]
        self._aged: list[dict[tuple[int, int], int]] = [{} for _ in PLACES]
        self._patient = tuple(node in model.crashing for node in range(1, SIZE + 1))
        self._remembered: dict[tuple[int, int], int] = {}
        self.first = self._begin()

    # --- steps --------------------------------------------------------------------------------------

    def steps(self, state: State) -> list[Step]:
        """Every step on from a state, with its label. `Broken` at the first that breaks an invariant."""
        budget = self._budgets.values[state[BUDGET]]
        patient = self.patient(state)
        found = [self._take(state, number, False, patient) for number in state[MAIL:]]
        if budget.doubles:
            less = self._budgets.of(replace(budget, doubles=budget.doubles - 1))
            doubled = (*state[:BUDGET], less, *state[NODES:])
            found += [self._take(doubled, number, True, patient) for number in state[MAIL:]]
        late = False
        for place in PLACES:
            node = self.nodes[place][state[NODES + place]]
            if node.core is None:
                found.append(self._local(state, place, STARTS[place], patient))
                continue
            if node.due:
                late = True
                found.append(self._local(state, place, TIMERS[place], patient))
            if node.waiting:
                found.append(self._local(state, place, WRITES[place], patient))
            if node.dropping:
                found.append(self._local(state, place, DOWNS[place], patient))
            if budget.crashes and place + 1 in self.model.crashing:
                found.append(self._crash(state, place, budget))
        found += self._operations(state, budget, patient)
        if not late:
            found.append(self._pass(state, state[BUDGET]))
        elif budget.lates:
            found.append(self._pass(state, self._budgets.of(replace(budget, lates=budget.lates - 1))))
        return [step for step in found if step is not None]

    def _take(self, state: State, number: int, keep: bool, patient: tuple[bool, ...]) -> Step | None:
        place = self._to[number]
        before = state[NODES + place]
        if self.nodes[place][before].core is None:
            return None
        step = number << KIND_BITS | TAKES
        known = self._results[place].get((before, step, patient[place]))
        result = known or self._work_out(place, before, step, patient[place])
        if result.node == before and not result.mail and result.wrong is None:
            return None
        kept = state[MAIL:] if keep else tuple([other for other in state[MAIL:] if other != number])
        return self._joined(state, place, result, number << KIND_BITS | KEEPS if keep else step, kept)

    def _local(self, state: State, place: int, step: int, patient: tuple[bool, ...]) -> Step | None:
        before = state[NODES + place]
        known = self._results[place].get((before, step, patient[place]))
        result = known or self._work_out(place, before, step, patient[place])
        if result.node == before and not result.mail and result.wrong is None:
            return None
        return self._joined(state, place, result, step, state[MAIL:])

    def _joined(self, state: State, place: int, result: _Result, step: int, mail: State) -> Step:
        """The state with one node changed, its messages sent, and the invariants checked."""
        if result.wrong is not None:
            raise Broken(step, result.wrong)
        if result.mail and self.model.kept == 1:
            slots, slot = result.slots, self._slot
            mail = tuple(sorted([*[other for other in mail if slot[other] not in slots], *result.mail]))
        elif result.mail:
            mail = self._newest(mail, result.mail)
        at = NODES + place
        new = (state[MEMORY], *state[BUDGET:at], result.node, *state[at + 1 : MAIL], *mail)
        if result.holds:
            self._check_holders(new, step)
        if result.facts:
            memory = self._remembered.get((state[MEMORY], result.facts))
            if memory is None:
                memory = self._remember(new, result.facts, step)
            if memory != state[MEMORY]:
                new = (memory, *new[1:])
        return step, new

    def _newest(self, mail: State, sent: State) -> State:
        """Of each kind on each link the newest that a model keeps, by what the messages say of themselves."""
        slots: dict[int, list[int]] = {}
        for number in sorted({*mail, *sent}):
            slots.setdefault(self._slot[number], []).append(number)
        kept = (sorted(slot, key=self._newness.__getitem__)[-self.model.kept :] for slot in slots.values())
        return tuple(sorted(number for slot in kept for number in slot))

    def _check_holders(self, state: State, step: int) -> None:
        """Only when a node that has a gate or lease open has changed: nobody else's opens by that, nor by time."""
        nodes = [self.nodes[place][state[NODES + place]] for place in PLACES]
        text = invariants.two_holders([node.open for node in nodes], [node.lease for node in nodes])
        if text is not None:
            raise Broken(step, text)

    def _remember(self, state: State, facts: int, step: int) -> int:
        """What the invariants remember from now on. Not cached while a commit is to be checked against the disks."""
        memory = self._memories.values[state[MEMORY]]
        disks = [self.nodes[place][state[NODES + place]].disk for place in PLACES]
        after, wrong = invariants.remember(memory, self._facts.values[facts], disks)
        if wrong is not None:
            raise Broken(step, wrong)
        number = self._memories.of(after)
        if after.committed == memory.committed:
            self._remembered[state[MEMORY], facts] = number
        return number

    def _crash(self, state: State, place: int, budget: Budget) -> Step:
        node = self.machines[place].crash(self.nodes[place][state[NODES + place]])
        less = self._budgets.of(replace(budget, crashes=budget.crashes - 1))
        at = NODES + place
        return CRASHES[place], (state[MEMORY], less, *state[NODES:at], node.number, *state[at + 1 :])

    def _operations(self, state: State, budget: Budget, patient: tuple[bool, ...]) -> list[Step | None]:
        found: list[Step | None] = []
        for number, (node_id, _) in enumerate(self.model.operations):
            place = node_id - 1
            if budget.operations >> number & 1 and self.nodes[place][state[NODES + place]].core is not None:
                less = self._budgets.of(replace(budget, operations=budget.operations & ~(1 << number)))
                spent = (*state[:BUDGET], less, *state[NODES:])
                found.append(self._local(spent, place, label(Kind.OPERATE, number), patient))
        return found

    def _pass(self, state: State, budget: int) -> Step | None:
        """Time passes to the next instant at which something changes on some node."""
        instants = []
        for place in PLACES:
            next_ns = self.nodes[place][state[NODES + place]].next_ns
            if next_ns is not None:
                instants.append(self.machines[place].rate.lasts(next_ns))
        if not instants:
            return None
        passed_ns = min(instants)
        nodes = [self._age(place, state[NODES + place], passed_ns) for place in PLACES]
        return label(Kind.TIME, passed_ns), (state[MEMORY], budget, *nodes, *state[MAIL:])

    def _age(self, place: int, number: int, passed_ns: int) -> int:
        aged = self._aged[place].get((number, passed_ns))
        if aged is None:
            aged = self.machines[place].pass_time(self.nodes[place][number], passed_ns).number
            self._aged[place][number, passed_ns] = aged
        return aged

    def holders(self) -> set[tuple[int, int]]:
        """Who was seen with an open gate, as (term, node): a model that never sees a second one has asked nothing."""
        seen = (node.core for nodes in self.nodes for node in nodes if node.open)
        return {(core.lease.term, core.me) for core in seen if core is not None and core.lease is not None}

    # --- for the story ------------------------------------------------------------------------------

    def patient(self, state: State) -> tuple[bool, ...]:
        """On which nodes a write takes time: where a crash may still come before it is done.

        Without a crash a slow disk does nothing that a slow network cannot do: it delays what is sent.
        """
        return self._patient if self._budgets.values[state[BUDGET]].crashes else IMPATIENT

    def place_of(self, step: int) -> int | None:
        """The place of the node whose core takes the step; None if none does."""
        kind, what = Kind(step & KIND_MASK), step >> KIND_BITS
        if kind in (Kind.TAKE, Kind.TAKE_AND_KEEP):
            return self._to[what]
        if kind is Kind.OPERATE:
            return self.model.operations[what][0] - 1
        return None if kind in (Kind.TIME, Kind.CRASH) else what

    # --- what one node does -------------------------------------------------------------------------

    def outcome(self, place: int, before: int, step: int, patient: bool) -> Outcome:
        """Work a step of one node out, by the real core."""
        machine, node = self.machines[place], self.nodes[place][before]
        kind, what = Kind(step & KIND_MASK), step >> KIND_BITS
        if kind is Kind.START:
            return machine.start(node, patient)
        if kind is Kind.WRITE:
            return machine.write(node)
        return machine.step(node, self.event(kind, what), patient)

    def event(self, kind: Kind, what: int) -> ev.Event:
        """What the core is told in a step."""
        if kind is Kind.TIMER:
            return ev.Tick()
        if kind is Kind.VIP_DOWN:
            return ev.VipDown()
        if kind is Kind.OPERATE:
            return self.model.operations[what][1]
        mail = self.mail.values[what]
        return ev.Arrived(mail.sender, mail.record_id, mail.message)

    def _work_out(self, place: int, before: int, step: int, patient: bool) -> _Result:
        outcome = self.outcome(place, before, step, patient)
        sent = [self._number(mail) for mail in outcome.mail if 1 <= mail.to <= SIZE]
        newest = {self._slot[number]: number for number in sent}
        result = _Result(
            outcome.node.number,
            tuple(newest.values()) if self.model.kept == 1 else tuple(sent),
            frozenset(newest),
            self._facts.of(outcome.facts),
            outcome.node.open or outcome.node.lease,
            outcome.wrong,
        )
        self._results[place][before, step, patient] = result
        return result

    def _number(self, mail: Mail) -> int:
        number = self.mail.of(mail)
        if number == len(self._to):
            self._to.append(mail.to - 1)
            self._slot.append((mail.sender * 10 + mail.to) * (max(KINDS) + 1) + NUMBERS[type(mail.message)])
            self._newness.append(_newness(mail.message))
        return number

    # --- where it begins ----------------------------------------------------------------------------

    def _begin(self) -> State:
        """Everything off; for a cluster that is led, all goes well until n1 leads."""
        state: State = (0, self._budgets.of(self.model.budget), *(machine.off.number for machine in self.machines))
        if self.model.start is Start.ELECTED:
            state = self._led(state, {2})
            return (*state[:MAIL], *(number for number in state[MAIL:] if not self._is_answer(number)))
        return self._led(state, {2, 3})[:MAIL] if self.model.start is Start.LED else state

    def _is_answer(self, number: int) -> bool:
        """To a question of the election that is over."""
        return isinstance(self.mail.values[number].message, Granted | Refused)

    def _led(self, state: State, after: set[int]) -> State:
        """Without any fault, by kinds of steps, until these nodes have acknowledged n1's first document."""
        budget, state = state[BUDGET], (state[MEMORY], 0, *state[NODES:])
        for _ in range(SETTLED_STEPS):
            core = self.nodes[0][state[NODES]].core
            if core is not None and core.state is Role.LEADER and core.committed() and set(core.stored) >= after:
                return (state[MEMORY], budget, *state[NODES:])
            steps = self.steps(state)
            state = min(steps, key=lambda step: (step[0] & KIND_MASK, step[0]))[1]
        raise AssertionError("nobody leads although nothing goes wrong")


def _newness(message: Message) -> tuple[int, int, int]:
    """Which of two messages of one kind from one node is the newer: term, boot, and the number within them."""
    asked: RoundId | None = getattr(message, "round_id", None)
    boot, number = (
        (getattr(message, "boot", 0), getattr(message, "sequence", 0)) if asked is None else (asked.boot, asked.number)
    )
    return getattr(message, "term", 0), boot, number
