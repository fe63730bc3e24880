"""recovery: online recovery of a backend, with the clients of the other pgpool-IIs held back while it matters.

Runs on the node whose pgpool-II recovers. It gathers what the recovery needs, tells how it goes, and turns the end
into an exit code; the order of things stands in `recovery.drive`.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import threading
import time
from types import TracebackType

from pgvigil.ipc.channel import ControlClient
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.endpoints import control_endpoint
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.watchdog.cli import codes, node, pcp_render
from pgvigil.watchdog.cli.parser import config_path
from pgvigil.watchdog.cli.pcp_target import target_of
from pgvigil.watchdog.config.load import examine
from pgvigil.watchdog.config.problems import refusal
from pgvigil.watchdog.pcp import passwords
from pgvigil.watchdog.recovery.drive import Drive
from pgvigil.watchdog.recovery.latch import Latch, LatchTarget, is_served, obstacle
from pgvigil.watchdog.recovery.plan import Wish
from pgvigil.watchdog.recovery.pool import Pool
from pgvigil.watchdog.recovery.world import Failed, Held, Holds, Unknown, World
from pgvigil.watchdog.settings import NodeSettings, Settings

REPEAT_S = 0.5
ASK_MS = 1000
AGREE_MS = 65_000
DESK_LIMIT_NS = 4 * NS_PER_S
MAX_BACKEND = 127


class DeskRefused(CommandError):
    """Watchdog main does not want to; asking again changes nothing."""


class Desk:
    """Tells watchdog main of this node what is wanted, and says it again while somebody is busy with something else."""

    def __init__(self, run_dir: str) -> None:
        self._cause = str(secrets.randbits(62) + 1)
        self._client = ControlClient(control_endpoint(run_dir))
        self._lock = threading.Lock()
        self._wish: Wish | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(DESK_LIMIT_NS / NS_PER_S)
        with self._lock:
            self._client.close()

    def wish(self, wish: Wish) -> Holds:
        """What it knows of the other nodes; a main that starts again is waited for."""
        deadline_ns = boottime_ns() + DESK_LIMIT_NS
        self._wish = wish
        while True:
            try:
                return self._ask(wish)
            except DeskRefused:
                raise
            except CommandError:
                if boottime_ns() >= deadline_ns:
                    raise

    def _ask(self, wish: Wish) -> Holds:
        with self._lock:
            reply = list(self._client.ask("recovery", (wish.value, self._cause), ASK_MS))[-1]
        if not reply.accepted:
            raise DeskRefused(reply.message)
        return holds_of(reply.body)

    def _repeat(self) -> None:
        while not self._ended.wait(REPEAT_S):
            if self._wish is not None:
                try:
                    self._ask(self._wish)
                except CommandError:
                    continue  # `wish` meets it too, and tells


def holds_of(body: bytes) -> Holds:
    """Watchdog main's answer."""
    try:
        return {
            int(one["id"]): Held(
                str(one["label"]), str(one["state"]), (int(one["unbroken"][0]), int(one["unbroken"][1])),
                str(one["trouble"]),
            )
            for one in json.loads(body)["nodes"]
        }  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError):
        raise CommandError("watchdog main answered with something unexpected; are both of one version?") from None


def recovery(options: argparse.Namespace) -> int:
    """Recover one backend."""
    outcome = examine(config_path(options), options.node_id)
    settings = outcome.settings
    if settings is None:
        raise refusal(outcome.mistakes)
    backend = backend_of(options.backend)
    run_dir = node.run_dir_of(options)
    if node.supervisor_pid(run_dir) is None:
        print(node.not_running(run_dir), file=sys.stderr)
        return codes.NOT_RUNNING
    teller = Teller(options.json, backend)
    with Desk(run_dir) as desk:
        world = world_of(options, settings, desk, teller)
        drive = Drive(world, backend, options.force, options.drain, options.timeout)
        try:
            return teller.end("done", drive.run(), codes.OK)
        except Failed as error:
            return teller.end("failed", str(error), codes.FAILED)
        except Unknown as error:
            return teller.end("unknown", str(error), codes.UNKNOWN)


