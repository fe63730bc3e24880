"""The decision core: `step(now, event) -> effects` and `wake() -> instant | None`.

A pure state machine: no socket, clock, file, thread or randomness that is not handed in. The process
shell, the scenario transcripts and the simulator all run this very object. After **every** step the shell asks `wake()`
again. The rules are those of PROTOCOL.md; their numbers (P1 to P22) stand beside the code that keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core import events, messages
from pgvigil.watchdog.core.deciding import Deciding
from pgvigil.watchdog.core.events import CloseGate, DropVip, Effect, Event, KeepVip, Level
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.states import State, Trigger


def restart_wait_ns(promised_ms: int, clean_stop: bool, now_ns: int) -> int:
    """P14: until when a started node neither votes nor stands; instants on CLOCK_BOOTTIME.

    Its promises were in memory, so it waits for the largest L it ever promised. The time since the machine started
    never counts: a container (nspawn, LXC) has a new boot id at each start and the clock of a host that ran on, and
    so has a state folder that was moved to another host.
    """
    return now_ns if clean_stop else now_ns + promised_ms * NS_PER_MS


class Watchdog(Deciding):
    """One node's decisions."""

    def step(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact in at `now_ns`; give the orders that follow, in their order."""
        if now_ns < self.now_ns:
            raise InvariantError(f"the clock went from {self.now_ns} back to {now_ns}")
        self.now_ns = now_ns
        self.effects = []
        self._doubt_if_late()
        self.expire_lease()
        self._handle(event)
        self._advance()
        self.expected_wake_ns = self.wake()
        return self.effects

    def wake(self) -> int | None:
        """The next instant at which time alone changes something; None while nothing does."""
        due = [*self.lease_wake_ns(), *self.freedom_wake_ns(), *self.voters_wake_ns(), *self.removal_wake_ns()]
        due += self.deciding_wake_ns()
        if self.round is not None:
            due.append(self.round.ends_at_ns)
        stand_at_ns = self.stand_at_ns() if self.state is State.STANDBY else None
        if stand_at_ns is not None:
            due.append(stand_at_ns)
        if self.state is State.LEADER and self.round is None and self.known_term > self.record.won_term:
            due.append(max(self.pause_until_ns, self.restart_wait_until_ns))
        if self.document is None and self.stopping is None:
            due.append(self.next_hello_ns)
        if self.hand_over_told is not None:
            due.append(self.hand_over_told.deadline_ns)
        if self.better_since_ns is not None:
            due.append(self.better_since_ns + 2 * self.lease_ns)
        if self.stopping is not None and self.state is not State.STOPPED and self.stop_deadline_ns is not None:
            due.append(self.stop_deadline_ns)
        later = [at for at in due if at > self.now_ns]
        return min(later) if later else None

    def _doubt_if_late(self) -> None:
        """Self-doubt: a loop that was late by more than R distrusts its verdicts about others for L."""
        expected_ns = self.expected_wake_ns
        if expected_ns is not None and self.now_ns > expected_ns and self.now_ns > expected_ns + self.renew_ns:
            late_ms = (self.now_ns - expected_ns) // NS_PER_MS
            self.doubt_until_ns = self.now_ns + self.lease_ns
            self.note(
                f"this process was {late_ms} ms late: distrusts its verdicts about others for a while", Level.WARNING
            )

    def _handle(self, event: Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is None:
            raise InvariantError(f"no handler for {type(event).__name__}")
        handler(self, event)

    def _advance(self) -> None:
        """What time and changed beliefs bring about, whatever the event was."""
        self.advance_founding()
        self.advance_leading()
        self.advance_commands()
        self.advance_deciding()
        self.note_freedom()
        self.advance_standing()
        self.advance_hand_over()
        self.advance_voters()
        self.advance_removal()
        self.advance_stop()
        self.note_freedom()

    # --- events -----------------------------------------------------------------------------------

    def _started(self, event: events.Started) -> None:
        record = self.record
        if self.named:
            self.go(Trigger.NAMED, f"document {record.stamp} names this record")
        resumable = record.won_term == record.term and record.term > 0 and record.released_term != record.term
        unfit = self.witness(self.me) or self.document is None or self.document.paused
        if self.state is State.STANDBY and resumable and not unfit:  # P15
            self.emit(KeepVip())
            self.resume()
        else:
            self.emit(CloseGate())
            self.emit(DropVip())
        if self.now_ns < self.restart_wait_until_ns:
            wait_ms = (self.restart_wait_until_ns - self.now_ns) // NS_PER_MS
            self.note(f"waits {wait_ms} ms before it votes or stands: its promises before the restart may still run")
        if self.document is not None and not self.named:
            why = self.removal_sentence()
            text = f"the stored document does not name this record: follows without a vote{f'; {why}' if why else ''}"
            self.note(text, Level.WARNING)

    def _arrived(self, event: events.Arrived) -> None:
        handler = _MESSAGES.get(type(event.message))
        if handler is None:
            raise InvariantError(f"no handler for {type(event.message).__name__}")
        self.note_arrival(event.sender)
        if self.state is not State.STOPPED:
            handler(self, event.sender, event.record_id, event.message)

    def _views(self, event: events.Views) -> None:
        self.views = event
        self.note_silence()
        if self.state is State.ELECTED and event.pgpool is Health.DEAD:
            self.emit(CloseGate())
            self.emit(DropVip())
            self.go(Trigger.UNFIT, str(self.unfit_reason()))
            self.stop_leading()
        self.settle_by_half()

    def _fence(self, event: events.FenceState) -> None:
        self.fence = event

    def _obstacle(self, event: events.Obstacle) -> None:
        if event.reason:
            self.obstacles[event.name] = event.reason
        else:
            self.obstacles.pop(event.name, None)

    def _stop(self, event: events.Stop) -> None:
        if event.mode is StopMode.IMMEDIATE:
            raise InvariantError("an immediate stop never asks the core")
        self.begin_stop(event.mode)


_HANDLERS: dict[type, Callable[[Watchdog, Any], None]] = {
    events.Started: Watchdog._started,
    events.Tick: lambda core, _: None,
    events.Arrived: Watchdog._arrived,
    events.Views: Watchdog._views,
    events.FenceState: Watchdog._fence,
    events.VipDown: lambda core, _: core.on_vip_down(),
    events.SwitchOver: Watchdog.on_switch_over,
    events.Bootstrap: Watchdog.on_bootstrap,
    events.ChangeVoters: Watchdog.on_change_voters,
    events.Leave: Watchdog.on_leave,
    events.Stop: Watchdog._stop,
    events.CommandEnded: Watchdog.on_command_ended,
    events.Obstacle: Watchdog._obstacle,
    events.BackendsSeen: Watchdog.on_backends_seen,
    events.AskDecision: Watchdog.on_ask_decision,
}

_MESSAGES: dict[type, Callable[[Watchdog, int, int, Any], None]] = {
    messages.Renew: Watchdog.on_renew,
    messages.Ack: Watchdog.on_ack,
    messages.RenewRefused: Watchdog.on_renew_refused,
    messages.Release: Watchdog.on_release,
    messages.PreVote: Watchdog.on_pre_vote,
    messages.Vote: Watchdog.on_vote,
    messages.Granted: Watchdog.on_granted,
    messages.Refused: Watchdog.on_refused,
    messages.Hello: Watchdog.on_hello,
    messages.Found: Watchdog.on_found,
    messages.AskHandOver: Watchdog.on_ask_hand_over,
    messages.TellHandOver: Watchdog.on_tell_hand_over,
    messages.AskVoters: Watchdog.on_ask_voters,
    messages.TellVoters: Watchdog.on_tell_voters,
    messages.Seen: Watchdog.on_seen,
    messages.AskBackend: Watchdog.on_ask_backend,
    messages.TellBackend: Watchdog.on_tell_backend,
}
