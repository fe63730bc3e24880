"""Real PostgreSQL and real pgpool-II inside a lab.

Each server runs in an IPC namespace of its own: a pgpool-II that dies by SIGKILL leaves 137 MB of System V shared
memory and its semaphores behind, and the kernel removes them with that namespace. Files live in the lab's folder.
No failover of backends is configured, so that only the virtual IP moves.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.lab import CLIENT_ADDRESS, DATABASE_ADDRESS, VIP, Host, Lab, require_tools
from pgvigil.watchdog.demo.responder import PORT as RESPONDER_PORT
from pgvigil.watchdog.demo.run import Finished, kill_at_once, run, title, wait_until
from pgvigil.watchdog.pcp.digest import stored

POSTGRES_PORT = 5432
PGPOOL_PORT = 9999
PCP_PORT = 9898
DATABASE_TARGET = f"host={DATABASE_ADDRESS} port={POSTGRES_PORT}"
PCP_USER, PCP_PASSWORD = "operator", "only for the lab"
START_LIMIT_S = 20.0
_VERSIONS = Path("/usr/lib/postgresql")
AS_POSTGRES = ("--reuid", "postgres", "--regid", "postgres", "--init-groups", "--")
_OWN_IPC = ("unshare", "--ipc", "--", "setpriv", "--pdeathsig", "KILL")


def postgres_binary(name: str) -> str:
    """Path of a program of the newest installed PostgreSQL (Debian's `psql` is a wrapper in Perl: 50 ms slower)."""
    folders = sorted(_VERSIONS.glob("*/bin"), key=lambda folder: int(folder.parent.name.split(".")[0]))
    for folder in reversed(folders):
        if (folder / name).exists():
            return str(folder / name)
    raise CommandError(f"no {name} under {_VERSIONS}/*/bin. Install with: apt-get install postgresql")


def require_services() -> None:
    """`CommandError` that names the Debian packages unless pgpool-II and PostgreSQL are installed."""
    require_tools({"pgpool": "pgpool2"})
    postgres_binary("initdb")
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise CommandError("no user `postgres`. Install with: apt-get install postgresql") from None


class Postgres:
    """One PostgreSQL in the database's namespace; it does not care for durability."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._data = lab.database.folder / "data"
        self.access: tuple[str, ...] = ()
        """Lines of pg_hba.conf that come before the one that trusts everybody."""
        self.statements: tuple[str, ...] = ()
        """SQL for the new database."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make a cluster, start it, wait until it answers."""
        folder = self._lab.database.folder
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        initdb = (postgres_binary("initdb"), "-D", str(self._data), "-A", "trust", "-N", "-E", "UTF8")
        run(("setpriv", *AS_POSTGRES, *initdb, "--no-instructions"), limit_s=60, cwd=folder).checked()
        with open(self._data / "pg_hba.conf", "a", encoding="ascii") as file:
            file.write("\n".join((*self.access, "host all all 10.77.0.0/24 trust\n")))
        self.start_again()
        for sql in self.statements:
            query(self._lab, self._lab.client, DATABASE_TARGET, sql).checked()

    def start_again(self) -> None:
        """Start it on the files that it has."""
        folder = self._lab.database.folder
        server = (postgres_binary("postgres"), "-D", str(self._data), *_settings(folder))
        argv = (*_OWN_IPC, *AS_POSTGRES, *server)
        self._process = self._lab.start(self._lab.database, argv, "postgres.log")
        wait_until(
            lambda: query(self._lab, self._lab.client, DATABASE_TARGET).code == 0,
            START_LIMIT_S,
            f"PostgreSQL to answer, see {folder}/postgres.log",
            0.1,
        )

    def kill9(self) -> None:
        """End all of it at once; it lives alone in its namespace."""
        kill_at_once(self._lab.pids(self._lab.database))
        if self._process is not None:
            self._process.wait(5)  # a zombie would pass for a server that still runs


def _settings(folder: Path) -> tuple[str, ...]:
    values = {
        "listen_addresses": "*",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "max_connections": "60",
        "shared_buffers": "16MB",
        "dynamic_shared_memory_type": "mmap",
        "autovacuum": "off",
    }
    return tuple(part for name, value in values.items() for part in ("-c", f"{name}={value}"))


def query(lab: Lab, host: Host, target: str, sql: str = "select 1", limit_s: float = 5.0) -> Finished:
    """Run one statement with psql from a host; `target` is the connection string's host and port part."""
    connection = f"{target} user=postgres dbname=postgres connect_timeout=2"
    return lab.run(host, (postgres_binary("psql"), "-XAtq", "-d", connection, "-c", sql), limit_s)


VIP_TARGET = f"host={VIP} port={PGPOOL_PORT}"


class Pgpool:
    """One pgpool-II with `use_watchdog = off` on a node; `changes` are lines of its pgpool.conf."""

    def __init__(self, lab: Lab, node: Host, changes: Mapping[str, object] | None = None) -> None:
        self._lab = lab
        self.node = node
        self.folder = node.folder / "pgpool"
        self.pid_file = self.folder / "pgpool.pid"
        self.options: dict[str, object] = dict(changes or {})
        """What its pgpool.conf says besides, or instead."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Start it, with fresh files, and wait until it answers."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.write_files()
        files = [(f"-{letter}", str(self.folder / name)) for letter, name in _FILES.items()]
        argv = ("pgpool", "-n", "-D", *(part for pair in files for part in pair))
        self._process = self._lab.start(self.node, (*_OWN_IPC, "--", *argv), "pgpool.log")
        if wait:
            self.wait_ready()

    def write_files(self) -> None:
        """Its configuration, into an empty folder."""
        (self.folder / "pgpool.conf").write_text(self._configuration(), encoding="ascii")
        (self.folder / "pcp.conf").write_bytes(PCP_USER.encode() + b":" + stored(PCP_PASSWORD.encode()) + b"\n")
        (self.folder / "pool_hba.conf").write_text("", encoding="ascii")
        (self.folder / "pgpool_node_id").write_text("0\n", encoding="ascii")

    def _configuration(self) -> str:
        values = {**_pgpool_conf(self.folder, self.pid_file), **self.options}
        return "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items())

    def wait_ready(self) -> None:
        address = f"host={self.node.address} port={PGPOOL_PORT}"
        log = self.node.folder / "pgpool.log"
        wait_until(
            lambda: query(self._lab, self._lab.database, address).code == 0,
            START_LIMIT_S,
            f"pgpool-II on {self.node.name} to answer, see {log}",
            0.1,
        )

    def pids(self) -> list[int]:
        """Its processes, the parent first."""
        return [pid for pid in self._lab.pids(self.node) if _is_pgpool(title(pid))]

    def kill9(self) -> None:
        """End all of it at once, as a kernel out of memory would; System V memory goes with its IPC namespace."""

        def is_gone() -> bool:
            left = self.pids()  # one that was being forked meanwhile, too: it has the port
            kill_at_once(left)
            return not left

        wait_until(is_gone, 5, f"pgpool-II of {self.node.name} to end after SIGKILL")
        if self._process is not None:
            self._process.wait(5)

    def wait_port_free(self, limit_s: float = 30.0) -> None:
        """Wait until nothing has its port any more: a command that it had begun goes on after its end, and has it."""
        listening = ("ss", "-ltnH", f"sport = :{PGPOOL_PORT}")
        wait_until(
            lambda: not self._lab.run(self.node, listening).checked().out.strip(),
            limit_s, f"port {PGPOOL_PORT} of {self.node.name} to be free", 0.1,
        )  # fmt: skip


def _is_pgpool(text: str) -> bool:
    return text.startswith("pgpool: ") or text.split(" ")[0].endswith("pgpool")


_FILES = {"f": "pgpool.conf", "F": "pcp.conf", "a": "pool_hba.conf"}


def _pgpool_conf(folder: Path, pid_file: Path) -> dict[str, object]:
    return {
        "backend_clustering_mode": "streaming_replication",
        "listen_addresses": "*",
        "port": PGPOOL_PORT,
        "socket_dir": folder,
        "pcp_listen_addresses": "*",
        "pcp_port": PCP_PORT,
        "pcp_socket_dir": folder,
        "backend_hostname0": DATABASE_ADDRESS,
        "backend_port0": POSTGRES_PORT,
        "backend_weight0": 1,
        "backend_flag0": "ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER",
        "pid_file_name": pid_file,
        "logdir": folder,
        "num_init_children": 8,
        "max_pool": 1,
        "health_check_period": 0,
        "sr_check_period": 0,
        "load_balance_mode": "off",
        "failover_on_backend_error": "off",
        "enable_pool_hba": "off",
        "use_watchdog": "off",
        "log_client_messages": "off",
    }


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int) or value in ("on", "off") else f"'{value}'"


class Responder:
    """The light service beside pgpool-II that tells the probe which node answered."""

    def __init__(self, lab: Lab, node: Host) -> None:
        self._lab = lab
        self._node = node

    def start(self) -> None:
        arguments = (str(self._node.number), str(RESPONDER_PORT))
        self._lab.start_module(self._node, "responder", arguments, "responder.log")


def psql_through_vip(lab: Lab) -> Sequence[str]:
    """The command that a person types to query through the virtual IP."""
    inside = ("ip", "netns", "exec", lab.client.namespace)
    return (*inside, "psql", "-h", VIP, "-p", str(PGPOOL_PORT), "-U", "postgres", "postgres")


__all__ = ["CLIENT_ADDRESS", "VIP_TARGET", "Pgpool", "Postgres", "Responder", "psql_through_vip", "query"]
