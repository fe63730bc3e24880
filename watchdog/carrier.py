"""Carries the core's effects out, in their order: nothing leaves the node before what precedes it is durable.

Orders on the gate and the address never wait for the disk: a slow disk must not keep a gate from being closed, and
what opens it follows from acknowledgements that only durable state could have earned. Behind a disk that hangs
messages are dropped beyond a limit: the protocol repeats them or does without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.core.events import CloseGate, DropVip, Effect, HoldVip, KeepVip, Level, Note, Persist, Send
from pgvigil.watchdog.core.record import Document, Record

MAX_WAITING = 1024


class RecordWriter(Protocol):
    """The part of `store.Writer` that is needed here."""

    @property
    def failure(self) -> CommandError | None: ...
    def submit(self, record: Record) -> int: ...
    def completed(self) -> list[int]: ...


class Vip(Protocol):
    """The part of `vip.holder.VipHolder` that is needed here."""

    def keep(self) -> None: ...
    def hold(self, lease_end_ns: int) -> None: ...
    def close_gate(self) -> None: ...
    def drop(self, on_down: Callable[[], None]) -> None: ...


class Agrees(Protocol):
    """The part of the decision core that is needed here."""

    @property
    def agreed(self) -> Document | None: ...
    def agreed_at(self, now_ns: int) -> Document | None: ...


class Carrier:
    """The queue between decisions and actions."""

    def __init__(
        self,
        writer: RecordWriter,
        vip: Vip,
        on_vip_down: Callable[[], None],
        act: Callable[[Effect], None],
    ) -> None:
        """`act` carries out everything but durability, gate and address."""
        self._writer = writer
        self._vip = vip
        self._on_vip_down = on_vip_down
        self._act = act
        self._waiting: deque[int | Effect] = deque()
        self._dropping = False

    @property
    def idle(self) -> bool:
        """Whether everything has been carried out."""
        return not self._waiting

    def carry(self, effects: list[Effect]) -> None:
        """Carry out what may be carried out now, queue the rest behind the disk."""
        for effect in effects:
            if isinstance(effect, Persist):
                self._waiting.append(self._writer.submit(effect.record))
            elif not self._at_once(effect):
                if self._waiting:
                    self._wait(effect)
                else:
                    self._act(effect)

    def _wait(self, effect: Effect) -> None:
        if not isinstance(effect, Send) or len(self._waiting) < MAX_WAITING:
            self._waiting.append(effect)
        elif not self._dropping:
            self._dropping = True
            text = f"the disk hangs: {MAX_WAITING} messages wait for the record, and what comes now is dropped"
            self._act(Note(Level.WARNING, text))

    def _at_once(self, effect: Effect) -> bool:
        if isinstance(effect, HoldVip):
            self._vip.hold(effect.lease_end_ns)
        elif isinstance(effect, CloseGate):
            self._vip.close_gate()
        elif isinstance(effect, DropVip):
            self._vip.drop(self._on_vip_down)
        elif isinstance(effect, KeepVip):
            self._vip.keep()
        elif isinstance(effect, Note):
            self._act(effect)
        else:
            return False
        return True

    def written(self) -> None:
        """The writer has news: release what waited for it. `CommandError` if the disk refused."""
        done = set(self._writer.completed())
        if self._writer.failure is not None:
            raise self._writer.failure
        while self._waiting:
            head = self._waiting[0]
            if isinstance(head, int):
                if head not in done:
                    return
                done.discard(head)
                self._waiting.popleft()
            else:
                self._waiting.popleft()
                self._act(head)
        self._dropping = False


class Agreement:
    """The core's word on what may be acted on outside, kept back while it is not durable.

    A leader's commit rests on the disks of others that have heard of it after its own had it. A voter that is alone
    commits by its own write, so there the word counts only once everything has been written.
    """

    def __init__(self, core: Agrees, carrier: Carrier) -> None:
        self._core = core
        self._carrier = carrier

    @property
    def agreed(self) -> Document | None:
        """The newest document known to be committed, be it old; nothing is done by it."""
        return self._core.agreed

    def agreed_at(self, now_ns: int) -> Document | None:
        """The document that this node may act on at an instant (P23 a)."""
        agreed = self._core.agreed_at(now_ns)
        alone = agreed is not None and len(agreed.voters) == 1
        return None if alone and not self._carrier.idle else agreed
