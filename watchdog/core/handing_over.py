"""How a leader ceases to lead of its own will: switch-over, preemption, stop, unfitness (PROTOCOL 4: P8, P9, P14).

A hand-over needs a successor that can take the VIP at once, or it is refused: whoever asks for another leader never
gets an outage for it. Only a stop goes on without one. Nothing is released before the VIP is known to be down.
"""

from __future__ import annotations

from abc import abstractmethod

from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core.answers import commanding
from pgvigil.watchdog.core.base import HandOver
from pgvigil.watchdog.core.events import CloseGate, DropVip, Finished, HoldVip, Level, PeerView, SwitchOver
from pgvigil.watchdog.core.leading import Leading
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import AskHandOver, Release, TellHandOver
from pgvigil.watchdog.core.rank import Standing as Rank
from pgvigil.watchdog.core.record import NOBODY
from pgvigil.watchdog.core.states import State, Trigger

SMART_LINGER_NS = 1_000 * NS_PER_MS
FAST_LINGER_NS = 100 * NS_PER_MS
HALF_WAITS = (
    "half of the voters carries the virtual IP, and another leader by half comes two leases later at the earliest; it "
    "would cost an outage"
)

COMMAND_RUNS = "the command of a decision on a backend runs, and the next leader would not know its outcome; try again"