def backend_of(text: str) -> int:
    """The number of a backend."""
    if not text.isascii() or not text.isdigit() or len(text) > 3 or int(text) > MAX_BACKEND:
        raise ConfigError(f"'{text[:80]}', expected the number of a backend, 0 to {MAX_BACKEND}")
    return int(text)


def world_of(options: argparse.Namespace, settings: Settings, desk: Desk, teller: Teller) -> World:
    """Everything that the recovery acts on."""
    own = settings.node
    others = [one for one in settings.nodes if one.id != own.id and not one.witness]
    return World(
        local=pool_of(options, own),
        others={one.id: pool_of(options, one) for one in others},
        wish=desk.wish,
        latch=lambda parameters: _latch(settings, parameters),
        is_served=lambda: is_served(own.pgpool_host, own.pgpool_port),
        say=teller.say,
        now_s=lambda: boottime_ns() / NS_PER_S,
        pause=time.sleep,
        lifecheck_user=settings.recovery.user,
        agree=lambda up: agree(node.run_dir_of(options), backend_of(options.backend), up),
    )


def agree(run_dir: str, backend: int, up: bool) -> None:
    """Tell the cluster what the recovery came to, if it keeps the state of backends; `CommandError` if it refuses."""
    deadline_ns = boottime_ns() + DESK_LIMIT_NS
    while True:
        try:
            known = node.ask_json(run_dir, "backend-list")
            break
        except CommandError:
            if boottime_ns() >= deadline_ns:
                raise
    agreed = [one.get("status") for one in known.get("backends", ()) if one.get("id") == backend]
    wanted, verb = ("up", "backend-attach") if up else ("down", "backend-detach")
    if not known.get("agreed") or agreed in ([], [wanted]):
        return
    reason = "recovered by pgvigil recovery" if up else "its recovery cannot be trusted"
    client = ControlClient(control_endpoint(run_dir))
    try:
        reply = list(client.ask(verb, (str(backend), reason), AGREE_MS))[-1]
    finally:
        client.close()
    if not reply.accepted:
        raise CommandError(f"the cluster does not agree that backend {backend} is {wanted}: {reply.message}")


def pool_of(options: argparse.Namespace, one: NodeSettings) -> Pool:
    """The PCP of a node, as the user that `pgvigil pcp` would take."""
    words = {**vars(options), "host": None, "port": None, "node": str(one.id)}
    target = target_of(argparse.Namespace(**words))
    return Pool(one.host, target.address, target.user, target.password)


def _latch(settings: Settings, parameters: dict[str, str]) -> Latch:
    session, own = settings.recovery, settings.node
    if not session.user:
        raise CommandError("no [lifecheck] query_user, whose session could keep pgpool-II from its second stage")
    try:
        idle_limit_s = int(parameters.get("client_idle_limit_in_recovery", ""))
    except ValueError:
        raise CommandError("pgpool-II does not tell its client_idle_limit_in_recovery") from None
    why = obstacle(idle_limit_s)
    if why:
        raise CommandError(why)
    password = passwords.password_of_file(session.password_file) if session.password_file else None
    return Latch(LatchTarget(own.pgpool_host, own.pgpool_port, session.user, session.database, password))


class Teller:
    """Lines for people, or one JSON object at the end."""

    def __init__(self, as_json: bool, backend: int) -> None:
        self._as_json = as_json
        self._backend = backend
        self._begun_ns = boottime_ns()
        self._steps: list[dict[str, object]] = []

    def say(self, text: str) -> None:
        """How it goes."""
        text = pcp_render.harmless(text)
        took_ms = (boottime_ns() - self._begun_ns) // NS_PER_MS
        self._steps.append({"at_ms": took_ms, "text": text})
        if not self._as_json:
            print(f"{took_ms:>6} ms  {text}", flush=True)

    def end(self, outcome: str, text: str, code: int) -> int:
        """How it ended."""
        if self._as_json:
            value = {"backend": self._backend, "outcome": outcome, "message": text, "steps": self._steps}
            print(json.dumps(value, ensure_ascii=False))
        elif code == codes.OK:
            self.say(text)
        else:
            print(f"pgvigil recovery: {pcp_render.harmless(text)}", file=sys.stderr)
        return code
