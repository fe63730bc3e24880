"""The only way from a file to `Settings`.

`load` raises one `ConfigError` with every mistake of the file, one a line; `check` gives the same as data, warnings
included. Reads the configuration, the key file and the names of the local interfaces; changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pgvigil.heartbeat.settings import HeartbeatSettings, PeerAddress
from pgvigil.lifecheck.settings import (
    LifecheckPeer,
    LifecheckSettings,
    LinkSettings,
    PgpoolAddress,
    PgpoolWatchdogSettings,
    QuerySettings,
    UpstreamSettings,
)
from pgvigil.watchdog.config import command_rules, host_rules, keys, local_rules, rules
from pgvigil.watchdog.config.identity import own_node_id
from pgvigil.watchdog.config.kinds import ip_literal
from pgvigil.watchdog.config.local import LocalNetwork, local_network
from pgvigil.watchdog.config.pgpool_rules import pgpool_socket
from pgvigil.watchdog.config.problems import Problem, Problems, refusal
from pgvigil.watchdog.config.reader import Draft, NodeDraft, Section, read_draft
from pgvigil.watchdog.config.schema import COMMAND_NAMES
from pgvigil.watchdog.config.source import Source, Unreadable, parse_source, read_source
from pgvigil.watchdog.drift.configured import of_file
from pgvigil.watchdog.settings import (
    ClusterSettings,
    CommandSettings,
    FailoverSettings,
    Fence,
    NodeSettings,
    PathSettings,
    PgpoolSettings,
    ProcessSettings,
    RecoverySettings,
    RemovalSettings,
    Settings,
    UserCommand,
    VipAddress,
    VipSettings,
)

PATH_PORT = 9694


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading a file came to; `settings` is None if there are mistakes, `draft` if it is no TOML."""

    settings: Settings | None
    mistakes: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    draft: Draft | None = None


def load(path: str, node_id: int | None = None, local: LocalNetwork | None = None) -> Settings:
    """The settings of this node, or `ConfigError` with all mistakes, one a line."""
    outcome = examine(path, node_id, local)
    if outcome.settings is None:
        raise refusal(outcome.mistakes)
    return outcome.settings


def check(path: str, node_id: int | None = None, local: LocalNetwork | None = None) -> list[Problem]:
    """Mistakes, then warnings; empty if all is well."""
    outcome = examine(path, node_id, local)
    return [*outcome.mistakes, *outcome.warnings]


def examine(
    path: str, node_id: int | None = None, local: LocalNetwork | None = None,
    environment: Mapping[str, str] | None = None, data: bytes | None = None,
) -> Outcome:  # fmt: skip
    """Settings, mistakes and warnings at once; `data` instead of the file's content, for tests."""
    try:
        source = read_source(path) if data is None else parse_source(path, data)
    except Unreadable as error:
        return Outcome(None, (Problem(path, error.line, "", error.wrong, error.expected),), ())
    problems = Problems(source)
    draft = read_draft(problems)
    _fill_paths(draft)
    rules.apply_rules(problems, draft)
    network = local if local is not None else local_network()
    own_id = own_node_id(problems, node_id, os.environ if environment is None else environment, draft.nodes, network)
    own = next((node for node in draft.nodes if own_id is not None and node.section.get("id") == own_id), None)
    interface, commands = _this_machine(problems, draft, own, network)
    settings = None
    if own is not None and not problems.mistakes:
        settings = _Assembly(source, draft, own, network, interface, commands).settings()
    return Outcome(settings, tuple(problems.mistakes), tuple(problems.warnings), draft)


def _fill_paths(draft: Draft) -> None:
    """A host that is an address and has no paths has one: that address."""
    for node in draft.nodes:
        host = node.section.get("host")
        if not node.paths_given and host is not None and ip_literal(host) is not None:
            values = {"interface": local_rules.AUTO, "address": host, "port": PATH_PORT}
            node.paths = [Section(node.section.location, values, frozenset())]


def _this_machine(
    problems: Problems, draft: Draft, own: NodeDraft | None, network: LocalNetwork
) -> tuple[str, dict[str, str]]:
    """Interface of the virtual IP and the driver's commands, both checked, for this node."""
    if own is None:
        return "", {}
    local_rules.own_paths_are_here(problems, own, network)
    local_rules.tie_breaker_is_elsewhere(problems, draft, own, network)
    host_rules.host_can_be_watched(problems, draft, network)
    command_rules.control_group_is_here(problems, draft)
    if own.section.get("role") == "witness" or not draft["vip"].get("addresses"):
        return "", {}
    interface = local_rules.vip_interface(problems, draft, network)
    if draft["vip"].get("driver") != "command":
        return interface, {}
    commands = _driver_commands(draft["vip"], interface or "eth0")
    local_rules.commands_can_run(problems, draft, commands)
    return interface, commands


