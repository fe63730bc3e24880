"""The heartbeat sender of one path.

It tells every peer, every interval and at once when something changed, what watchdog main last said of this node, and
whom the receiver of this path hears. It refuses to speak for a watchdog that has fallen silent: after two seconds the
heartbeat goes on (the host lives), but claims neither a role nor that the node could lead.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from operator import attrgetter

from pgvigil.heartbeat import udp
from pgvigil.heartbeat.packet import Heartbeat, Signer
from pgvigil.heartbeat.settings import HeartbeatSettings, PeerAddress
from pgvigil.heartbeat.shell import Shell
from pgvigil.heartbeat.template import Template
from pgvigil.heartbeat.trouble import Retry, Troubles
from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import Inbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns, kernel_boot_id
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.ready import Link

logger = logging.getLogger("pgvigil")

CONTENT_VALID_NS = 2 * NS_PER_S
EXTRA_ROUND_NS = 50 * NS_PER_MS
CHECK_INTERVAL_NS = 5 * NS_PER_S
HEARING_VALID_NS = 12 * NS_PER_S  # two repetitions of a receiver
NOTHING_SAID = frames.Beat(frames.Role.UNKNOWN, 0, False, frames.Health.UNKNOWN, 0, 0, (), 0)


def boot_number(boot_id: str) -> int:
    """The kernel's boot id (a UUID) as a number that fits the codec."""
    return int(boot_id.replace("-", ""), 16) & (2**63 - 1)


class Words:
    """What may be said of this node: silence of watchdog main takes away role and electability.

    The beats that it gives out are the same objects as long as nothing changes but the ages, which come separately.
    """

    def __init__(self, started_at_ns: int) -> None:
        self._content: frames.BeatContent | None = None
        self._started_at_ns = started_at_ns
        self._said_at_ns = started_at_ns
        self._silent = NOTHING_SAID
        self._hears: tuple[int, ...] = ()

    def take(self, content: frames.BeatContent) -> bool:
        """What watchdog main says; true if peers should hear of it at once."""
        old = None if self._content is None else self._content.beat
        content = replace(content, beat=replace(content.beat, hears=self._hears))
        if old is not None and old == content.beat:
            content = replace(content, beat=old)
        else:
            self._silent = replace(content.beat, role=frames.Role.UNKNOWN, electable=False)
        self._content, self._said_at_ns = content, content.said_at_ns
        return differs(old, content.beat)

    def hear(self, node_ids: tuple[int, ...]) -> bool:
        """Whom the receiver of this path hears; true if that is news, and peers should hear of it at once."""
        if node_ids == self._hears:
            return False
        self._hears = node_ids
        self._silent = replace(self._silent, hears=node_ids)
        if self._content is not None:
            self._content = replace(self._content, beat=replace(self._content.beat, hears=node_ids))
        return True

    def now(self, now_ns: int) -> tuple[frames.Beat, int, int]:
        """A beat with the words of this instant, and what stands for its `up_for_ms` and `content_age_ms`."""
        age_ns = max(0, now_ns - self._said_at_ns)
        if self._content is None:
            return self._silent, 0, age_ns // NS_PER_MS
        up_for_ms = max(0, now_ns - self._content.started_at_ns) // NS_PER_MS
        return self._content.beat if age_ns < CONTENT_VALID_NS else self._silent, up_for_ms, age_ns // NS_PER_MS


def differs(old: frames.Beat | None, new: frames.Beat) -> bool:
    """Whether peers should hear of it at once."""
    return old is None or _acted_on(old) != _acted_on(new)


_acted_on = attrgetter("role", "term", "electable", "pgpool", "cannot_query")


