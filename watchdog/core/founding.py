"""How a cluster comes to be: blank nodes find one another, one of them founds (PROTOCOL 7, P18)."""

from __future__ import annotations

from pgvigil.ipc.counted import counted
from pgvigil.watchdog.core.events import Bootstrap, Level
from pgvigil.watchdog.core.lease import NS_PER_MS
from pgvigil.watchdog.core.messages import Found, Hello
from pgvigil.watchdog.core.quorum import majority
from pgvigil.watchdog.core.record import NOBODY, Document, Stamp, Voter
from pgvigil.watchdog.core.removal import Removal
from pgvigil.watchdog.core.states import State

FRESH_HELLO_RENEWALS = 10
SAY_WAITING_NS = 3_000 * NS_PER_MS


class Founding(Removal):
    """The first minutes of a cluster."""

    @property
    def founder(self) -> int:
        """The node that founds: of all configured members the highest priority, then the lowest id."""
        members = [node for node in self.settings.nodes if not node.witness]
        return max(members, key=lambda node: (node.priority, -node.node_id)).node_id if members else NOBODY

    def advance_founding(self) -> None:
        """Say hello while there is no document; found when every configured voter has said that it is blank."""
        if self.document is not None or self.stopping is not None:
            return
        if self.now_ns >= self.next_hello_ns:
            self.next_hello_ns = self.now_ns + self.renew_ns
            self.send_all(self._hello(answer=False))
        if self.founder == self.me and not self.waiting_for():
            self._found(self.settings_ids(), "every configured voter is here and blank")
        elif not self.waiting_said and self.now_ns >= self.started_at_ns + SAY_WAITING_NS:
            self.waiting_said = True
            self.note(self.waiting_sentence(), Level.WARNING)

    def settings_ids(self) -> tuple[int, ...]:
        """The configured voters: all nodes, witnesses included."""
        return tuple(sorted(node.node_id for node in self.settings.nodes))

    def waiting_for(self) -> tuple[int, ...]:
        """Configured voters of which no fresh word is known that they are blank and expect this founder."""
        fresh_ns = self.now_ns - FRESH_HELLO_RENEWALS * self.renew_ns
        heard = {
            node: hello
            for node, hello in self.hellos.items()
            if hello[0] >= fresh_ns and hello[2] and hello[3] == self.founder
        }
        return tuple(node for node in self.settings_ids() if node != self.me and node not in heard)

    def waiting_sentence(self) -> str:
        """What a new cluster waits for, with the command that ends the waiting."""
        missing = self.waiting_for()
        if missing:
            names = ", ".join(self.label(node) for node in missing)
            return (
                f"a new cluster waits for {names} to be heard; start pgvigil there, "
                "or run `pgvigil bootstrap` here to found the cluster without waiting"
            )
        return f"a new cluster waits for {self.label(self.founder)} to found it"

    def _hello(self, answer: bool) -> Hello:
        return Hello(self.document is None, self.founder, self.record.stamp, answer)

    def on_hello(self, sender: int, record_id: int, message: Hello) -> None:
        """Note what a node has; answer a question; a blank voter of a young document gets it."""
        self.hellos[sender] = (self.now_ns, record_id, message.blank, message.founder)
        document = self.document
        if message.blank and document is not None and document.stamp.term == 0:
            if self.is_voter(sender, record_id):
                self.send(sender, Found(document))
        elif not message.answer:
            self.send(sender, self._hello(answer=True))

    def on_found(self, sender: int, record_id: int, message: Found) -> None:
        """A blank node takes the founder's document if it names this very record."""
        voter = message.document.voter(self.me)
        if self.document is None and voter is not None and voter.record_id == self.record.record_id:
            self._take_document(message.document, f"{self.label(sender)} founded the cluster")

    def _found(self, voters: tuple[int, ...], why: str) -> None:
        """P18: the first document names every voter with its record; 0 where the record is not known yet."""
        records = {node: hello[1] for node, hello in self.hellos.items() if hello[2]}
        records[self.me] = self.record.record_id
        document = Document(
            Stamp(0, 1),
            1,
            tuple(Voter(node, records.get(node, 0)) for node in voters),
            self.settings.lease_ms,
            False,
            (),
        )
        self.persist(document=document)
        self._check_named(f"founded the cluster of {counted(len(voters), 'voter')}: {why}")
        for voter in document.voters:
            if voter.node_id != self.me and voter.record_id:
                self.send(voter.node_id, Found(document))

    def on_bootstrap(self, event: Bootstrap) -> None:
        """P18: an operator vouches that the voters not heard have never been part of another founding."""
        refusal = self._bootstrap_refusal()
        if refusal is not None:
            self.answer(event.request_id, False, refusal)
            return
        missing = ", ".join(self.label(node) for node in self.waiting_for()) or "nobody"
        self._found(self.settings_ids(), f"an operator ended the waiting for {missing}")
        text = f"founded; voters not heard yet: {missing}. They join by themselves when they start blank"
        self.answer(event.request_id, True, text)

    def _bootstrap_refusal(self) -> str | None:
        if self.state is not State.BLANK or self.document is not None:
            return f"this node belongs to a cluster already (document {self.record.stamp}); nothing was changed"
        for node, hello in sorted(self.hellos.items()):
            if not hello[2]:
                return (
                    f"{self.label(node)} belongs to a cluster already and will bring this node in; nothing was changed"
                )
        heard = {self.me, *self.hellos}
        needed = majority(len(self.settings_ids()))
        if len(heard) < needed:
            return (
                f"only {len(heard)} of {len(self.settings_ids())} nodes are heard, a majority is {needed}: start more"
            )
        return None
