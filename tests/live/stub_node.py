"""A node with the real supervisor and stub children, for tests of the supervisor alone.

A child does what files in `<state_dir>/stub` tell it, named after the child and the misbehaviour, for example
`lifecheck.mute`. What watchdog main is told, and the release of the virtual IP, is written to `events` there.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
import time
from pathlib import Path

from pgvigil.heartbeat.settings import HeartbeatSettings
from pgvigil.ipc import frames
from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError, ConfigError
from pgvigil.ipc.loop import Loop
from pgvigil.ipc.ready import Link, SignOfLife
from pgvigil.watchdog.config.load import load
from pgvigil.watchdog.settings import Settings, VipSettings
from pgvigil.watchdog.supervisor import daemon
from pgvigil.watchdog.supervisor.birth import set_title
from pgvigil.watchdog.supervisor.children import LIFECHECK, WATCHDOG_MAIN, ChildSpec

_log = logging.getLogger("pgvigil")


class Stub:
    """One child's life."""

    def __init__(self, name: str, folder: Path, settings: object, link: Link, life_interval_ns: int) -> None:
        self.name = name
        self.folder = folder
        self.settings = settings
        self.link = link
        self.loop = Loop()
        self.code = 0
        self.alive = SignOfLife(link, life_interval_ns, lambda: frames.Alive(False, f"{name} is a stub"))

    def told(self, misbehaviour: str) -> str | None:
        """The text of the file that demands a misbehaviour, or None."""
        file = self.folder / f"{self.name}.{misbehaviour}"
        return file.read_text() if file.exists() else None

    def event(self, text: str) -> None:
        """Write down for the test what happened."""
        with open(self.folder / "events", "a", encoding="utf-8") as file:
            file.write(f"{boottime_ns()} {self.name} {os.getpid()} {text}\n")

    def run(self) -> int:
        self.event("start")
        set_title(f"{self.name} (stub)")
        for kind, error in (("refused", CommandError), ("misconfigured", ConfigError), ("broken", RuntimeError)):
            if (text := self.told(kind)) is not None:
                raise error(text)
        self.loop.on_signals((signal.SIGUSR1,), lambda number: self.event("signalled"))
        self.loop.watch(self.link.fd, self.hear)
        self.loop.join(self.alive)
        if self.told("mute") is None:
            if (text := self.told("slow")) is not None:
                time.sleep(float(text))
            self.link.send(frames.Ready("stub"))
        self.loop.run()
        return self.code

    def hear(self) -> None:
        for received in self.link.receive():
            self.obey(received.frame)
        if self.link.closed:
            self.event("orphaned")
            self.loop.stop()
            if self.name == WATCHDOG_MAIN and isinstance(self.settings, Settings):
                daemon.revive(self.settings)

    def obey(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.StopOrder):
            self.event(f"stop {frame.mode.value}")
            if self.told("deaf") is None:
                self.loop.stop()
        elif isinstance(frame, frames.ChildrenReport):
            rows = ", ".join(f"{one.name}={one.state}/{one.restarts}" for one in frame.processes)
            self.event(f"report {rows}")
        elif isinstance(frame, frames.ReloadDone):
            self.event(f"reload {frame.accepted} {frame.message!r}")
        else:
            self.event(type(frame).__name__)


def run_stub(name: str, folder: Path, settings: object, link: Link, life_interval_ns: int) -> int:
    """A child's entry point."""
    return Stub(name, folder, settings, link, life_interval_ns).run()


def folder_of(settings: Settings) -> Path:
    """Where misbehaviour is ordered and events are written."""
    folder = Path(settings.process.state_dir) / "stub"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def table(settings: Settings, life_interval_ns: int) -> tuple[ChildSpec, ...]:
    """The shape of the real table, with stubs."""
    folder = folder_of(settings)
    shared = (settings.process.log, settings.process.log_level)

    def spec(name: str, part: object, vital: bool = False) -> ChildSpec:
        return ChildSpec(name, ENTRIES.setdefault(name, functools.partial(run_stub, name, folder)), part, vital,
                         life_interval_ns, shared)  # fmt: skip

    def beats(duty: str, part: HeartbeatSettings) -> ChildSpec:
        return spec(f"heartbeat {duty} {part.interface}", part)

    return (
        *(beats("receiver", part) for part in settings.heartbeats),
        *(beats("sender", part) for part in settings.heartbeats),
        spec(LIFECHECK, settings.lifecheck),
        spec(WATCHDOG_MAIN, settings, vital=True),
    )


# A partial equals only itself, and equal specs mean that nothing has to be restarted.
ENTRIES: dict[str, functools.partial[int]] = {}


def release(folder: Path, vip: VipSettings) -> list[str]:
    """Instead of the network, a line in the events."""
    with open(folder / "events", "a", encoding="utf-8") as file:
        file.write(f"{boottime_ns()} last will {os.getpid()} released {len(vip.addresses)}\n")
    if (folder / "release.hangs").exists():
        time.sleep(60)
    return [f"released {len(vip.addresses)}"]


def main() -> int:
    """start [--foreground]"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--node-id", type=int, required=True)
    parser.add_argument("verb")
    parser.add_argument("--foreground", action="store_true")
    options = parser.parse_args()
    try:
        settings = load(options.config, options.node_id)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    parts = daemon.Parts(table, load, functools.partial(release, folder_of(settings)))
    command = [sys.executable, *sys.argv]
    return daemon.start(settings, options.foreground, sys.argv, lambda: parts, command)


if __name__ == "__main__":
    sys.exit(main())
