"""The heartbeat receiver of one path.

It takes datagrams from the network, believes those that are authentic and fresh, and passes them on to lifecheck with
the instant of their arrival and with how well each peer is heard; it passes nonces and whom it hears to the sender of
the same path. It judges nobody, not even by silence: it only testifies that it was awake and there was nothing to
read. No datagram can end it: what it refuses is counted, explained once a minute, and reported.
"""

from __future__ import annotations

import logging
import os

from pgvigil.heartbeat import udp
from pgvigil.heartbeat.bundle import Bundle
from pgvigil.heartbeat.hearing import Hearing
from pgvigil.heartbeat.keywatch import KeyWatch
from pgvigil.heartbeat.packet import (
    MAC_BYTES,
    MAX_DATAGRAM_BYTES,
    Heartbeat,
    OtherKeyError,
    PacketError,
    Rejection,
    Signer,
)
from pgvigil.heartbeat.quality import Quality
from pgvigil.heartbeat.session import MAX_NONCE, Freshness, FreshnessTable
from pgvigil.heartbeat.settings import HeartbeatSettings
from pgvigil.heartbeat.shell import Shell
from pgvigil.heartbeat.template import Numbers, Template
from pgvigil.heartbeat.trouble import Retry, Troubles
from pgvigil.ipc import endpoints, frames
from pgvigil.ipc.channel import Outbox
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.ipc.ready import Link

logger = logging.getLogger("pgvigil")

DATAGRAMS_PER_WAKE = 64
BUSY_NS = 1 * NS_PER_MS
CHECK_INTERVAL_NS = 5 * NS_PER_S
CHORES_INTERVAL_NS = NS_PER_S
CHORES_EARLY_NS = 250 * NS_PER_MS  # when a datagram has woken us anyway
LATE_NS = 200 * NS_PER_MS
REPEAT_SESSIONS_NS = 5 * NS_PER_S
RETRY_SESSIONS_NS = 20 * NS_PER_MS
UNPROVEN_FOR_NS = 2 * NS_PER_S  # shorter is an exchange of nonces, longer is a peer that does not hear us


def draw_nonce() -> int:
    """63 random bits, never 0."""
    return int.from_bytes(os.urandom(8)) & MAX_NONCE or 1