class HandingOver(Leading):
    """The leader's way out."""

    def _successors(self) -> list[PeerView]:
        """P9: nodes that are alive, electable and have the document; best first."""
        document = self.document
        stamp = None if document is None else document.stamp
        fit = [peer for peer in self.candidates() if peer.electable and peer.health is Health.ALIVE]
        having = [peer for peer in fit if self.stored_by(peer.node_id) == stamp]
        ranks = {peer.node_id: Rank(peer.node_id, peer.priority, peer.started_at_ns) for peer in having}
        return sorted(
            having,
            key=lambda peer: sum(other.better_than(ranks[peer.node_id]) for other in ranks.values()),
        )

    def on_switch_over(self, event: SwitchOver) -> None:
        """An operator's wish on this node; a standby passes it on to the leader."""
        if self.state is State.LEADER:
            self._asked_to_hand_over(event.to, event.request_id, self.me)
        elif self.leader_id not in (0, self.me):
            self.send(self.leader_id, AskHandOver(event.request_id, event.to))
        else:
            self.answer(event.request_id, False, "there is no leader to hand over; see `pgvigil status`")

    def on_ask_hand_over(self, sender: int, record_id: int, message: AskHandOver) -> None:
        """Another node's operator wishes for another leader."""
        going = self.hand_over or self.hand_over_told
        if going is not None and (going.asker, going.request_id) == (sender, message.request_id):
            return  # the same wish on another path, or doubled
        if self.state is State.LEADER:
            self._asked_to_hand_over(message.to, message.request_id, sender)
        else:
            self.send(sender, TellHandOver(message.request_id, True, False, "that node is not the leader any more"))

    def on_tell_hand_over(self, sender: int, record_id: int, message: TellHandOver) -> None:
        """The leader's answer for this node's operator."""
        self.answer(message.request_id, message.accepted, message.text, message.final)

    def tell(self, hand_over: HandOver, accepted: bool, text: str, final: bool = True) -> None:
        """Answer whoever asked, here or on another node."""
        if hand_over.asker == self.me:
            self.answer(hand_over.request_id, accepted, text, final)
        elif hand_over.request_id is not None:
            self.send(hand_over.asker, TellHandOver(hand_over.request_id, final, accepted, text))

    def _asked_to_hand_over(self, to: int, request_id: int, asker: int) -> None:
        why = "an operator asked for it" + ("" if asker == self.me else f" on {self.label(asker)}")
        wish = HandOver(why, to, 0, request_id, asker, stop=False)
        if to == self.me:
            self.tell(wish, True, f"{self.label(self.me)} is the leader already")
            return
        if self.witness(to):
            self.tell(wish, False, f"refused: {self.label(to)} is a witness, which never leads")
            return
        if self.leads_by_half:  # P9
            self.tell(wish, False, f"refused: {HALF_WAITS}")
            return
        if self._commands_run():
            self.tell(wish, False, f"refused: {COMMAND_RUNS}")
            return
        fit = self._successors()
        chosen = [peer.node_id for peer in fit if to in (0, peer.node_id)]
        if not chosen:
            whom = "no other node" if to == 0 else self.label(to)
            verb = "is" if to == 0 else "is not"
            self.tell(
                wish, False, f"refused: {whom} {verb} alive, electable and up to date; it would cost an outage"
            )  # P9
            return
        wish.successor = chosen[0]
        self.begin_hand_over(wish)

    def _commands_run(self) -> bool:
        """P17: nobody after this leader would know how a decision's command ended."""
        return self.document is not None and commanding(self.document)

    def begin_hand_over(self, hand_over: HandOver) -> None:
        """P8: stop renewing; close the gate; drop the VIP. The rest follows when the VIP is down."""
        hand_over.deadline_ns = self.now_ns + self._unranked_ns()
        self.hand_over = hand_over
        self.round = None
        self.go(Trigger.RELEASES, hand_over.reason)
        self.emit(CloseGate())
        self.emit(DropVip())

    def on_vip_down(self) -> None:
        """P8: only now make the release durable and say it."""
        lease = self.lease
        if self.state is not State.RELEASING or lease is None or self.hand_over is None:
            return
        self.persist(released_term=lease.term)
        self.promise = None
        self.send_all(Release(lease.term, lease.boot, lease.sequence, self.hand_over.successor))
        self.go(Trigger.RELEASED)
        self._end_hand_over(released=True)

    def _end_hand_over(self, released: bool) -> None:
        hand_over = self.hand_over
        self.hand_over = None
        self.stop_leading()
        self.no_stand_until_ns = self.now_ns + self._unranked_ns()  # P9
        if hand_over is None:
            return
        if hand_over.request_id is not None:
            self.hand_over_told = hand_over
        if released and hand_over.successor:
            self.successor, self.successor_until_ns = hand_over.successor, self.now_ns + self.lease_ns

    def advance_hand_over(self) -> None:
        """Tell an operator when nobody has taken over."""
        told = self.hand_over_told
        if told is not None and self.now_ns >= told.deadline_ns:
            self.hand_over_told = None
            self.tell(told, False, "unknown: nobody has been seen taking over yet; see `pgvigil status`")

    def _stay_electable(self) -> None:
        """A leader that may not lead any more hands over, if anybody else can; preemption is asked for likewise."""
        reason = None
        if self.views.pgpool is Health.DEAD or self.views.unfit or not self.fence.can_hold:
            reason = self.unfit_reason()
        fit = self._successors() if reason is not None or self.settings.preempt else []
        if reason is not None and fit:
            self.warned.discard("unfit")
            successor = next((peer.node_id for peer in fit if self._reaches(peer.node_id)), 0)
            if successor:
                self.begin_hand_over(HandOver(reason, successor, 0, None, self.me, stop=False))
        elif reason is not None:
            self.note_once("unfit", f"leads although {reason}: no other node is alive, electable and up to date")
        else:
            self.warned.discard("unfit")
            self._preempt(fit)

    def _let_go_while_cut(self) -> None:
        """Let go of the VIP while its interface is down, and lead on: who could reach it there?

        The other nodes may be out of reach, too. A release that does not arrive would cost the VIP a whole lease even
        if the link is back at once, so a hand-over waits for an answer to a renewal from now on (`_reaches`). Without a
        successor it leads on for the document and the commands, and takes the VIP again when the link is back.
        """
        lease = self.lease
        if self.state is not State.LEADER or lease is None:
            return
        if self.views.vip_cut and self.vip_let_go_ns is None:
            self.vip_let_go_ns = lease.next_renewal_ns = self.now_ns
            self.note(f"lets go of the virtual IP: {self.views.unfit}", Level.WARNING)
            self.emit(CloseGate())
            self.emit(DropVip())
        elif not self.views.vip_cut and self.vip_let_go_ns is not None:
            self.vip_let_go_ns = None
            if lease.until_ns is not None and self.lease_held():
                self.note("takes the virtual IP again: its interface is up")
                self.emit(HoldVip(lease.until_ns))

    def _reaches(self, node_id: int) -> bool:
        """Whether a node has answered since the VIP's interface went down; true while it is up."""
        return self.vip_let_go_ns is None or self.acked_ns.get(node_id, 0) > self.vip_let_go_ns

    def _preempt(self, fit: list[PeerView]) -> None:
        """With `preempt`, a node of higher priority that has been fit for two leases takes over."""
        if not self.settings.preempt or self.leads_by_half or not fit or fit[0].priority <= self.standing().priority:
            self.better_since_ns = None
        elif self.better_since_ns is None:
            self.better_since_ns = self.now_ns
        elif self.now_ns >= self.better_since_ns + 2 * self.lease_ns and not self._commands_run():
            self.better_since_ns = None
            reason = f"{self.label(fit[0].node_id)} has a higher priority and preempt is set"
            self.begin_hand_over(HandOver(reason, fit[0].node_id, 0, None, self.me, stop=False))

    # --- stopping ---------------------------------------------------------------------------------

    def begin_stop(self, mode: StopMode) -> None:
        """Hand over first if leading; a successor is named if there is one, but a stop needs none.

        A smart stop then waits for the new leader's first renewal, a fast one only until its release has left.
        """
        if self.stopping is not None:
            return
        reason = f"{mode.value} stop"
        self.stopping = reason
        smart = mode is StopMode.SMART
        self.stop_deadline_ns = self.now_ns + (self.lease_ns + SMART_LINGER_NS if smart else FAST_LINGER_NS)
        if self.leading:
            fit = self._successors()
            successor = fit[0].node_id if fit else NOBODY
            self.begin_hand_over(HandOver(reason, successor, 0, None, self.me, stop=True))

    def advance_stop(self) -> None:
        """End once nothing is held: after a hand-over wait for the new leader's first renewal."""
        if self.stopping is None or self.state in (State.STOPPED, State.RELEASING, State.ELECTED, State.LEADER):
            return
        released = self.now_ns < self.no_stand_until_ns  # its vote may be needed more than once
        nobody_yet = released and self.leader_id == 0 and len(self.voter_ids) > 1 and self.candidates()
        deadline_ns = self.stop_deadline_ns or 0
        if nobody_yet and self.now_ns < deadline_ns:
            return
        if not self.leaves_first():
            self._finish(self.stopping)

    @abstractmethod
    def leaves_first(self) -> bool:
        """Whether a stop waits for this node to be removed from the voters."""

    def _finish(self, reason: str) -> None:
        """P14: the restart wait is spared only if no promise lives and the own wait is over."""
        free = self.promise is None or not self.promise.live(self.now_ns)
        self.round = None
        self.go(Trigger.STOPS, reason)
        self.persist(clean_stop=free and self.now_ns >= self.restart_wait_until_ns)
        self.emit(Finished())
