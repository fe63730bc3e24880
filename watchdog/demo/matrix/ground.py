"""The ground that a case is played on: a stage of one kind, how it comes to rest, and the history it leaves.

Many cases share one ground. It is settled when every node's processes are all there and have run for a while (a
supervisor forgives a failure after 5 s), when all agree, and when the leader's `status` says so too.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pgvigil.ipc.clock import boottime_ns
from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.cluster import is_settled
from pgvigil.watchdog.demo.lab import Host, Lab
from pgvigil.watchdog.demo.matrix.history import History
from pgvigil.watchdog.demo.matrix.shim import Shim, build
from pgvigil.watchdog.demo.records import read_records
from pgvigil.watchdog.demo.run import run, title, wait_until
from pgvigil.watchdog.demo.stage import Stage

REST_LIMIT_S = 45.0
GROWN_UP_S = 5.5
"""Age from which a process has had a good run: its next failure is its first."""
STATE_KIB = 256
_MAIN = re.compile(r"pgvigil: watchdog main \((leader|standby), term (\d+), quorum (\d)/\3, vip (up|down)\)")
_LIFECHECK = re.compile(r"pgvigil: lifecheck \((\d)/\1 peers alive, pgpool alive\)")
_STARTS = re.compile(r"pgvigil\.watchdog\.cli .* start$")
_TICKS_PER_S = 100


class Setting(enum.Enum):
    """What is special about the hosts of a ground."""

    PLAIN = "plain"
    TWO_PATHS = "two paths between the nodes"
    TOOLED = "small state disks, and a library that slows fsync and moves the wall clock"


class Ground:
    """A stage with its settings."""

    def __init__(self, lab: Lab, setting: Setting, stage: Stage | None = None) -> None:
        self.lab = lab
        self.setting = setting
        self.stage = stage or Stage(lab)
        self.cluster = self.stage.cluster
        self.shims: dict[Host, Shim] = {}

    def start(self) -> None:
        """Everything, from nothing to a settled cluster."""
        self.stage.set_up()
        if self.setting is Setting.TOOLED:
            self._give_tools()
        self.stage.start_instruments()
        self.cluster.start(self.lab.nodes)
        self.settle()

    def _give_tools(self) -> None:
        library = build(self.lab.root)
        for node in self.lab.nodes:
            state = state_dir(node)
            state.mkdir(mode=0o700)
            run(("mount", "-t", "tmpfs", "-o", f"size={STATE_KIB}k,mode=0700", "pgvlab", str(state))).checked()
            self.shims[node] = Shim(library, node.folder / "shim.control")
            self.cluster.environments[node.name] = self.shims[node].environment

    # coming to rest

    def settle(self, limit_s: float = REST_LIMIT_S) -> Host:
        """Undo what the lab can undo, start what is missing, wait for rest; returns the leader."""
        self.lab.heal()
        for node in self.lab.nodes:
            self.stage.mend_host(node)
        wait_until(self._is_at_rest, limit_s, "the cluster to settle", 0.1)
        self.stage.check_instruments()
        leader = self.leader()
        self.stage.wait_owner([leader], 10)
        return leader

    def leader(self) -> Host:
        """The one whose title says so; `CommandError` unless there is exactly one."""
        leaders = [node for node in self.lab.nodes if _says(self.lab.pgvigil(node), "leader")]
        if len(leaders) != 1:
            raise CommandError(f"leaders: {[node.name for node in leaders]}, expected exactly one")
        return leaders[0]

    def _is_at_rest(self) -> bool:
        for node in self.lab.nodes:
            self._start_if_gone(node)
        if not self._titles_agree():
            return False
        with ThreadPoolExecutor(len(self.lab.nodes)) as pool:
            return is_settled(list(pool.map(self.cluster.status, self.lab.nodes)))

    def _start_if_gone(self, node: Host) -> None:
        if not self.is_gone(node):
            return
        try:
            self.cluster.start([node])
        except CommandError:
            if self.is_gone(node):
                raise

    def is_gone(self, node: Host) -> bool:
        """Nothing of pgvigil runs here, and nothing is on its way (a node that revives itself is)."""
        titles = [title(pid) for pid in self.lab.pids(node)]
        return not any(text.startswith("pgvigil: ") or _STARTS.search(text) for text in titles)

    def _titles_agree(self) -> bool:
        titles = {node: self.lab.pgvigil(node) for node in self.lab.nodes}
        expected = 3 + 2 * self.lab.paths
        complete = all(len(texts) == expected for texts in titles.values())
        mains = [match for texts in titles.values() for text in texts.values() if (match := _MAIN.fullmatch(text))]
        judges = [text for texts in titles.values() for text in texts.values() if _LIFECHECK.fullmatch(text)]
        one_leader = sorted(match[1] for match in mains) == ["leader"] + ["standby"] * (len(titles) - 1)
        return (
            complete
            and len(mains) == len(judges) == len(titles)
            and one_leader
            and len({match[2] for match in mains}) == 1
            and all(age_s(pid) >= GROWN_UP_S for texts in titles.values() for pid in texts)
        )

    # what was recorded

    def history(self, start_ns: int, end_ns: int, rest_ns: int, settled: bool) -> History:
        """Everything that the prober and the samplers wrote, and nothing else."""
        self.stage.check_instruments()
        time.sleep(0.1)  # what they hold back for a file at most
        views = {"TCP": "light", "ARP": "arp", "packets": "reach"}
        return History(
            start_ns=start_ns,
            end_ns=end_ns,
            rest_ns=rest_ns,
            settled=settled,
            answers={view: self.stage.records(tape, start_ns) for view, tape in views.items()},
            held={node.number: read_records(self.stage.addresses_tape(node)) for node in self.lab.nodes},
        )

    def log_tails(self, lines: int = 15) -> str:
        """The ends of all logs, for a report of a failure."""
        return "\n".join(f"--- {node.name}\n{self.cluster.log_tail(node, lines)}" for node in self.lab.nodes)


@contextmanager
def fresh_ground(setting: Setting) -> Iterator[Ground]:
    """A settled ground of its own."""
    with Lab(paths=2 if setting is Setting.TWO_PATHS else 1) as lab:
        ground = Ground(lab, setting)
        ground.start()
        yield ground


def state_dir(node: Host) -> Path:
    """Where the node keeps its record."""
    return node.folder / "state"


def run_dir(node: Host) -> Path:
    """Where the node keeps its sockets and pid file."""
    return node.folder / "run"


def age_s(pid: int) -> float:
    """Seconds since a process was born (proc(5), field 22, in ticks); 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return boottime_ns() / 1e9 - int(fields[19]) / _TICKS_PER_S


def _says(titles: dict[int, str], role: str) -> bool:
    return any(match[1] == role for text in titles.values() if (match := _MAIN.fullmatch(text)))