class Receiver:
    """A participant of the loop, and the callback of the UDP socket."""

    def __init__(self, settings: HeartbeatSettings, shell: Shell) -> None:
        self._settings = settings
        self._shell = shell
        self._signer = Signer(settings.key)
        self._peers = {peer.node_id: peer for peer in settings.peers}
        self._by_host = {udp.normal_host(peer.address): peer for peer in settings.peers}
        self._freshness = FreshnessTable(tuple(self._peers), draw_nonce)
        self._known: dict[int, tuple[Heartbeat, Template]] = {}  # the last of each peer that said something new
        self._told_sessions: tuple[frames.PeerSession, ...] = ()
        self._last_fresh_ns = dict.fromkeys(self._peers, boottime_ns())
        self._quality = {node_id: Quality(settings.interval_ms * NS_PER_MS) for node_id in self._peers}
        self._hearing = Hearing(
            tuple(self._peers), settings.interval_ms, settings.deadtime_ms, settings.latest_ms, boottime_ns()
        )
        self._keys = KeyWatch()
        self._troubles = Troubles(settings.path, settings.node_id, logger.warning)
        self._bundle = Bundle(settings.interval_ms, settings.deadtime_ms)
        self._retry = Retry()
        self._socket: udp.PathSocket | None = None
        self._socket_due_ns = 0
        self._sessions_due_ns = 0
        self._chores_due_ns = 0
        self._newest_ns = 0
        sender_endpoint = endpoints.sender_endpoint(settings.run_dir, settings.path)
        self._to_sender: Outbox = shell.outbox(sender_endpoint, self._on_sender)
        self._to_lifecheck: Outbox = shell.outbox(endpoints.lifecheck_endpoint(settings.run_dir), self._on_lifecheck)
        self.rejected = dict.fromkeys(Rejection, 0)
        self.fresh = 0

    def describe(self) -> str:
        """For the sign of life and for `Ready`."""
        where = udp.show(self._settings.address, self._settings.port)
        state = f"listening on {where}" if self._socket is not None else f"not listening: {self._retry.reason}"
        if self._socket is not None and not self._socket.bound_to_interface:
            state += f" (not bound to {self._settings.interface}: no CAP_NET_RAW)"
        return f"{state}; {self.fresh} heard, {sum(self.rejected.values())} rejected"

    # --- datagrams --------------------------------------------------------------------------------

    def _on_datagrams(self) -> None:
        """One datagram, and many only if they come thick and fast: to learn that there is no second costs too."""
        now_ns = boottime_ns()
        self._notice_lateness(now_ns)
        busy, self._newest_ns = now_ns - self._newest_ns < BUSY_NS, now_ns
        self._read(DATAGRAMS_PER_WAKE if busy else 1)
        if now_ns >= self._chores_due_ns - CHORES_EARLY_NS:
            self._do_chores(now_ns)
        if self._hearing.soon(now_ns):
            self._look_for_silence(now_ns)

    def _read(self, most: int) -> bool:
        """Take datagrams; false if there may be more than `most`."""
        return any(self._socket is None or not self._receive(self._socket) for _ in range(most))

    def _receive(self, path_socket: udp.PathSocket) -> bool:
        """Take one datagram; false if there is none."""
        try:
            # One byte more than allowed: a longer datagram is cut there (MSG_TRUNC) and rejected by its size.
            datagram, source = path_socket.socket.recvfrom(MAX_DATAGRAM_BYTES + 1)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose_socket(f"cannot receive: {error.strerror}", boottime_ns())
            return False
        self._take(datagram, source, boottime_ns())
        return True

    def _take(self, datagram: bytes, source: udp.Address, now_ns: int) -> None:
        try:
            self._signer.check(datagram)
            if self._take_known(datagram, source, now_ns):
                return
            heartbeat = self._signer.read(datagram)
            self._check_addressee(heartbeat)
        except OtherKeyError as error:
            self._reject_other_key(error, source, now_ns)
            return
        except PacketError as error:
            peer = self._by_host.get(udp.plain_host(source))
            self._reject(error.rejection, None if peer is None else peer.node_id, source, str(error), now_ns)
            return
        freshness = self._freshness.judge(heartbeat, now_ns)
        if freshness is Freshness.FRESH:
            self._known[heartbeat.sender] = heartbeat, self._signer.template(heartbeat)
            self._measure(heartbeat.sender, heartbeat.numbers, now_ns)
            heard = frames.Heard(heartbeat.sender, self._settings.path, now_ns, heartbeat.beat)
            self._pass_on(heartbeat.sender, self._bundle.add(heard), source, now_ns)
        else:
            self._reject_stale(heartbeat, freshness, source, now_ns)
        self._tell_sessions_if_changed(now_ns)

    def _take_known(self, datagram: bytes, source: udp.Address, now_ns: int) -> bool:
        """The short way of an authentic datagram that says nothing new; false if it has to go the long one."""
        for heartbeat, template in self._known.values():
            numbers = template.read(datagram, MAC_BYTES)
            if numbers is None:
                continue
            if not self._freshness.is_next(heartbeat, numbers[0], now_ns):
                return False
            self._measure(heartbeat.sender, numbers, now_ns)
            urgent = self._bundle.repeat(heartbeat.sender, now_ns, numbers[4], numbers[5])
            self._pass_on(heartbeat.sender, urgent, source, now_ns)
            return True
        return False

    def _measure(self, sender: int, numbers: Numbers, now_ns: int) -> None:
        sequence, counter, echoed, held_ns, _, _ = numbers
        quality = self._quality[sender]
        quality.take(now_ns, sequence, counter)
        if echoed:
            quality.take_echo(now_ns, echoed, held_ns)

    def _check_addressee(self, heartbeat: Heartbeat) -> None:
        ours = self._settings
        if heartbeat.destination != ours.node_id or heartbeat.path != ours.path:
            raise PacketError(
                Rejection.MISDIRECTED,
                f"for node {heartbeat.destination} on path {heartbeat.path}, "
                f"expected node {ours.node_id} on path {ours.path}",
            )
        if heartbeat.sender not in self._peers:
            raise PacketError(
                Rejection.STRANGER, f"from node {heartbeat.sender}, expected one of {', '.join(map(str, self._peers))}"
            )

    def _pass_on(self, sender: int, urgent: bool, source: udp.Address, now_ns: int) -> None:
        self.fresh += 1
        self._last_fresh_ns[sender] = now_ns
        if self._hearing.heard(sender, now_ns):
            self._tell_sessions(now_ns)
        if urgent:
            self._send_bundle()
        peer = self._peers[sender]
        if self._keys.our_key(peer.label, now_ns):
            logger.info("heartbeats from %s (%s) are signed with our key again", udp.plain_host(source), peer.label)
            self._troubles.resolve(peer.node_id)

    def _send_bundle(self) -> None:
        self._tell_lifecheck(self._bundle.take(), 0)

    def _on_lifecheck(self) -> None:
        """Lifecheck was started (again): it shall know the living before it could take them for dead."""
        now_ns = boottime_ns()
        self._hearing.begin_again(now_ns)
        if beats := self._bundle.again(now_ns):
            self._tell_lifecheck(beats, 0)

    def _look_for_silence(self, now_ns: int) -> None:
        """Testify to silence, but only with everything read: after a standstill of ours there is something."""
        all_read = not self._hearing.silent(now_ns) or self._read(DATAGRAMS_PER_WAKE)
        heard_before = self._hearing.hears
        if self._hearing.look(now_ns) and all_read:
            self._tell_lifecheck(self._bundle.take(), now_ns)
        if self._hearing.hears != heard_before:
            self._tell_sessions(now_ns)

    def _tell_lifecheck(self, beats: tuple[frames.Heard, ...], quiet_at_ns: int) -> None:
        qualities = tuple(self._quality[beat.node_id].summary(beat.node_id) for beat in beats)
        if not self._to_lifecheck.send(frames.HeardTogether(beats, self._settings.path, quiet_at_ns, qualities)):
            self._bundle.forget()

    # --- refusals ---------------------------------------------------------------------------------

    def _reject(self, rejection: Rejection, node_id: int | None, source: udp.Address, detail: str, now_ns: int) -> None:
        self.rejected[rejection] += 1
        sender = udp.plain_host(source)
        reason = f"dropped a datagram from {sender} on {self._settings.interface}, {rejection.value}: {detail}"
        self._troubles.add(node_id, rejection.name, reason, now_ns)

    def _reject_other_key(self, error: OtherKeyError, source: udp.Address, now_ns: int) -> None:
        self.rejected[Rejection.OTHER_KEY] += 1
        host = udp.plain_host(source)
        peer = self._by_host.get(host)
        reason = (
            f"heartbeats from {host} ({peer.label if peer else 'no configured peer'}) are signed with another key "
            f"(theirs {error.theirs}, ours {self._signer.key_id}); is authkey_file the same on both hosts?"
        )
        # All strangers together have one line: their addresses are not authenticated and may be anybody's.
        say = self._keys.other_key(peer.label if peer else "", now_ns)
        self._troubles.add(peer.node_id if peer else None, None, reason, now_ns)
        if say:
            logger.warning("%s", reason)

    def _reject_stale(self, heartbeat: Heartbeat, freshness: Freshness, source: udp.Address, now_ns: int) -> None:
        peer = self._peers[heartbeat.sender]
        if freshness is Freshness.REPEATED:
            self._reject(Rejection.REPEATED, peer.node_id, source, f"{peer.label} did not send it now", now_ns)
            return
        self.rejected[Rejection.UNPROVEN] += 1
        silent_ns = now_ns - self._last_fresh_ns[peer.node_id]
        if silent_ns >= UNPROVEN_FOR_NS:
            reason = (
                f"heartbeats of {peer.label} arrive on {self._settings.interface} without echoing our nonce for "
                f"{silent_ns // NS_PER_S} s: it does not hear us there, or somebody replays old ones"
            )
            self._troubles.add(peer.node_id, f"unproven {peer.node_id}", reason, now_ns)

    # --- nonces for the sender --------------------------------------------------------------------

    def _tell_sessions_if_changed(self, now_ns: int) -> None:
        if self._freshness.announced() != self._told_sessions:
            self._tell_sessions(now_ns)

    def _on_sender(self) -> None:
        """The sender was started (again): it can say nothing without nonces, and dead times run."""
        self._tell_sessions(boottime_ns())

    def _tell_sessions(self, now_ns: int) -> None:
        table = self._freshness.announced()
        echoes = tuple(
            frames.Echo(node_id, self._quality[node_id].sequence, self._last_fresh_ns[node_id])
            for node_id in self._hearing.hears
        )
        taken = self._to_sender.send(frames.Sessions(self._settings.path, table, self._hearing.hears, echoes))
        self._told_sessions = table if taken else ()
        self._sessions_due_ns = now_ns + (REPEAT_SESSIONS_NS if taken else RETRY_SESSIONS_NS)

    # --- deadlines --------------------------------------------------------------------------------

    def wake(self) -> int | None:
        due_ns = min(self._sessions_due_ns, self._socket_due_ns, self._chores_due_ns, self._hearing.due_ns)
        return due_ns if self._bundle.due_ns is None else min(due_ns, self._bundle.due_ns)

    def _notice_lateness(self, now_ns: int) -> None:
        """What the chores are late by was our own standstill; no silence is testified to for that time."""
        late_ns = now_ns - self._chores_due_ns
        if self._chores_due_ns and late_ns > max(LATE_NS, self._settings.interval_ms * NS_PER_MS):
            self._chores_due_ns = now_ns
            reason = (
                f"the heartbeat receiver of {self._settings.interface} was late by {late_ns // NS_PER_MS} ms, so "
                "silence of that time is not held against peers; is the host overloaded?"
            )
            self._troubles.add(self._settings.node_id, "late", reason, now_ns)

    def tick(self, now_ns: int) -> None:
        self._notice_lateness(now_ns)
        if self._bundle.due_ns is not None and now_ns >= self._bundle.due_ns:
            self._send_bundle()
        if now_ns >= self._sessions_due_ns:
            self._tell_sessions(now_ns)
        if now_ns >= min(self._socket_due_ns, self._chores_due_ns):
            self._do_chores(now_ns)
        if now_ns >= self._hearing.due_ns:
            self._look_for_silence(now_ns)

    def _do_chores(self, now_ns: int) -> None:
        self._chores_due_ns = now_ns + CHORES_INTERVAL_NS
        if now_ns >= self._sessions_due_ns - CHORES_EARLY_NS:
            self._tell_sessions(now_ns)
        if now_ns >= self._socket_due_ns:
            self._keep_socket(now_ns)
        for trouble in self._troubles.due(now_ns):
            self._to_lifecheck.send(trouble)

    def _keep_socket(self, now_ns: int) -> None:
        if self._socket is None:
            self._open_socket(now_ns)
            return
        self._socket_due_ns = now_ns + CHECK_INTERVAL_NS
        try:
            self._socket.check()
        except CommandError as error:
            self._lose_socket(str(error), now_ns)

    def _open_socket(self, now_ns: int) -> None:
        settings = self._settings
        try:
            self._socket = udp.PathSocket(settings.interface, settings.address, settings.port)
        except CommandError as error:
            self._failed(str(error), now_ns)
            return
        self._socket_due_ns = now_ns + CHECK_INTERVAL_NS
        self._troubles.resolve(settings.node_id)
        self._shell.loop.watch(self._socket.fd, self._on_datagrams)
        if self._retry.succeeded():
            logger.info("heartbeats are received on %s again", udp.show(settings.address, settings.port))
        elsewhere = udp.misplaced(settings.interface, settings.address)
        if elsewhere is not None:
            reason = f"address {settings.address} is on {elsewhere}, not on {settings.interface}; correct [[node.path]]"
            self._troubles.add(settings.node_id, "misplaced", reason, now_ns)

    def _lose_socket(self, reason: str, now_ns: int) -> None:
        if self._socket is not None:
            self._shell.loop.unwatch(self._socket.fd)
            self._socket.close()
            self._socket = None
        self._failed(reason, now_ns)

    def _failed(self, reason: str, now_ns: int) -> None:
        self._retry.failed(reason, now_ns)
        self._socket_due_ns = self._retry.due_ns
        self._troubles.add(self._settings.node_id, "socket", f"no heartbeats are received: {reason}", now_ns)


def run(settings: HeartbeatSettings, link: Link, life_interval_ns: int) -> int:
    """The process; returns its exit code."""
    name = f"heartbeat receiver {settings.interface}:{settings.port}"
    shell = Shell(name, link)
    shell.set_title(name)
    receiver = Receiver(settings, shell)
    receiver.tick(boottime_ns())
    shell.loop.join(receiver)
    return shell.run(receiver.describe, life_interval_ns)