def _driver_commands(vip: Section, interface: str) -> dict[str, str]:
    """The driver's commands; the defaults are pgpool-II's, with this node's interface and prefix length."""
    prefix = vip.get("addresses")[0].partition("/")[2]
    defaults = {
        "if_up_cmd": f"/usr/bin/sudo /sbin/ip addr add $_IP_$/{prefix} dev {interface}",
        "if_down_cmd": f"/usr/bin/sudo /sbin/ip addr del $_IP_$/{prefix} dev {interface}",
        "arping_cmd": f"/usr/bin/sudo /usr/sbin/arping -U $_IP_$ -w 1 -I {interface}",
    }
    return {name: vip.get(name) or default for name, default in defaults.items()}


def _pgpool_address(node: NodeSettings) -> PgpoolAddress:
    """Every name by which pgpool.conf may call the host of a node's pgpool-II (hostname0, ...)."""
    names = (node.pgpool_host, node.host, *(path.address for path in node.paths))
    return PgpoolAddress(node.id, node.host, tuple(dict.fromkeys(name.lower() for name in names)), node.pgpool_port)


@dataclass(frozen=True, slots=True)
class _Assembly:
    """Puts the settings together from a draft without mistakes."""

    source: Source
    draft: Draft
    own: NodeDraft
    network: LocalNetwork
    interface: str
    commands: Mapping[str, str]

    def settings(self) -> Settings:
        cluster, process = self._cluster(), self._process()
        nodes = tuple(self._node(node) for node in self.draft.nodes)
        own = next(node for node in nodes if node.id == self.own.section.get("id"))
        peers = tuple(node for node in nodes if node.id != own.id)
        return Settings(
            source=os.path.abspath(self.source.path),
            node_id=own.id,
            cluster=cluster,
            nodes=nodes,
            heartbeats=self._heartbeats(cluster, process, own, peers),
            lifecheck=self._lifecheck(process, own, peers),
            vip=self._vip(),
            commands=CommandSettings(*map(self._command, COMMAND_NAMES)),
            process=process,
            pgpool=self._pgpool(),
            failover=self._failover(),
            compared=tuple(of_file(self.draft).items()),
            recovery=self._recovery(),
        )

    def _recovery(self) -> RecoverySettings:
        table = self.draft["lifecheck"]
        return RecoverySettings(
            hold_limit_s=self.draft["recovery"].get("hold_limit_s"),
            user=table.get("query_user") or "",
            database=table.get("query_database"),
            password_file=table.get("query_password_file") or "",
        )

    def _cluster(self) -> ClusterSettings:
        table = self.draft["cluster"]
        name, insecure = table.get("name"), table.get("insecure")
        if insecure:
            key = keys.insecure_key(name)
        else:
            key = keys.master_key(keys.read_secret(rules.key_path(self.source.path, self.draft)), name)
        return ClusterSettings(
            name=name,
            key=key,
            insecure=insecure,
            lease_ms=table.get("lease_ms"),
            renew_ms=table.get("renew_ms"),
            quorum=table.get("quorum"),
            preempt=table.get("preempt"),
            fence=Fence(table.get("fence")),
            removal=RemovalSettings(
                table.get("remove_shutdown_nodes"),
                table.get("lost_node_removal_timeout_s"),
                table.get("no_show_node_removal_timeout_s"),
            ),
            tie_breaker=table.get("tie_breaker") or "",
        )

    def _process(self) -> ProcessSettings:
        table = self.draft["process"]
        return ProcessSettings(
            run_dir=table.get("run_dir"),
            state_dir=table.get("state_dir"),
            log=table.get("log"),
            log_level=table.get("log_level"),
            hang_timeout_ms=table.get("hang_timeout_ms"),
            control_group=table.get("control_group") or "",
        )

    def _pgpool(self) -> PgpoolSettings:
        table = self.draft["pgpool"]
        return PgpoolSettings(
            table.get("pcp_user") or "", table.get("pcp_password_file") or "", table.get("pid_file") or ""
        )

    def _failover(self) -> FailoverSettings:
        table = self.draft["failover"]
        return FailoverSettings(
            table.get("require_consensus"),
            table.get("half_votes"),
            table.get("multiple_requests_from_node"),
            table.get("consensus_timeout_s"),
        )

    def _node(self, node: NodeDraft) -> NodeSettings:
        table, own = node.section, node is self.own
        return NodeSettings(
            id=table.get("id"),
            host=table.get("host"),
            port=table.get("port"),
            witness=table.get("role") == "witness",
            priority=table.get("priority"),
            pgpool_host=table.get("pgpool_host") or table.get("host"),
            pgpool_port=table.get("pgpool_port"),
            pcp_port=table.get("pcp_port"),
            paths=tuple(
                PathSettings(local_rules.path_interface(path, own, self.network), path.get("address"), path.get("port"))
                for path in node.paths
            ),
        )

    def _heartbeats(
        self, cluster: ClusterSettings, process: ProcessSettings, own: NodeSettings, peers: tuple[NodeSettings, ...]
    ) -> tuple[HeartbeatSettings, ...]:
        key = keys.heartbeat_key(cluster.key, cluster.name)
        table = self.draft["heartbeat"]
        latest_ms = table.get("deadtime_ms")
        return tuple(
            HeartbeatSettings(
                node_id=own.id,
                path=number,
                interface=path.interface,
                address=path.address,
                port=path.port,
                peers=tuple(
                    PeerAddress(peer.id, peer.host, peer.paths[number].address, peer.paths[number].port)
                    for peer in peers
                ),
                key=key,
                interval_ms=self.draft["heartbeat"].get("interval_ms"),
                run_dir=process.run_dir,
                deadtime_ms=self._deadtime_min_ms() if table.get("detector") == "adaptive" else latest_ms,
                latest_ms=latest_ms,
            )
            for number, path in enumerate(own.paths)
        )

    def _lifecheck(
        self, process: ProcessSettings, own: NodeSettings, peers: tuple[NodeSettings, ...]
    ) -> LifecheckSettings:
        heartbeat, table = self.draft["heartbeat"], self.draft["lifecheck"]
        without_pgpool = own.witness and "pgpool_host" not in self.own.section.given
        return LifecheckSettings(
            node_id=own.id,
            peers=tuple(self._lifecheck_peer(peer) for peer in peers),
            interfaces=tuple(path.interface for path in own.paths),
            methods=table.get("methods"),
            interval_ms=heartbeat.get("interval_ms"),
            deadtime_ms=heartbeat.get("deadtime_ms"),
            pgpool_pid_file=None if without_pgpool else self.draft["pgpool"].get("pid_file"),
            run_dir=process.run_dir,
            adaptive=heartbeat.get("detector") == "adaptive",
            deadtime_min_ms=self._deadtime_min_ms(),
            query=None if "query" not in table.get("methods") else self._query(own, without_pgpool),
            upstream=None if "upstream" not in table.get("methods") else self._upstream(),
            links=LinkSettings(table.get("interfaces"), self._vip_link(), table.get("link_debounce_ms")),
            external_timeout_s=table.get("external_timeout_s"),
            pgpool_watchdog=None if without_pgpool else self._pgpool_watchdog((own, *peers)),
        )

    def _deadtime_min_ms(self) -> int:
        heartbeat = self.draft["heartbeat"]
        least_ms: int = heartbeat.get("deadtime_min_ms") or 3 * heartbeat.get("interval_ms")
        return least_ms

    def _lifecheck_peer(self, peer: NodeSettings) -> LifecheckPeer:
        """A witness has a pgpool-II only if the file says where."""
        draft = next(node for node in self.draft.nodes if node.section.get("id") == peer.id)
        without_pgpool = peer.witness and "pgpool_host" not in draft.section.given
        return LifecheckPeer(peer.id, peer.host, "" if without_pgpool else peer.pgpool_host, peer.pgpool_port)

    def _pgpool_watchdog(self, nodes: tuple[NodeSettings, ...]) -> PgpoolWatchdogSettings | None:
        table = self.draft["pgpool"]
        if table.get("watchdog") != "external":
            return None
        authkey_file = table.get("watchdog_authkey_file")
        return PgpoolWatchdogSettings(
            socket_path=pgpool_socket(table),
            pid_file=table.get("pid_file"),
            authkey="" if authkey_file is None else keys.read_text(authkey_file),
            nodes=tuple(_pgpool_address(node) for node in nodes),
        )

    def _query(self, own: NodeSettings, without_pgpool: bool) -> QuerySettings:
        table = self.draft["lifecheck"]
        return QuerySettings(
            host="" if without_pgpool else own.pgpool_host,
            port=own.pgpool_port,
            query=table.get("query"),
            database=table.get("query_database"),
            user=table.get("query_user"),
            password_file=table.get("query_password_file"),
            interval_ms=table.get("query_interval_ms"),
            timeout_ms=table.get("query_timeout_ms"),
            life_points=table.get("query_life_points"),
        )

    def _vip_link(self) -> str:
        """Commands may carry the virtual IP by other means than an interface of this machine."""
        by_commands = self.draft["vip"].get("driver") == "command"
        return "" if by_commands and self.interface not in self.network.interfaces else self.interface

    def _upstream(self) -> UpstreamSettings:
        table = self.draft["lifecheck"]
        return UpstreamSettings(
            servers=table.get("upstream_servers"),
            command=table.get("upstream_command"),
            interval_ms=table.get("upstream_interval_ms"),
            timeout_ms=table.get("upstream_timeout_ms"),
            life_points=table.get("upstream_life_points"),
        )

    def _vip(self) -> VipSettings:
        table = self.draft["vip"]
        split = [item.partition("/") for item in table.get("addresses")]
        return VipSettings(
            addresses=tuple(VipAddress(address, int(prefix)) for address, _, prefix in split),
            interface=self.interface,
            driver=table.get("driver"),
            if_up_cmd=self.commands.get("if_up_cmd", ""),
            if_down_cmd=self.commands.get("if_down_cmd", ""),
            arping_cmd=self.commands.get("arping_cmd", ""),
            announce_interval_s=table.get("announce_interval_s"),
            command_timeout_s=table.get("command_timeout_s"),
        )

    def _command(self, name: str) -> UserCommand | None:
        table = self.draft.commands.get(name)
        if table is None:
            return None
        return UserCommand(table.get("run"), table.get("timeout_s"), table.get("policy"))