class Sender:
    """A participant of the loop: rounds of heartbeats."""

    def __init__(self, settings: HeartbeatSettings, shell: Shell) -> None:
        self._settings = settings
        self._signer = Signer(settings.key)
        self._boot = boot_number(kernel_boot_id())
        self._interval_ns = settings.interval_ms * NS_PER_MS
        self._destinations: dict[int, udp.Address] = {}
        self._peer_ids = frozenset(peer.node_id for peer in settings.peers)
        self._sessions: dict[int, frames.PeerSession] = {}
        self._hearing_ends_ns = 0
        self._echoes: dict[int, frames.Echo] = {}
        self._counters = dict.fromkeys(self._peer_ids, 0)
        self._words = Words(boottime_ns())
        self._templates: dict[int, tuple[frames.PeerSession, frames.Beat, Template]] = {}
        self._last_round_ns = 0
        self._due_ns = 0
        self._check_due_ns = 0
        self._socket: udp.PathSocket | None = None
        self._retry = Retry()
        self._troubles = Troubles(settings.path, settings.node_id, logger.warning)
        self._outbox = shell.outbox(endpoints.lifecheck_endpoint(settings.run_dir))
        self.sent = 0

    def describe(self) -> str:
        """For the sign of life and for `Ready`."""
        state = "sending" if self._socket is not None else f"not sending: {self._retry.reason}"
        return f"{state}; {self.sent} sent, {self._troubles.total} refused"

    def on_frames(self, inbox: Inbox) -> None:
        """Take nonces and contents; either may ask for an extra round."""
        for received in inbox.receive():
            if isinstance(received.frame, frames.Sessions):
                self._take_sessions(received.frame)
            elif isinstance(received.frame, frames.BeatContent):
                self._take_content(received.frame)

    def _take_sessions(self, table: frames.Sessions) -> None:
        # Only what fits into a datagram: ids of configured nodes are short and few.
        changed = self._words.hear(tuple(node_id for node_id in table.hears if node_id in self._peer_ids))
        self._hearing_ends_ns = boottime_ns() + HEARING_VALID_NS
        self._echoes = {echo.node_id: echo for echo in table.echoes}
        for session in table.peers:
            if session.node_id not in self._peer_ids:
                continue
            old = self._sessions.get(session.node_id)
            if session.theirs == 0 and old is not None:
                session = replace(session, theirs=old.theirs)  # a receiver that has just started; theirs still holds
            if session != old:
                self._sessions[session.node_id] = session
                changed = True
        if changed:
            self._hurry()

    def _take_content(self, content: frames.BeatContent) -> None:
        if self._words.take(content):
            self._hurry()

    def _hurry(self) -> None:
        self._due_ns = min(self._due_ns, self._last_round_ns + EXTRA_ROUND_NS)

    def wake(self) -> int | None:
        return self._due_ns

    def tick(self, now_ns: int) -> None:
        self._last_round_ns = now_ns
        self._due_ns = now_ns + self._interval_ns
        self._keep_socket(now_ns)
        if now_ns >= self._hearing_ends_ns:
            self._words.hear(())
        if self._socket is not None:
            words = self._words.now(now_ns)
            for peer in self._settings.peers:
                self._send(peer, words, self._socket)
        for trouble in self._troubles.due(now_ns):
            self._outbox.send(trouble)

    def _send(self, peer: PeerAddress, words: tuple[frames.Beat, int, int], path_socket: udp.PathSocket) -> None:
        session = self._sessions.get(peer.node_id)
        if session is None:
            return  # without a nonce of ours nobody could answer in a way that we believe
        beat, up_for_ms, age_ms = words
        template = self._template(session, beat)
        self._counters[peer.node_id] += 1
        counter, now_ns = self._counters[peer.node_id], boottime_ns()
        echoed, held_ns = self._echo(peer.node_id, now_ns)
        datagram = self._signer.sign(template.fill(now_ns, counter, echoed, held_ns, up_for_ms, age_ms))
        try:
            path_socket.socket.sendto(datagram, self._destination(peer))
            self.sent += 1
        except (OSError, CommandError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            target = f"{peer.label} ({udp.show(peer.address, peer.port)})"
            reason = f"cannot send heartbeats to {target} on {self._settings.interface}: {why}"
            self._troubles.add(peer.node_id, "send", reason, now_ns)

    def _echo(self, node_id: int, now_ns: int) -> tuple[int, int]:
        """What this heartbeat answers, and how long that was held. Each echo goes out once: an old one says less."""
        echo = self._echoes.pop(node_id, None)
        return (0, 0) if echo is None else (echo.sequence, max(0, now_ns - echo.heard_at_ns))

    def _template(self, session: frames.PeerSession, beat: frames.Beat) -> Template:
        """Made again when the nonces or the words are other objects than last time."""
        known = self._templates.get(session.node_id)
        if known is not None and known[0] is session and known[1] is beat:
            return known[2]
        node_id, path = self._settings.node_id, self._settings.path
        heartbeat = Heartbeat(
            node_id, session.node_id, path, self._boot, session.ours, session.theirs, 0, 0, 0, 0, beat
        )
        template = self._signer.template(heartbeat)
        self._templates[session.node_id] = session, beat, template
        return template

    def _destination(self, peer: PeerAddress) -> udp.Address:
        known = self._destinations.get(peer.node_id)
        if known is None:
            known = self._destinations[peer.node_id] = udp.resolve(peer.address, peer.port)[1]
        return known

    def _keep_socket(self, now_ns: int) -> None:
        if self._socket is not None and now_ns >= self._check_due_ns:
            self._check_due_ns = now_ns + CHECK_INTERVAL_NS
            try:
                self._socket.check()
            except CommandError as error:
                self._socket.close()
                self._socket = None
                self._failed(str(error), now_ns)
        if self._socket is None and now_ns >= self._retry.due_ns:
            try:
                self._socket = udp.PathSocket(self._settings.interface, self._settings.address, 0)
            except CommandError as error:
                self._failed(str(error), now_ns)
                return
            self._check_due_ns = now_ns + CHECK_INTERVAL_NS
            if self._retry.succeeded():
                logger.info("heartbeats are sent from %s again", self._settings.address)
            self._troubles.resolve(self._settings.node_id)

    def _failed(self, reason: str, now_ns: int) -> None:
        self._retry.failed(reason, now_ns)
        self._troubles.add(self._settings.node_id, "socket", f"no heartbeats are sent: {reason}", now_ns)


def run(settings: HeartbeatSettings, link: Link, life_interval_ns: int) -> int:
    """The process; returns its exit code."""
    name = f"heartbeat sender {settings.interface}"
    shell = Shell(name, link)
    shell.set_title(f"{name} -> {','.join(peer.label for peer in settings.peers)}")
    sender = Sender(settings, shell)
    shell.inbox(endpoints.sender_endpoint(settings.run_dir, settings.path), sender.on_frames)
    sender.tick(boottime_ns())
    shell.loop.join(sender)
    return shell.run(sender.describe, life_interval_ns)
