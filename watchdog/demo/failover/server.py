"""One PostgreSQL of a streaming cluster: its files, its process, and the few operations that a failover needs.

It runs on the host of that PostgreSQL and looks at nothing else; who is told to do what, and when, is decided
elsewhere. Like a plain script of a site it has no guard against being told nonsense: a second promotion happens, and
is seen.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.demo.run import Finished, run, send_signal, wait_until
from pgvigil.watchdog.demo.services import AS_POSTGRES, POSTGRES_PORT, postgres_binary

START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
COPY_LIMIT_S = 60.0
# Shared memory of its own, as in `services`, but not its end with the parent: that means the thread that started it.
_BEGIN = ("unshare", "--ipc", "--", "setpriv", *AS_POSTGRES)
_SETTINGS = {
    "listen_addresses": "'*'",
    "port": POSTGRES_PORT,
    "max_connections": 120,
    "shared_buffers": "'16MB'",
    "dynamic_shared_memory_type": "mmap",
    "autovacuum": "off",
    "fsync": "off",
    # pg_rewind needs to know every page that changed.
    "wal_log_hints": "on",
    "full_page_writes": "on",
    "wal_keep_size": "'128MB'",
    "hot_standby": "on",
    "wal_retrieve_retry_interval": "'200ms'",
    "wal_receiver_timeout": "'3s'",
    "wal_sender_timeout": "'3s'",
    "wal_receiver_status_interval": "'1s'",
}


def connection(address: str, name: str = "") -> str:
    """The connection string for the PostgreSQL of a host."""
    named = f" application_name={name}" if name else ""
    return f"host={address} port={POSTGRES_PORT} user=postgres dbname=postgres connect_timeout=3{named}"


class Server:
    """The PostgreSQL of one host, with its files in `folder`. Operations are carried out one at a time."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()

    def prepare(self) -> None:
        """The folder, for the user that PostgreSQL runs as."""
        self.folder.mkdir(exist_ok=True)
        user = pwd.getpwnam("postgres")
        os.chown(self.folder, user.pw_uid, user.pw_gid)

    # operations

    def create(self, hba: str) -> None:
        """A new cluster with these lines in pg_hba.conf, started."""
        with self._busy:
            self._tool("initdb", "-A", "trust", "-N", "-E", "UTF8", "--wal-segsize=1", "--no-instructions").checked()
            with open(self.data / "postgresql.conf", "a", encoding="ascii") as file:
                file.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())
            with open(self.data / "pg_hba.conf", "a", encoding="ascii") as file:
                file.write(hba)
            self._start()

    def start(self) -> None:
        """Start it on the files that it has, as a machine does that was switched on."""
        with self._busy:
            self._start()

    def stop(self) -> None:
        """A fast shutdown; nothing if it does not run."""
        with self._busy:
            self._stop()

    def promote(self) -> None:
        """Make it a primary; an error if it is one already, as `pg_ctl promote` says."""
        with self._busy:
            self._tool("pg_ctl", "promote", "-w", "-t", "20", limit_s=30).checked()

    def follow(self, primary: str) -> str:
        """Make it a streaming standby of the PostgreSQL at that address; returns how: "rewound" or "copied"."""
        with self._busy:
            self._stop()
            how = "rewound" if self._rewind(primary) else self._copy(primary)
            self._start()
            return how

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def in_recovery(self) -> bool:
        """Whether it is a standby; `CommandError` if it does not answer."""
        return ask(self.address, "select pg_is_in_recovery()").checked().out.strip() == "t"

    # steps of them

    def _start(self) -> None:
        if self.is_running():
            return
        # What a dead server left: its pid may belong to another lab's process by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        server = (postgres_binary("postgres"), "-D", str(self.data), "-k", str(self.folder))
        with open(self.folder / "postgres.log", "ab") as log:
            self._process = subprocess.Popen(
                (*_BEGIN, *server),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_until(self._is_ready, START_LIMIT_S, f"PostgreSQL of {self.name}, see {self.folder}/postgres.log", 0.02)

    def _is_ready(self) -> bool:
        """What `pg_ctl -w` looks at: the eighth line of postmaster.pid."""
        if not self.is_running():
            raise CommandError(f"PostgreSQL of {self.name} ended at its start: {self._log_tail()}")
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _log_tail(self) -> str:
        text = (self.folder / "postgres.log").read_text(encoding="utf-8", errors="replace")
        return " / ".join(text.splitlines()[-5:])

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):
            send_signal([process.pid] if process.poll() is None else [], number)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                continue
            self._process = None
            return
        raise CommandError(f"PostgreSQL of {self.name} (pid {process.pid}) does not stop")

    def _rewind(self, primary: str) -> bool:
        """Bring the files to where the primary's history parted from ours; False if that cannot be done."""
        if not (self.data / "PG_VERSION").exists():
            return False
        # pg_rewind reads the timeline in the control file: after a promotion it stands there from a checkpoint on.
        ask(primary, "checkpoint", 20).checked()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        source = connection(primary, self.name)
        done = self._tool("pg_rewind", "--source-server", source, "-R", "--no-sync", limit_s=COPY_LIMIT_S)
        return done.code == 0

    def _copy(self, primary: str) -> str:
        shutil.rmtree(self.data, ignore_errors=True)
        source = connection(primary, self.name)
        how = ("-c", "fast", "-X", "stream", "-R", "--no-sync")
        self._tool("pg_basebackup", "-d", source, *how, limit_s=COPY_LIMIT_S).checked()
        return "copied"

    def _tool(self, name: str, *arguments: str, limit_s: float = COPY_LIMIT_S) -> Finished:
        """A program of PostgreSQL for our data folder; what it said is kept in tools.log."""
        argv = (postgres_binary(name), *arguments, "-D", str(self.data))
        done = run((*_BEGIN, *argv), limit_s=limit_s, cwd=self.folder)
        with open(self.folder / "tools.log", "a", encoding="utf-8") as log:
            log.write(f"{' '.join(argv)}: {done.code}\n{done.out}{done.err}")
        return done


def ask(address: str, sql: str, limit_s: float = 5.0) -> Finished:
    """One statement, asked from here."""
    return run((postgres_binary("psql"), "-XAtq", "-d", connection(address), "-c", sql), limit_s=limit_s)
