"""Online recovery in watchdog main: `pgvigil recovery` on one side, the other nodes' mains on the other.

The command line drives the recovery and says every half second what it wants of the other nodes; this passes it on
and answers with what they say. Here is nothing that survives a restart, and nothing that needs to: a new main goes
on with the same cause, and the kernels of the nodes that hold wait for it for a few seconds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from pgvigil.ipc import frames
from pgvigil.ipc.channel import ControlServer
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.codec import MAX_INT
from pgvigil.watchdog.asides import Asides
from pgvigil.watchdog.core.messages import Aside
from pgvigil.watchdog.recovery.follower import Follower
from pgvigil.watchdog.recovery.hold import Hold, peers_of, remove_leftover
from pgvigil.watchdog.recovery.plan import TOPIC, HoldOrder, Plan, Wish, pack, unpack
from pgvigil.watchdog.settings import Settings

logger = logging.getLogger("pgvigil")

USAGE = "expected 'recovery ready|hold|release CAUSE'"


class Recovery:
    """`request` for the control socket; a participant of the loop."""

    def __init__(
        self, settings: Settings, server: ControlServer, asides: Asides, clock: Callable[[], int] = boottime_ns
    ) -> None:
        self._settings = settings
        self._server = server
        self._asides = asides
        self._clock = clock
        self._others = tuple(node.id for node in settings.nodes if node.id != settings.node_id and not node.witness)
        self._plan: Plan | None = None
        self.follower = Follower(self._open_hold, clock)
        self._look_at_ns = 0
        asides.on(TOPIC, self._take)
        left = remove_leftover()
        if left:
            logger.warning("%s", left)

    def _open_hold(self) -> Hold:
        settings = self._settings
        addresses: list[str] = []
        if settings.lifecheck.query is not None:  # the other nodes' questions have to pass
            addresses += [path.address for node in settings.nodes for path in node.paths]
            addresses += [node.pgpool_host for node in settings.nodes]
        return Hold(settings.node.pgpool_port, peers_of(tuple(addresses)), settings.recovery.hold_limit_s * 1000)

    # --- the command line --------------------------------------------------------------------------

    def request(self, address: bytes, request: frames.Request) -> None:
        """`recovery WISH CAUSE`: answered at once with what is known of the others."""
        now_ns = self._clock()
        said = self._wanted(request.arguments, now_ns)
        if isinstance(said, str):
            self._server.reply(address, frames.Reply(request.request_id, True, False, said, b""))
            return
        body = json.dumps(self._view(said, now_ns), separators=(",", ":")).encode()
        self._server.reply(address, frames.Reply(request.request_id, True, True, "", body))

    def _wanted(self, arguments: tuple[str, ...], now_ns: int) -> Plan | str:
        """The plan that does it, or why not."""
        wishes = {wish.value: wish for wish in Wish}
        if len(arguments) != 2 or arguments[0] not in wishes:
            return USAGE
        wish, text = wishes[arguments[0]], arguments[1]
        if not text.isascii() or not text.isdigit() or len(text) > 19 or not 0 < int(text) <= MAX_INT:
            return f"cause '{text[:40]}', expected a number of 1 to {MAX_INT}; {USAGE}"
        plan = self._plan
        if plan is None or (plan.wish is Wish.RELEASE and plan.cause != int(text)):
            # Numbers of this kernel's milliseconds: they go on growing when a new main takes the cause up again.
            plan = self._plan = Plan(int(text), self._others, now_ns // NS_PER_MS)
        if plan.cause != int(text):
            return "another 'pgvigil recovery' of this node is not over yet"
        plan.wants(now_ns, wish)
        self._say(plan, now_ns)
        return plan

    def _view(self, plan: Plan, now_ns: int) -> dict[str, Any]:
        return {
            "wish": plan.wish.value,
            "hold_limit_s": self._settings.recovery.hold_limit_s,
            "nodes": [
                {
                    "id": one.node_id,
                    "label": self._settings.label(one.node_id),
                    "state": one.stand.name.lower(),
                    "left_ms": one.left_ms,
                    "unbroken": list(one.unbroken),
                    "trouble": one.trouble,
                }
                for one in plan.standings(now_ns)
            ],
        }

    # --- other nodes -------------------------------------------------------------------------------

    def _take(self, sender: int, message: Aside) -> None:
        value, now_ns = unpack(message.body), self._clock()
        if isinstance(value, HoldOrder):
            report = self.follower.take(sender, value)
            if report is not None:
                self._asides.say(sender, TOPIC, pack(report))
        elif self._plan is not None:
            self._plan.report(now_ns, sender, value)

    def _say(self, plan: Plan, now_ns: int) -> None:
        for node, order in plan.orders(now_ns):
            self._asides.say(node, TOPIC, pack(order))

    # --- deadlines ---------------------------------------------------------------------------------

    def wake(self) -> int | None:
        """None as long as there is nothing to coordinate and nothing held."""
        plans = [] if self._plan is None else [self._plan.wake()]
        holds = [self._look_at_ns] if self.follower.is_holding else []
        return min([*plans, *holds], default=None)

    def tick(self, now_ns: int) -> None:
        self._look_at_ns = now_ns + NS_PER_S
        self.follower.expire(now_ns)
        plan = self._plan
        if plan is None:
            return
        self._say(plan, now_ns)
        if plan.is_over(now_ns):
            self._plan = None

    def close(self) -> None:
        """This node ends: it holds nobody back any more, and the others learn it if they still can."""
        self.follower.release("this node ends")
        if self._plan is not None:
            self._plan.wants(self._clock(), Wish.RELEASE)
            self._say(self._plan, self._clock())
