"""What a node does as leader: renewals, lease, document, hand-over (PROTOCOL 3, 4, 6, 7)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Health, StopMode
from pgvigil.watchdog.core.base import Change, HandOver
from pgvigil.watchdog.core.events import (
    ChangeVoters,
    CloseGate,
    DropVip,
    Finished,
    HoldVip,
    Level,
    PeerView,
    SwitchOver,
)
from pgvigil.watchdog.core.lease import NS_PER_MS, Lease, Promise, Renewal
from pgvigil.watchdog.core.messages import Ack, AskHandOver, Outcome, Release, Renew, RenewRefused, TellHandOver
from pgvigil.watchdog.core.quorum import Tally, tally
from pgvigil.watchdog.core.rank import Standing as Rank
from pgvigil.watchdog.core.record import NOBODY, Document, QuorumRule, Stamp
from pgvigil.watchdog.core.standing import Standing
from pgvigil.watchdog.core.states import State, Trigger

SMART_LINGER_NS = 1_000 * NS_PER_MS
FAST_LINGER_NS = 100 * NS_PER_MS
HALF_FIRST = 'quorum = "half" is given up until the voters have changed; ask again'
HALF_WAITS = (
    "half of the voters carries the virtual IP, and another leader by half comes two leases later at the earliest; it "
    "would cost an outage"
)
TOO_FEW = "too few of the voters that would remain are alive and up to date; start them first"
TOO_EARLY = "too few of the voters that would remain have the newest document yet; try again"


class Leading(Standing):
    """The leader's side."""

    def won(self, term: int) -> None:
        """P15, P16: the won term and the re-stamped document are durable before the first renewal."""
        document = self.document
        assert document is not None, "a node without a document never stands"
        carried_ns = self.lease.until_ns if self.lease is not None and self.lease_held() else None
        self.persist(
            won_term=term,
            document=document.stamped(Stamp(term, 1)),
            promised_ms=max(self.record.promised_ms, document.lease_ms),
        )
        self.go(Trigger.REELECTED if self.state is State.LEADER else Trigger.VOTES_WON, term=term)
        self._begin_lease(term, carried_ns)

    def _begin_lease(self, term: int, carried_ns: int | None) -> None:
        self.lease = Lease(self.me, term, self.record.boot, self.now_ns, carried_ns)
        self.stored = {}
        self.committed_stamp = None
        self.leader_id, self.leader_term = self.me, term
        self.unranked_until_ns = {}
        self.successor_until_ns = 0
        self.advance_leading()

    def resume(self) -> None:
        """P15: the right to send renewals of the own term under the new boot, and nothing more."""
        self.go(Trigger.RESUMES)
        self._begin_lease(self.record.term, None)

    def stop_leading(self) -> None:
        """P3: the promise to oneself stays; only P8 ends it."""
        self.lease = None
        self.round = None
        self.committed_stamp = None
        self.better_since_ns = None
        self.vip_let_go_ns = None
        if self.leader_id == self.me:
            self.leader_id = 0
        if self.change_request is not None:
            # P16: what was sent but not committed may surface later
            change, self.change_request = self.change_request, None
            text = "unknown: this node stopped leading before the change was committed"
            self.tell_change(change, Outcome.UNKNOWN, text)

    # --- renewals ---------------------------------------------------------------------------------

    def advance_leading(self) -> None:
        """Renew when due (P1), look after the document, hand over when it must be."""
        lease = self.lease
        if not self.leading or lease is None:
            return
        if self.now_ns >= lease.next_renewal_ns and not (self.round is not None and self.round.real):
            lease.next_renewal_ns = self.now_ns + self.renew_ns
            self._send_renewal(lease, lease.renew(self.now_ns, self.lease_ns // NS_PER_MS))
        if self.state is State.LEADER:
            self._stay_elected()
            self._tend_document()
            self._let_go_while_cut()
            self._stay_electable()

    def _send_renewal(self, lease: Lease, renewal: Renewal) -> None:
        """P1, P3: sent to every node; the leader promises itself from the instant of sending."""
        if renewal.lease_ms > self.record.promised_ms:
            self.persist(promised_ms=renewal.lease_ms)  # P19: a newer document of another leader may have a larger L
        until_ns = renewal.sent_at_ns + renewal.lease_ms * NS_PER_MS
        if self.promise is not None and self.promise.leader == self.me:
            until_ns = max(until_ns, self.promise.until_ns)  # a smaller L shortens no promise
        self.promise = Promise(self.me, lease.term, lease.boot, renewal.sequence, until_ns)
        document = self.document
        assert document is not None
        for node in self.settings.nodes:
            if node.node_id != self.me:
                lacking = self.stored_by(node.node_id) != document.stamp
                self.send(
                    node.node_id,
                    Renew(
                        lease.term,
                        lease.boot,
                        renewal.sequence,
                        renewal.lease_ms,
                        document.stamp,
                        document if lacking else None,
                    ),
                )
        self._settle(lease)

    def on_ack(self, sender: int, record_id: int, message: Ack) -> None:
        """P4: only acknowledgements of the own term and boot, of voters with the record the document names."""
        lease = self.lease
        if not self.leading or lease is None or (message.term, message.boot) != (lease.term, lease.boot):
            return
        self.stored[sender] = (record_id, message.stored)
        if not self.is_voter(sender, record_id):
            self._unbound_or_lost(sender, record_id)
            return
        lease.acknowledge(sender, message.sequence)
        self._settle(lease)
        self._commit()

    def _settle(self, lease: Lease) -> None:
        before = lease.by_half
        if lease.settle(self.voter_ids, self.now_ns, self.half_rule()) and lease.until_ns is not None:
            if self.state is State.ELECTED:
                who = "half of the voters have" if lease.by_half else "a majority has"
                self.go(Trigger.LEASE_GAINED, f"{who} acknowledged")
            if lease.by_half and not before:
                # Half counts a renewal one R after it was sent; a repeated first one would leave a gap of two.
                lease.next_renewal_ns = self.now_ns
                self.note("leads with half of the voters while the tie-breaker answers: changes nothing", Level.WARNING)
            elif before and not lease.by_half:
                self.note("leads with a majority of the voters again")
            if self.vip_let_go_ns is None:
                self.emit(HoldVip(lease.until_ns))
        self._commit()

    def settle_by_half(self) -> None:
        """P22 c: the tie-breaker has answered, or not."""
        if self.leading and self.lease is not None and self.half:
            self._settle(self.lease)

    def on_renew_refused(self, sender: int, record_id: int, message: RenewRefused) -> None:
        """P12: a term named in a refusal is remembered; `_stay_elected` does the rest."""
        self.known_term = max(self.known_term, message.known_term)

    def _stay_elected(self) -> None:
        """P12: a leader with a lease that hears of a higher term has itself elected above it, with the gate open."""
        if (
            self.lease is not None
            and self.known_term > self.lease.term
            and self.round is None
            and self.now_ns >= max(self.pause_until_ns, self.restart_wait_until_ns)  # P14
            and self._time_to_be_elected_again(self.lease)
        ):
            self.note(f"term {self.known_term} is known somewhere: has itself elected again while its lease runs")
            self._ask()

    def _time_to_be_elected_again(self, lease: Lease) -> bool:
        """A round of votes stops the renewals. With slow disks it begins right after one, or the lease ends in it.

        A lease by half counts from a renewal one R ago, up to a third of L: it never has three quarters left.
        """
        if self.round_ns == self.settings.round_ns:
            return lease.held(self.now_ns)
        return lease.held(self.now_ns + (self.lease_ns // 2 if lease.by_half else self.lease_ns * 3 // 4))

    def expire_lease(self) -> None:
        """P6: a leader without a lease stops renewing and steps down."""
        lease = self.lease
        if lease is None:
            return
        if self.state is State.LEADER and not lease.held(self.now_ns):
            self.emit(CloseGate())
            self.emit(DropVip())
            self.go(Trigger.LEASE_LOST, f"no majority of {len(self.voter_ids)} voters has acknowledged in time")
            self.stop_leading()
        elif self.state is State.ELECTED and self.now_ns >= lease.since_ns + self.lease_ns:
            self.emit(CloseGate())
            self.emit(DropVip())
            self.go(Trigger.NEVER_LEASED, "no majority has acknowledged it")
            self.stop_leading()
        elif self.state is State.RELEASING and self.now_ns >= (lease.until_ns or lease.since_ns + self.lease_ns):
            self.go(Trigger.RELEASE_LATE, "the address could not be taken off in time, so no promise is released")
            self._end_hand_over(released=False)

    def lease_wake_ns(self) -> list[int]:
        """Instants at which the lease or the next renewal is due."""
        lease = self.lease
        if lease is None:
            return []
        due = [lease.until_ns] if lease.until_ns is not None else [lease.since_ns + self.lease_ns]
        if self.leading and not (self.round is not None and self.round.real):
            # What became due within this very step, say for a new document, is due at once.
            due.append(max(lease.next_renewal_ns, self.now_ns + 1))
        return due

    # --- document ---------------------------------------------------------------------------------

    def _commit(self) -> None:
        """P16: committed is what a majority has stored, in the leader's own term, acknowledged to its own boot."""
        document = self.document
        if document is None or self.lease is None or document.stamp.term != self.lease.term:
            return
        if self.committed_stamp == document.stamp:
            return
        having = {
            node
            for node, (record_id, stamp) in self.stored.items()
            if stamp == document.stamp and self.is_voter(node, record_id)  # P18: a lost record counts for nothing
        } | {self.me}
        if tally(self.voter_ids, having, ()) is not Tally.WON:
            return
        self.committed_stamp = document.stamp
        if self.change_request is not None and self.change_request.stamp <= document.stamp:
            change, self.change_request = self.change_request, None
            self.tell_change(change, Outcome.DONE, f"committed as document {document.stamp}")

    def stored_by(self, node_id: int) -> Stamp | None:
        """The stamp that a node has acknowledged to this incarnation of the leader."""
        return self.stored[node_id][1] if node_id in self.stored else None

    def committed(self) -> bool:
        """Whether the newest document is committed, so that it may be acted on and changed (P16, P18)."""
        return self.document is not None and self.committed_stamp == self.document.stamp

    def propose(self, document: Document) -> Stamp:
        """P16: a new version, durable here before the first send; one change is in flight at a time."""
        assert self.lease is not None and self.document is not None and self.committed()
        self._check_half(self.document, document)
        stamp = Stamp(self.lease.term, self.document.stamp.version + 1)
        self.persist(
            document=document.stamped(stamp), promised_ms=max(self.record.promised_ms, document.lease_ms)
        )  # P19
        self.lease.next_renewal_ns = self.now_ns
        return stamp

    @staticmethod
    def _check_half(old: Document, new: Document) -> None:
        """P22 b: half(P0) -> majority(P0) -> majority(P1) -> half(P1), each committed before the next."""
        if QuorumRule.HALF in (old.quorum, new.quorum) and old.terms_of_half != new.terms_of_half:
            raise InvariantError(f"document {old.stamp} would change voters, L or tie-breaker under half: {new}")

    def _tend_document(self) -> None:
        """P19, P22 a: what the file proposes is put into the document, one committed step at a time."""
        document = self.document
        if document is None or not self.committed() or not self.lease_held() or self.leads_by_half:
            return
        wanted = self._proposed(document)
        if self.half and wanted != document:
            self._leave_half("the configuration has changed")
        elif wanted.lease_ms != document.lease_ms:
            self.note(f"changes the lease time from {document.lease_ms} ms to {wanted.lease_ms} ms")
            self.propose(replace(document, lease_ms=wanted.lease_ms))
        elif wanted.tie_breaker != document.tie_breaker:
            self.note(f"changes the tie-breaker to {wanted.tie_breaker}")
            self.propose(replace(document, tie_breaker=wanted.tie_breaker))
        elif wanted.quorum is not document.quorum and self._may_take_half(document):
            self.note('changes quorum to "half"')
            self.propose(wanted)

    def _proposed(self, document: Document) -> Document:
        """The document as the file wants it; a tie-breaker that is not used stays what it is."""
        settings = self.settings
        half = settings.quorum is QuorumRule.HALF
        address = settings.tie_breaker if half else document.tie_breaker
        return replace(document, lease_ms=settings.lease_ms, quorum=settings.quorum, tie_breaker=address)

    def _may_take_half(self, document: Document) -> bool:
        """P22 b: no change of the voters is under way, nor one to come for a voter that the founding left open."""
        waiting = self.now_ns < self.keeps_majority_until_ns
        return not waiting and self.wish is None and all(voter.record_id for voter in document.voters)

    def _leave_half(self, why: str) -> bool:
        """P22 b: the first step of every change; True if it had to be taken. For a while no other way follows it."""
        document = self.document
        self.keeps_majority_until_ns = self.now_ns + 2 * self.lease_ns
        if document is None or not self.half:
            return False
        self.note(f'changes quorum to "majority" first: {why}')
        self.propose(replace(document, quorum=QuorumRule.MAJORITY))
        return True

    def _unbound_or_lost(self, sender: int, record_id: int) -> None:
        """P18: a voter is bound to its first record; with another record it has lost its word and stays out."""
        document = self.document
        voter = None if document is None else document.voter(sender)
        if document is None or voter is None or record_id == 0:
            return
        if voter.record_id != 0:
            self.note_once(
                f"lost {sender} {record_id}",
                f"{self.label(sender)} answers with another record than the cluster knows: it lost its state_dir. "
                "It does not vote; remove it from the cluster and add it again",
                Level.ERROR,
            )
        elif self._not_now() is None and not self._leave_half("a voter joins"):
            self.propose(document.with_voter(sender, record_id))
            self.note(f"{self.label(sender)} joins as the voter that the founding left open")

    def _not_now(self) -> str | None:
        """P18: only a leader changes the voters, and only after its own document is committed."""
        if self.state is not State.LEADER or not self.lease_held():
            return f"{self.label(self.me)} is not the leader"
        if self.leads_by_half:  # P22 g
            return "half of the voters carries the virtual IP and changes nothing; start the others first"
        if not self.committed():
            return "another change is not committed yet; try again"
        return None

    def _change_refusal(self, event: ChangeVoters) -> str | None:
        """P18: one voter at a time, never the leader itself."""
        if bool(event.add) == bool(event.remove):
            return "exactly one voter can be added or removed at a time"
        if event.remove == self.me:
            return "the leader never removes itself; run `pgvigil switchover`, then this again"
        return self._catching_up(event)

    def _catching_up(self, event: ChangeVoters) -> str | None:
        """A change must leave a majority that is here and has the document, else nothing is ever committed again."""
        stamp = None if self.document is None else self.document.stamp
        here = {peer.node_id for peer in self.views.peers if peer.health is Health.ALIVE} | {self.me}
        if event.add and event.add not in {node.node_id for node in self.settings.nodes}:
            return (
                f"{self.label(self.me)}, the leader, has no [[node]] of id {event.add} in its file: give every node "
                "the same file, run `pgvigil reload` on each, then this again"
            )
        if event.add and (event.add not in here or self.stored_by(event.add) != stamp):
            late = event.add in here and event.add in self.stored and self.now_ns < self.keeps_majority_until_ns
            if late:
                return TOO_EARLY  # P22 b: the first step has only just been taken
            return f"{self.label(event.add)} does not follow this leader yet; start pgvigil there and try again"
        after = [node for node in (*self.voter_ids, event.add) if node and node != event.remove]
        counting = {node for node in here if node == event.add or not self._answers_as_another(node)}
        having = {node for node in counting if node == self.me or self.stored_by(node) == stamp}
        if tally(after, having, ()) is not Tally.WON:
            return TOO_FEW if tally(after, counting, ()) is not Tally.WON else TOO_EARLY
        return None

    def _answers_as_another(self, node_id: int) -> bool:
        """P18: one that has lost its record follows, but can commit nothing."""
        return node_id in self.stored and not self.is_voter(node_id, self.stored[node_id][0])

    @abstractmethod
    def tell_change(self, change: Change, outcome: Outcome, text: str) -> None:
        """Answer whoever asked for a change of the voters."""

    # --- hand-over --------------------------------------------------------------------------------

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
        elif self.now_ns >= self.better_since_ns + 2 * self.lease_ns:
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
