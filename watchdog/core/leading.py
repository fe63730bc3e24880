"""What a node does as leader: renewals, lease, document (PROTOCOL 3, 6, 7).

How it ceases to be the leader of its own will is in `handing_over`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import InvariantError
from pgvigil.ipc.frames import Health
from pgvigil.watchdog.core.base import Change
from pgvigil.watchdog.core.events import ChangeVoters, CloseGate, DropVip, HoldVip, Level
from pgvigil.watchdog.core.lease import NS_PER_MS, Lease, Promise, Renewal
from pgvigil.watchdog.core.messages import Ack, Outcome, Renew, RenewRefused
from pgvigil.watchdog.core.quorum import Tally, tally
from pgvigil.watchdog.core.record import Document, QuorumRule, Stamp
from pgvigil.watchdog.core.standing import Standing
from pgvigil.watchdog.core.states import State, Trigger

HALF_FIRST = 'quorum = "half" is given up until the voters have changed; ask again'
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
                        self.say_committed(),
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
            self.go(
                Trigger.LEASE_LOST, f"no majority of {counted(len(self.voter_ids), 'voter')} has acknowledged in time"
            )
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
        self.agree(document)
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
        if (settings.lease_ms, settings.quorum, address) == (document.lease_ms, document.quorum, document.tie_breaker):
            return document  # asked in every step
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

    @abstractmethod
    def _let_go_while_cut(self) -> None:
        """Let go of the VIP while its interface is down."""

    @abstractmethod
    def _stay_electable(self) -> None:
        """Hand over when another node should lead."""

    @abstractmethod
    def _end_hand_over(self, released: bool) -> None:
        """Stop leading at the end of a hand-over."""
