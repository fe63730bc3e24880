"""pgpool-IIs with their own watchdog switched on, and the lifecheck left to somebody else.

As a site would run them: three nodes, a shared wd_authkey, a virtual IP of pgpool-II's own, and
`wd_lifecheck_method = 'external'`. No backend is needed to elect a leader.
"""

from __future__ import annotations

from pgvigil.watchdog.demo.lab import VIP, Host, Lab
from pgvigil.watchdog.demo.services import PGPOOL_PORT, Pgpool

WD_PORT = 9010
"""Not 9000: pgpool-II binds it on all addresses, and 9000 is pgvigil's own."""
WD_AUTHKEY = "a key for this lab"


class WatchdogPgpool(Pgpool):
    """One pgpool-II with `use_watchdog = on`; its pgpool_node_id is the node's number less one."""

    def __init__(self, lab: Lab, node: Host, delegate_ip: str = VIP, port: int = WD_PORT) -> None:
        super().__init__(lab, node)
        self.options = _watchdog(lab, self, delegate_ip, port)

    @property
    def authkey_file(self) -> str:
        """The key as a file of mode 0600, for pgvigil."""
        path = self.node.folder / "wd_authkey"
        path.touch(mode=0o600)
        path.write_text(WD_AUTHKEY + "\n", encoding="ascii")
        return str(path)

    def write_files(self) -> None:
        super().write_files()
        (self.folder / "pgpool_node_id").write_text(f"{self.node.number - 1}\n", encoding="ascii")


def _watchdog(lab: Lab, pgpool: Pgpool, delegate_ip: str, port: int) -> dict[str, object]:
    values: dict[str, object] = {
        "use_watchdog": "on",
        "wd_lifecheck_method": "external",
        "wd_authkey": WD_AUTHKEY,
        "wd_ipc_socket_dir": pgpool.folder,
        # Candidates of one priority reject each other, and each round costs five seconds.
        "wd_priority": 10 - pgpool.node.number,
        "delegate_IP": delegate_ip,
        "if_cmd_path": "/sbin",
        "if_up_cmd": "/sbin/ip addr add $_IP_$/24 dev eth0",
        "if_down_cmd": "/sbin/ip addr del $_IP_$/24 dev eth0",
        "arping_cmd": "/bin/true $_IP_$",
    }
    for node in lab.nodes:
        number = node.number - 1
        values[f"hostname{number}"] = node.address
        values[f"wd_port{number}"] = port
        values[f"pgpool_port{number}"] = PGPOOL_PORT
    return values
