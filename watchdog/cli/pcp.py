"""pcp: every request of pgpool-II's control protocol, with a table for people and JSON for programs.

Talks to one pgpool-II and to nobody else: the cluster is not asked and not told. An order that was sent and not
answered has an unknown outcome, and the exit code says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgvigil.ipc.clock import NS_PER_MS, boottime_ns
from pgvigil.ipc.errors import ConfigError, PeerError
from pgvigil.watchdog.cli import codes, pcp_render
from pgvigil.watchdog.cli.pcp_target import Target, target_of
from pgvigil.watchdog.pcp import requests
from pgvigil.watchdog.pcp.client import Client, PcpRefused
from pgvigil.watchdog.pcp.protocol import Request

QUESTION_S, ORDER_S, WAITING_S = 10.0, 60.0, 3600.0
"""How long an answer may take by default: of a question, of an order, of an order that waits for clients."""

Ask = Callable[[Client, argparse.Namespace, int], Any]
SWITCHES = ("graceful", "switchover", "mode", "cluster")


@dataclass(frozen=True, slots=True)
class Kind:
    """One request of the command line. `target` says what it takes: "", "ID", "[ID]", "[PID]" or "[NAME]"."""

    ask: Ask
    target: str = ""
    switches: tuple[str, ...] = ()
    limit_s: float = QUESTION_S
    order: str = ""
    """What pgpool-II was told, if it is an order; `{target}` stands for its argument."""


def _question(make: Callable[[], Request[Any]]) -> Ask:
    return lambda client, _options, limit_ms: client.ask(make(), limit_ms)


def _order(make: Callable[[argparse.Namespace], Request[None]]) -> Ask:
    return lambda client, options, limit_ms: client.ask(make(options), limit_ms)


def _node_info(client: Client, options: argparse.Namespace, limit_ms: int) -> Any:
    if options.target is None:
        return client.nodes(limit_ms)
    return client.ask(requests.node_info(number_of(options)), limit_ms)


def _health_stats(client: Client, options: argparse.Namespace, limit_ms: int) -> Any:
    if options.target is None:
        return client.all_health_stats(limit_ms)
    return (client.ask(requests.health_stats(number_of(options)), limit_ms),)


def _pool_status(client: Client, options: argparse.Namespace, limit_ms: int) -> Any:
    found = client.ask(requests.pool_status(), limit_ms)
    wanted = tuple(one for one in found if options.target in (None, one.name))
    if not wanted:
        raise ConfigError(f"pgpool-II reports no parameter {options.target[:80]}, expected one of its pool-status")
    return wanted


def _promote(client: Client, options: argparse.Namespace, limit_ms: int) -> Any:
    return client.promote(number_of(options), options.graceful, options.switchover, limit_ms)


def _optional(otherwise: int, make: Callable[[int], Request[Any]]) -> Ask:
    def ask(client: Client, options: argparse.Namespace, limit_ms: int) -> Any:
        return client.ask(make(otherwise if options.target is None else number_of(options)), limit_ms)

    return ask


def number_of(options: argparse.Namespace) -> int:
    """The argument as a number."""
    text: str = options.target
    if not text.isascii() or not text.isdigit() or len(text) > 7:
        raise ConfigError(f"'{text[:80]}' after {options.request}, expected a number")
    return int(text)


KINDS: dict[str, Kind] = {
    "node-count": Kind(_question(requests.node_count)),
    "node-info": Kind(_node_info, "[ID]"),
    "health-stats": Kind(_health_stats, "[ID]"),
    "pool-status": Kind(_pool_status, "[NAME]"),
    "proc-count": Kind(_question(requests.process_count)),
    "proc-info": Kind(_optional(0, requests.process_info), "[PID]"),
    "watchdog-info": Kind(_optional(requests.ALL, requests.watchdog_info), "[ID]"),
    "attach": Kind(_order(lambda o: requests.attach(number_of(o))), "ID", (), ORDER_S, "attach backend {target}"),
    "detach": Kind(
        _order(lambda o: requests.detach(number_of(o), o.graceful)), "ID", ("graceful",), ORDER_S,
        "detach backend {target}",
    ),
    "promote": Kind(_promote, "ID", ("graceful", "switchover"), ORDER_S, "promote backend {target}"),
    "stop": Kind(
        _order(lambda o: requests.stop(o.mode or "smart", o.cluster)), "", ("mode", "cluster"), ORDER_S, "stop",
    ),
    "reload": Kind(
        _order(lambda o: requests.reload(o.cluster)), "", ("cluster",), ORDER_S, "read its configuration again"
    ),
    "log-rotate": Kind(_order(lambda o: requests.log_rotate(o.cluster)), "", ("cluster",), ORDER_S, "rotate its log"),
    "invalidate-cache": Kind(
        _order(lambda _options: requests.invalidate_cache()), "", (), ORDER_S, "forget its query cache"
    ),
    "recovery": Kind(
        _order(lambda o: requests.recovery(number_of(o))), "ID", (), WAITING_S, "recover backend {target}"
    ),
}  # fmt: skip


def pcp(options: argparse.Namespace) -> int:
    """One request to one pgpool-II."""
    kind = KINDS[options.request]
    _check(options, kind)
    limit_ms = int((options.timeout or (WAITING_S if options.graceful else kind.limit_s)) * 1000)
    target = target_of(options)
    begun_ns = boottime_ns()
    with Client(target.address, target.user, target.password, limit_ms) as client:
        left_ms = max(1, limit_ms - (boottime_ns() - begun_ns) // NS_PER_MS)
        try:
            value = kind.ask(client, options, left_ms)
        except PcpRefused as error:
            return _refused(options, target, error)
        except PeerError as error:
            if not client.has_ordered:
                raise
            return _unknown(options, target, error)
        notices = [str(notice) for notice in client.notices]
    if kind.order:
        value = None
        message = f"pgpool-II at {target.address} was told to {kind.order.format(target=options.target)}, and said done"
        text = f"{(boottime_ns() - begun_ns) // NS_PER_MS:>6} ms  {message}"
    else:
        text = pcp_render.answer(options.request, value, sys.stdout)
    for notice in notices:
        print(f"pgvigil pcp: {pcp_render.harmless(notice)}", file=sys.stderr)
    print(_json(options, target, "done", answer=value) if options.json else text)
    return codes.OK


def _check(options: argparse.Namespace, kind: Kind) -> None:
    """Mistakes in the command, found before anybody is asked."""
    form = f"expected 'pgvigil pcp {' '.join(filter(None, (options.request, kind.target)))}'"
    if options.target is not None and not kind.target:
        raise ConfigError(f"'{options.target[:80]}' after {options.request}, {form}")
    if options.target is None and kind.target == "ID":
        raise ConfigError(f"{options.request} needs the number of a backend, {form}")
    if options.target is not None and "ID" in kind.target:
        # Made for its check of the range only, before anybody is asked.
        (requests.process_info if kind.target == "[PID]" else requests.health_stats)(number_of(options))
    for switch in SWITCHES:
        if getattr(options, switch) and switch not in kind.switches:
            takers = ", ".join(name for name, one in KINDS.items() if switch in one.switches)
            raise ConfigError(f"--{switch} with {options.request}, expected it with {takers} only")


def _refused(options: argparse.Namespace, target: Target, error: PcpRefused) -> int:
    if options.json:
        print(_json(options, target, "refused", str(error), report=error.report))
    else:
        print(f"pgvigil pcp {options.request}: {pcp_render.harmless(str(error))}", file=sys.stderr)
    return codes.FAILED


def _unknown(options: argparse.Namespace, target: Target, error: PeerError) -> int:
    message = f"{error}; the outcome is unknown, see 'pgvigil pcp node-info'"
    if options.json:
        print(_json(options, target, "unknown", message))
    else:
        print(f"pgvigil pcp {options.request}: {pcp_render.harmless(message)}", file=sys.stderr)
    return codes.UNKNOWN


def _json(options: argparse.Namespace, target: Target, outcome: str, message: str = "", **more: Any) -> str:
    value: dict[str, Any] = {"request": options.request, "pgpool": str(target.address), "outcome": outcome}
    if message:
        value["message"] = message
    value |= {key: pcp_render.plain(one) for key, one in more.items()}
    return json.dumps(value, ensure_ascii=False)
