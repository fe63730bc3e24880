"""Two PostgreSQLs in native replication, the second to be recovered online, and what pgpool-II needs for it.

Everything happens in the second stage, so that a write that slips through in it would be missing on the second: a
base backup of the first, taken as pgpool-II's tutorial does, and a little time in which somebody could write.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgvigil.watchdog.demo.lab import DATABASE_ADDRESS, Host, Lab
from pgvigil.watchdog.demo.services import POSTGRES_PORT, Postgres, postgres_binary

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
SECOND_PORT = POSTGRES_PORT + 1
SECOND = f"host={DATABASE_ADDRESS} port={SECOND_PORT}"
STAGE_S = 2

# What the extension pgpool_recovery does: start a script in the data directory. The extension itself is a package more.
FUNCTIONS = """
create function {name}({arguments}) returns bool language plpgsql as $$
begin
    execute format('copy (select 1) to program %L', current_setting('data_directory') || '/' || {script});
    return true;
end $$
"""
RECOVERY = FUNCTIONS.format(
    name="pgpool_recovery",
    arguments="script text, host text, data text, port text, node int, remote_port text, main_host text",
    script="script",
)
REMOTE_START = FUNCTIONS.format(
    name="pgpool_remote_start", arguments="host text, data text", script="'pgpool_remote_start'"
)


class Pair:
    """The first runs; the second is a folder that the recovery fills."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.first = Postgres(lab)
        self.first.access = ("host replication all 10.77.0.0/24 trust", "local replication all trust")
        self.folder = lab.database.folder

    def start(self) -> None:
        self.first.start()
        for sql in (RECOVERY, REMOTE_START):
            target = f"host={DATABASE_ADDRESS} port={POSTGRES_PORT} user=postgres dbname=template1"
            self._lab.run(self._lab.client, (postgres_binary("psql"), "-XAtq", "-d", target, "-c", sql)).checked()
        second, socket_dir = self.folder / "second", self.folder
        backup = f"{postgres_binary('pg_basebackup')} -h {socket_dir} -U postgres -D {second} --checkpoint=fast"
        options = f"-c port={SECOND_PORT} -c listen_addresses=* -c unix_socket_directories={socket_dir} -c fsync=off"
        self._script("first_stage", "true")
        self._script("second_stage", f"rm -rf {second} && {backup} && sleep {STAGE_S}")
        start = f"{postgres_binary('pg_ctl')} -w -D {second} -l {self.folder}/second.log -o '{options}' start"
        self._script("pgpool_remote_start", start)

    def _script(self, name: str, line: str) -> None:
        path = self.folder / "data" / name
        path.write_text(f"#!/bin/sh\nexec </dev/null >>{self.folder}/scripts.log 2>&1\n{line}\n", encoding="ascii")
        path.chmod(0o755)

    def pgpool_options(self, data: Path) -> dict[str, object]:
        """For pgpool.conf."""
        return {
            "backend_clustering_mode": "native_replication",
            "backend_flag0": "ALLOW_TO_FAILOVER",
            "backend_data_directory0": data,
            "backend_hostname1": DATABASE_ADDRESS,
            "backend_port1": SECOND_PORT,
            "backend_weight1": 1,
            "backend_flag1": "ALLOW_TO_FAILOVER",
            "backend_data_directory1": self.folder / "second",
            "recovery_user": "postgres",
            "recovery_1st_stage_command": "first_stage",
            "recovery_2nd_stage_command": "second_stage",
            "health_check_period": 1,
            "health_check_user": "postgres",
            "health_check_database": "postgres",
        }


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """This thread acts on a host."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{host.namespace}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
