"""A switch, some hosts and a client, made of network namespaces on one bridge.

It builds, breaks and mends the network and the hosts, and removes every trace of itself, also after Ctrl-C or
SIGTERM; what a SIGKILL left behind is swept by the next lab. It knows nothing of pgvigil, pgpool-II or PostgreSQL.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo import run as commands

PREFIX = "pgvlab"
VIP = "10.77.0.100"
BURIAL_LIMIT_S = 30
CLIENT_ADDRESS = "10.77.0.2"
OBSERVER_ADDRESS = "10.77.0.3"
DATABASE_ADDRESS = "10.77.0.5"
_NAME = re.compile(r"(?P<lab>pgv[a-z]*-(?P<pid>\d+)-\d+)(-\w+|\.\w+)$")
_serial = itertools.count(1)
_open_labs: list[Lab] = []


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace with an eth0 on the switch."""

    name: str
    namespace: str
    port: str
    """Its interface at the switch."""
    mac: str
    address: str
    folder: Path
    number: int = 0
    """Node id, 0 for hosts that are no nodes."""


class Lab:
    """`with Lab(nodes=3) as lab:` builds it; the end of the block removes it."""

    def __init__(self, nodes: int = 3, prefix: str = PREFIX, paths: int = 1) -> None:
        """`paths` networks between the nodes, each with a switch of its own; everybody else is on the first only."""
        require_tools()
        Lab.sweep()
        self.paths = paths
        self.name = f"{prefix}-{os.getpid()}-{next(_serial)}"
        self.root = Path(tempfile.mkdtemp(prefix=f"{self.name}."))
        self.root.chmod(0o711)  # PostgreSQL runs as another user and must reach its folder below
        self.switch = f"{self.name}-switch"
        self.nodes = tuple(self._node(number) for number in range(1, nodes + 1))
        self.client = self._host("client", 0xF1, CLIENT_ADDRESS)
        self.observer = self._host("observer", 0xF2, OBSERVER_ADDRESS)
        self.database = self._host("database", 0xF3, DATABASE_ADDRESS)
        self._children: list[subprocess.Popen[bytes]] = []
        _register(self)

    def _node(self, number: int) -> Host:
        return self._host(f"n{number}", number, f"10.77.0.{10 + number}", number)

    def _host(self, name: str, last_byte: int, address: str, number: int = 0) -> Host:
        folder = self.root / name
        folder.mkdir(mode=0o755)
        mac = f"02:77:00:00:00:{last_byte:02x}"
        return Host(name, f"{self.name}-{name}", f"to-{name}", mac, address, folder, number)

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*self.nodes, self.client, self.observer, self.database)

    def node(self, number: int) -> Host:
        return self.nodes[number - 1]

    def address_on(self, host: Host, path: int) -> str:
        """A node's address on a path, counted from 0."""
        return host.address.replace("10.77.", f"10.{77 + path}.", 1)

    def port_on(self, host: Host, path: int) -> str:
        """The interface at the switch of a path."""
        return host.port if path == 0 else f"{host.port}-{path}"

    def paths_of(self, host: Host) -> range:
        return range(self.paths if host.number else 1)

    def others(self, host: Host) -> tuple[Host, ...]:
        """The nodes without this one."""
        return tuple(node for node in self.nodes if node is not host)

    def node_of_mac(self, mac: str) -> str:
        """A node's name for its hardware address, or the address itself."""
        return next((host.name for host in self.hosts if host.mac == mac), mac)

    # building and removing

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        commands.ip(None, [f"netns add {self.switch}"])
        # No forwarding delay: a port that comes up passes frames at once. No multicast snooping: it needs a querier.
        commands.ip(self.switch, ["link set lo up"])
        for path in range(self.paths):
            bridge = f"link add br{path} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            commands.ip(self.switch, [bridge, f"link set br{path} up"])
        for host in self.hosts:
            self.power_on(host)

    def close(self) -> None:
        """Remove everything; safe to call twice."""
        if self not in _open_labs:
            return
        for host in self.hosts:
            _remove_namespace(host.namespace)
        _remove_namespace(self.switch)
        try:
            for child in self._children:
                child.wait(BURIAL_LIMIT_S)
        finally:  # a child that the kernel is slow to end keeps nothing else behind
            _unmount_below(self.root)
            shutil.rmtree(self.root, ignore_errors=True)
            _open_labs.remove(self)

    @staticmethod
    def sweep() -> list[str]:
        """Remove what labs of dead processes left behind; returns the names of those labs."""
        names = os.listdir(commands.NETNS_DIR) if commands.NETNS_DIR.is_dir() else []
        swept = {lab for name in names if (lab := _dead_lab(name)) and _remove_namespace(name)}
        for folder in Path(tempfile.gettempdir()).glob("pgv*-*-*.*"):
            if lab := _dead_lab(folder.name):
                _unmount_below(folder)
                shutil.rmtree(folder, ignore_errors=True)
                swept.add(lab)
        return sorted(swept)

    # hosts

    def power_on(self, host: Host) -> None:
        """Make the host: an empty kernel state, a cable, an address."""
        commands.ip(None, [f"netns add {host.namespace}"])
        for path in self.paths_of(host):
            self._plug_in(host, path)
        # A node must not ask for the observer: its question would announce the VIP, as only pgvigil may.
        watcher = f"neigh replace {self.observer.address} lladdr {self.observer.mac} dev eth0 nud permanent"
        lines = ["link set lo up"]
        for path in self.paths_of(host):
            lines += [f"link set eth{path} up", f"addr add {self.address_on(host, path)}/24 dev eth{path}"]
        commands.ip(host.namespace, [*lines, watcher] if host.number else lines)

    def _plug_in(self, host: Host, path: int) -> None:
        """A cable from the host's interface of a path to that path's switch."""
        port = self.port_on(host, path)
        mac = host.mac.replace("02:77:", f"02:{77 + path}:", 1)
        peer = f"peer name eth{path} address {mac} netns {host.namespace}"
        lines = [f"link add {port} type veth {peer}", f"link set {port} master br{path}", f"link set {port} up"]
        commands.ip(self.switch, lines)

    def power_off(self, host: Host) -> None:
        """The host is gone at once: cable, processes, and the kernel's state (addresses, rules) with them."""
        self.cut(host)
        commands.empty_namespace(host.namespace)
        # The cable before the namespace: the kernel would remove it later, at a time of its own choice.
        commands.ip(self.switch, [f"link del {self.port_on(host, path)}" for path in self.paths_of(host)])
        _remove_namespace(host.namespace)
        self._reap()

    def is_on(self, host: Host) -> bool:
        return commands.namespace_exists(host.namespace)

    def run(self, host: Host, argv: Sequence[str], limit_s: float = 20.0) -> commands.Finished:
        """Run a command on a host to its end."""
        return commands.run(enter(host, argv), limit_s=limit_s, cwd=self.root)

    def start(
        self, host: Host, argv: Sequence[str], log: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on a host; its output goes to `log` in the host's folder. It ends with the lab."""
        with open(host.folder / log, "ab") as output:
            child = subprocess.Popen(
                enter(host, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=self.root,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def start_module(self, host: Host, module: str, arguments: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """Start one of the lab's own Python programs on a host."""
        return self.start(host, (sys.executable, "-m", f"pgvigil.watchdog.demo.{module}", *arguments), log)

    def pids(self, host: Host) -> list[int]:
        return commands.pids_in(host.namespace)

    def pgvigil(self, host: Host) -> dict[int, str]:
        """Pid and title of every pgvigil process of a host."""
        titles = {pid: commands.title(pid) for pid in self.pids(host)}
        return {pid: text for pid, text in titles.items() if text.startswith("pgvigil: ")}

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    # faults

    def cut(self, host: Host, path: int | None = None) -> None:
        """Pull the cables, or that of one path: the host sees its carrier go."""
        self._cables(host, path, "down")

    def restore(self, host: Host, path: int | None = None) -> None:
        self._cables(host, path, "up")

    def _cables(self, host: Host, path: int | None, state: str) -> None:
        paths = self.paths_of(host) if path is None else (path,)
        commands.ip(self.switch, [f"link set {self.port_on(host, one)} {state}" for one in paths])

    def partition(self, left: Sequence[Host], right: Sequence[Host], one_way: bool = False) -> None:
        """Drop every frame from left to right, and back unless one way. Client and database see both sides."""
        rules = [self.between(left, right)] + ([] if one_way else [self.between(right, left)])
        self.drop([f"{rule} drop" for rule in rules])

    def between(self, sources: Sequence[Host], targets: Sequence[Host], path: int | None = None) -> str:
        """What an nftables rule of the switch says to match the frames from some hosts to others."""
        return f"iifname {self._ports(sources, path)} oifname {self._ports(targets, path)}"

    def _ports(self, hosts: Sequence[Host], path: int | None) -> str:
        paths = [(host, one) for host in hosts for one in (self.paths_of(host) if path is None else (path,))]
        return "{ " + ", ".join(f'"{self.port_on(host, one)}"' for host, one in paths) + " }"

    def drop(self, rules: Sequence[str]) -> None:
        """Load nftables rules into the way of every frame that the switch forwards; `heal` removes them."""
        head = "table bridge pgvlab {\nchain cut {\ntype filter hook forward priority 0;\n"
        text = head + "\n".join(rules) + "\n}\n}\n"
        inside = ("ip", "netns", "exec", self.switch)
        commands.run((*inside, "nft", "-f", "-"), stdin=text).checked()

    def heal(self) -> None:
        """End every partition."""
        inside = ("ip", "netns", "exec", self.switch)
        commands.run((*inside, "nft", "flush", "ruleset")).checked()


def enter(host: Host, argv: Sequence[str]) -> tuple[str, ...]:
    """The command that runs another command on a host (`ip netns exec` replaces itself: the pid stays)."""
    return ("ip", "netns", "exec", host.namespace, *argv)


def _unmount_below(folder: Path) -> None:
    """Detach what was mounted inside a lab's folder, the innermost first."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    points = [line.split(" ")[1] for line in mounts]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        commands.run(("umount", "--lazy", point)).checked()


def _remove_namespace(namespace: str) -> bool:
    if not commands.namespace_exists(namespace):
        return False
    commands.empty_namespace(namespace)
    commands.ip(None, [f"netns del {namespace}"])
    return True


def _dead_lab(name: str) -> str | None:
    """The lab that a name belongs to, if the process that made it is gone."""
    match = _NAME.match(name)
    if match is None or Path(f"/proc/{match['pid']}").exists():
        return None
    return match["lab"]


# ending well, whatever ends us


def _register(lab: Lab) -> None:
    if not _open_labs and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _leave)
        atexit.register(_close_all)
    _open_labs.append(lab)


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind the stack as Ctrl-C does, so that every `with` block cleans up."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _close_all() -> None:
    for lab in list(_open_labs):
        lab.close()


# what must be there before a lab can be

TOOLS = {"ip": "iproute2", "nft": "nftables", "setpriv": "util-linux", "unshare": "util-linux"}


def require_tools(tools: Mapping[str, str] | None = None) -> None:
    """`CommandError` unless we are root and the programs (name -> Debian package) are installed."""
    if os.geteuid() != 0:
        raise CommandError(f"network namespaces need root, this is uid {os.geteuid()}: run it with sudo")
    wanted = TOOLS if tools is None else tools
    missing = {tool: package for tool, package in wanted.items() if shutil.which(tool) is None}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        names = ", ".join(sorted(missing))
        raise CommandError(f"missing: {names}. Install with: apt-get install {packages}")
