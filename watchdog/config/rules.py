"""What must hold between settings, each with the sentence that an operator reads.

A rule looks only at values that are right by themselves; it never raises. Rules that depend on this machine are in
`local_rules`, so that a file can be judged anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pgvigil.ipc import endpoints
from pgvigil.ipc.counted import counted
from pgvigil.ipc.errors import ConfigError
from pgvigil.lifecheck.settings import split_upstream
from pgvigil.watchdog.config import command_rules, host_rules, keys
from pgvigil.watchdog.config.kinds import ip_literal
from pgvigil.watchdog.config.pgpool_rules import pgpool_watchdog_leads_alone
from pgvigil.watchdog.config.problems import Problems
from pgvigil.watchdog.config.reader import Draft, NodeDraft, Section
from pgvigil.watchdog.config.source import Location
from pgvigil.watchdog.settings import NOT_GUARANTEED

Rule = Callable[[Problems, Draft], None]


def apply_rules(problems: Problems, draft: Draft) -> None:
    """Apply every rule."""
    for rule in RULES:
        rule(problems, draft)


# --- times ------------------------------------------------------------------------------------------------


def lease_fits_renewal(problems: Problems, draft: Draft) -> None:
    """One lost renewal must not cost the lease (PROTOCOL: R <= L/3)."""
    cluster = draft["cluster"]
    if not cluster.whole("lease_ms", "renew_ms"):
        return
    lease_ms, renew_ms = cluster.get("lease_ms"), cluster.get("renew_ms")
    if lease_ms < 3 * renew_ms:
        key = "lease_ms" if "lease_ms" in cluster.given else "renew_ms"
        wrong = f"a lease of {lease_ms} ms is shorter than three renewals of {renew_ms} ms"
        expected = f"expected lease_ms >= {3 * renew_ms} or renew_ms <= {lease_ms // 3}"
        problems.mistake(cluster.at(key), wrong, expected)


def deadtime_fits_interval(problems: Problems, draft: Draft) -> None:
    """One lost datagram must not make a node dead."""
    heartbeat = draft["heartbeat"]
    if not heartbeat.whole("interval_ms", "deadtime_ms"):
        return
    interval_ms, deadtime_ms = heartbeat.get("interval_ms"), heartbeat.get("deadtime_ms")
    if deadtime_ms < 3 * interval_ms:
        key = "deadtime_ms" if "deadtime_ms" in heartbeat.given else "interval_ms"
        wrong = f"a node would be dead after {deadtime_ms} ms, less than three heartbeats of {interval_ms} ms"
        expected = f"expected deadtime_ms >= {3 * interval_ms} or interval_ms <= {deadtime_ms // 3}"
        problems.mistake(heartbeat.at(key), wrong, expected)


def half_hears_in_time(problems: Problems, draft: Draft) -> None:
    """P22 d: after a partition the other half must be heard before the tie-breaker's series of three leases is full."""
    cluster, heartbeat = draft["cluster"], draft["heartbeat"]
    if cluster.get("quorum") != "half" or not cluster.whole("lease_ms") or not heartbeat.whole("interval_ms"):
        return
    lease_ms, interval_ms = cluster.get("lease_ms"), heartbeat.get("interval_ms")
    if interval_ms > lease_ms:
        wrong = f'heartbeats every {interval_ms} ms are too rare for a lease of {lease_ms} ms with quorum = "half"'
        problems.mistake(
            heartbeat.at("interval_ms"), wrong, f"expected interval_ms <= {lease_ms}, or a longer lease_ms"
        )


def removal_waits_for_certainty(problems: Problems, draft: Draft) -> None:
    """A node is dead after the dead time, and the leader may have to be elected anew: sooner is no decision."""
    cluster, heartbeat = draft["cluster"], draft["heartbeat"]
    if not cluster.whole("lease_ms") or not heartbeat.whole("deadtime_ms"):
        return
    least_s = -(-(2 * cluster.get("lease_ms") + heartbeat.get("deadtime_ms")) // 1000)
    for key in ("lost_node_removal_timeout_s", "no_show_node_removal_timeout_s"):
        seconds = cluster.get(key)
        if seconds and seconds < least_s:
            wrong = "is shorter than two leases and the dead time of heartbeats"
            problems.mistake(cluster.at(key), wrong, f"expected 0 (never) or at least {least_s}")


# --- nodes ------------------------------------------------------------------------------------------------


def ids_are_unique(problems: Problems, draft: Draft) -> None:
    """An id is a vote."""
    _unique(problems, [(node.section, "id") for node in draft.nodes], "node id")


def hosts_are_unique(problems: Problems, draft: Draft) -> None:
    """Two nodes of one host would be one node with two votes."""
    _unique(problems, [(node.section, "host") for node in draft.nodes], "host")


def addresses_are_unique(problems: Problems, draft: Draft) -> None:
    """An address belongs to one path of one node."""
    if all(node.paths_given for node in draft.nodes):
        _unique(problems, [(path, "address") for node in draft.nodes for path in node.paths], "address")
        return
    given = [(path, "address") for node in draft.nodes if node.paths_given for path in node.paths]
    hosts = [(node.section, "host") for node in draft.nodes if not node.paths_given]
    # Equal hosts are told by `hosts_are_unique`; here only an address that is also another node's host.
    values = {section.get(key) for section, key in hosts}
    for section, key in given:
        if section.get(key) is not None and section.get(key) in values:
            problems.mistake(section.at(key), "is also the address of another node", "expected one owner per address")
    _unique(problems, given, "address")


def _unique(problems: Problems, places: list[tuple[Section, str]], what: str) -> None:
    first: dict[object, Location] = {}
    for section, key in places:
        value = section.get(key)
        if value is None:
            continue
        value = value.lower() if isinstance(value, str) else value
        if value in first:
            line = problems.source.line(first[value])
            problems.mistake(section.at(key), f"this {what} is given twice, first in line {line}", "expected a new one")
        else:
            first[value] = section.at(key)


def paths_are_given_or_follow(problems: Problems, draft: Draft) -> None:
    """A name is never resolved: what a resolver answers differs by node and by hour."""
    for node in draft.nodes:
        host = node.section.get("host")
        if host is None:
            continue
        if not node.paths_given and ip_literal(host) is None:
            problems.mistake(
                node.section.at("host"),
                f"node {node.section.get('id') or '?'} has a name and no addresses, and names are not resolved",
                'give its addresses: [[node.path]] with address = "..."',
            )
        if node.paths_given and not node.paths:
            problems.mistake(node.section.location, "the list of paths is empty", "expected at least one path or none")


def paths_match(problems: Problems, draft: Draft) -> None:
    """Paths of equal position talk to each other, so every node has as many, of the same families."""
    nodes = [node for node in draft.nodes if node.paths]
    if not nodes:
        return
    first = nodes[0]
    for node in nodes[1:]:
        if len(node.paths) != len(first.paths):
            problems.mistake(
                node.section.location,
                f"node {_id(node)} has {counted(len(node.paths), 'path')} and node {_id(first)} has {len(first.paths)}",
                "expected the same number on every node",
            )
            continue
        for number, (path, other) in enumerate(zip(node.paths, first.paths, strict=True), start=1):
            if path.whole("address") and other.whole("address") and _family(path) != _family(other):
                problems.mistake(
                    path.at("address"),
                    f"path {number} is IPv{_family(path)} here and IPv{_family(other)} on node {_id(first)}",
                    "expected one family per path",
                )


def _id(node: NodeDraft) -> str:
    return str(node.section.get("id") or node.section.get("host") or "?")


def _family(path: Section) -> int:
    return 6 if ":" in path.get("address") else 4


def there_are_nodes(problems: Problems, draft: Draft) -> None:
    """An empty list founds nothing."""
    if "node" in problems.source.tables and not draft.nodes and isinstance(problems.source.tables["node"], list):
        problems.mistake(("node",), "the list of nodes is empty", "expected at least one [[node]]")


def somebody_can_lead(problems: Problems, draft: Draft) -> None:
    """Witnesses alone can elect nobody."""
    roles = [node.section.get("role") for node in draft.nodes]
    if roles and all(role == "witness" for role in roles):
        location = draft.nodes[0].section.at("role")
        problems.mistake(location, "every node is a witness, so no node can lead", 'expected one role = "member"')


def half_has_a_tie_breaker(problems: Problems, draft: Draft) -> None:
    """Half of the voters proves nothing alone; half of an odd number is a majority (P22)."""
    cluster, count = draft["cluster"], len(draft.nodes)
    given = cluster.get("tie_breaker")
    if cluster.get("quorum") == "majority" and "tie_breaker" in cluster.given:
        problems.mistake(cluster.at("tie_breaker"), 'is used by quorum = "half" only', "remove it, or change quorum")
    if cluster.get("quorum") != "half":
        return
    if "tie_breaker" not in cluster.given:
        wrong = "has no tie_breaker, so both halves of a partition would lead"
        problems.mistake(cluster.at("quorum"), wrong, 'set tie_breaker, or quorum = "majority"')
    if count % 2:
        found = f"{counted(count, 'node')} {'has' if count == 1 else 'have'} no half, so a majority is needed as ever"
        problems.warn(cluster.at("quorum"), found, "an even number of nodes is what it is for")
    if given is not None:
        _tie_breaker_is_nobodys(problems, draft, split_upstream(given)[0])
        problems.warn(
            cluster.at("quorum"),
            NOT_GUARANTEED % given,
            "add a third node instead, a witness is enough",
        )


def _tie_breaker_is_nobodys(problems: Problems, draft: Draft, address: str) -> None:
    """A node always reaches itself, and the virtual IP is what is in dispute."""
    cluster = draft["cluster"]
    own = {path.get("address") for node in draft.nodes for path in node.paths}
    own |= {node.section.get("host") for node in draft.nodes}
    if address in own:
        problems.mistake(cluster.at("tie_breaker"), "is a node's own address", "expected one that no node has")
    if address in _vip_addresses(draft["vip"]):
        problems.mistake(cluster.at("tie_breaker"), "is a virtual address", "expected one that never moves")


def voters_can_lose_one(problems: Problems, draft: Draft) -> None:
    """One node has no peer; an even number survives no more losses than the odd number below it."""
    count = 0 if draft["cluster"].get("quorum") == "half" else len(draft.nodes)
    if count == 1:
        problems.warn(("node",), "one node alone has no peer to take over", "add two more, one may be a witness")
    elif count == 2:
        problems.warn(
            ("node",),
            "two nodes are no majority without each other: the loss of one takes the virtual IP away",
            'add a third, role = "witness" is enough',
        )
    elif count and count % 2 == 0:
        survives = count // 2 - 1
        problems.warn(
            ("node",),
            f"{count} voters survive the loss of {survives}, as {count - 1} would",
            'add a node, role = "witness" is enough',
        )


# --- virtual IP -------------------------------------------------------------------------------------------


def vips_are_unique(problems: Problems, draft: Draft) -> None:
    """The same address twice would be removed while it is still wanted."""
    vip = draft["vip"]
    seen: set[str] = set()
    for address in _vip_addresses(vip):
        if address in seen:
            problems.mistake(vip.at("addresses"), f"{address} is given twice", "expected each address once")
        seen.add(address)


def vip_is_nobodys_own(problems: Problems, draft: Draft) -> None:
    """A virtual IP that a host has anyway is never free to move."""
    vip = draft["vip"]
    for node in draft.nodes:
        own = {path.get("address") for path in node.paths} | {node.section.get("host")}
        for address in dict.fromkeys(_vip_addresses(vip)):
            if address in own:
                problems.mistake(
                    vip.at("addresses"),
                    f"{address} is the own address of node {_id(node)}",
                    "expected an address that no host has",
                )


def _vip_addresses(vip: Section) -> list[str]:
    return [item.partition("/")[0] for item in vip.get("addresses") or ()]


def command_driver_has_commands(problems: Problems, draft: Draft) -> None:
    """Driver "command" runs what stands here; driver "netlink" runs nothing."""
    vip = draft["vip"]
    names = ("if_up_cmd", "if_down_cmd", "arping_cmd")
    if vip.get("driver") == "netlink":
        for name in names:
            if name in vip.given:
                problems.mistake(vip.at(name), 'is not used by driver "netlink"', 'remove it or set driver = "command"')
    if vip.get("driver") != "command":
        return
    for name in names:
        text = vip.get(name)
        if text is None:
            continue
        if not text.strip():
            problems.mistake(vip.at(name), 'is empty, and driver "command" needs it', "expected a command with $_IP_$")
        elif "$_IP_$" not in text and name != "arping_cmd":
            problems.mistake(vip.at(name), "does not name the address", "expected a command with $_IP_$")


# --- secret and files -------------------------------------------------------------------------------------


def secret_is_private(problems: Problems, draft: Draft) -> None:
    """Whoever has the secret can be any node; without one the operator must say so."""
    cluster = draft["cluster"]
    if "cluster" not in problems.source.tables:
        return
    insecure, given = cluster.get("insecure"), "authkey_file" in cluster.given
    if insecure is True:
        problems.warn(
            cluster.at("insecure"),
            "nothing is authenticated: whoever reaches the ports can take the virtual IP",
            f"{keys.MEND}, then set authkey_file",
        )
        if given:
            problems.mistake(cluster.at("authkey_file"), "contradicts insecure = true", "remove one of the two")
    elif insecure is False and not given:
        expected = f"{keys.MEND}, or set insecure = true"
        problems.mistake(cluster.location, "authkey_file is missing", expected)
    elif cluster.whole("authkey_file"):
        _private(problems, cluster.at("authkey_file"), key_path(problems.source.path, draft), keys.read_secret)


def key_path(config_path: str, draft: Draft) -> str:
    """The key file; a relative path counts from the configuration's folder."""
    return os.path.join(os.path.dirname(os.path.abspath(config_path)), draft["cluster"].get("authkey_file"))


def pcp_password_is_private(problems: Problems, draft: Draft) -> None:
    """A password is as private as the secret."""
    pgpool = draft["pgpool"]
    if pgpool.whole("pcp_password_file"):
        location = pgpool.at("pcp_password_file")
        _private(problems, location, pgpool.get("pcp_password_file"), lambda path: os.close(keys.check_private(path)))


def _private(problems: Problems, location: Location, path: str, read: Callable[[str], object]) -> None:
    try:
        read(path)
    except ConfigError as error:
        wrong, _, expected = str(error).partition("; ")
        problems.mistake(location, wrong, expected)


def run_dir_is_short(problems: Problems, draft: Draft) -> None:
    """A socket's path has at most 107 bytes (unix(7))."""
    process = draft["process"]
    if not process.whole("run_dir"):
        return
    run_dir = process.get("run_dir")
    longest = len(os.fsencode(endpoints.sender_endpoint(run_dir, 99))) - len("ipc://")
    if longest > endpoints.MAX_PATH_BYTES:
        room = len(os.fsencode(run_dir)) - (longest - endpoints.MAX_PATH_BYTES)
        problems.mistake(process.at("run_dir"), "is too long for the sockets in it", f"expected at most {room} bytes")


def folders_differ(problems: Problems, draft: Draft) -> None:
    """The run directory may be emptied at every start of the machine; the durable record may not."""
    process = draft["process"]
    if process.whole("run_dir", "state_dir") and process.get("run_dir") == process.get("state_dir"):
        wrong = "is also run_dir, which may be emptied at every start of the machine"
        problems.mistake(process.at("state_dir"), wrong, "expected a folder of its own on a disk")


def query_password_is_private(problems: Problems, draft: Draft) -> None:
    """Likewise; a method that is not used needs no password."""
    lifecheck = draft["lifecheck"]
    if "query" in (lifecheck.get("methods") or ()) and lifecheck.whole("query_password_file"):
        location, path = lifecheck.at("query_password_file"), lifecheck.get("query_password_file")
        _private(problems, location, path, lambda name: os.close(keys.check_private(name)))


def heartbeat_is_a_method(problems: Problems, draft: Draft) -> None:
    """Without heartbeats nobody knows of the others, unless somebody outside is to tell."""
    lifecheck = draft["lifecheck"]
    methods = lifecheck.get("methods")
    if methods is None:
        return
    if len(set(methods)) != len(methods):
        problems.mistake(lifecheck.at("methods"), "names a method twice", "expected each once")
    others = [f'"{method}"' for method in methods if method in ("heartbeat", "process", "query")]
    if "external" in methods and others:
        problems.mistake(
            lifecheck.at("methods"),
            f'"external" judges alone, so {" and ".join(others)} would judge nobody',
            'expected ["external"], or the others without it: reports count beside them, too',
        )
    elif not {"heartbeat", "external"} & set(methods):
        problems.mistake(lifecheck.at("methods"), '"heartbeat" is missing and always needed', 'add "heartbeat"')
    if not {"process", "query", "external"} & set(methods):
        problems.warn(lifecheck.at("methods"), "nobody notices when the local pgpool-II dies", 'add "process"')
    elif "query" in methods and "process" not in methods:
        wrong = "with a wrong password nobody knows whether any pgpool-II is alive, and no node can be elected"
        problems.warn(lifecheck.at("methods"), wrong, 'add "process"')


def methods_have_what_they_need(problems: Problems, draft: Draft) -> None:
    """A method without its settings would judge nobody, and nobody would notice."""
    lifecheck = draft["lifecheck"]
    methods = lifecheck.get("methods") or ()
    if "query" in methods and not lifecheck.get("query_user"):
        wrong = 'has "query", but query_user is not set'
        problems.mistake(lifecheck.at("methods"), wrong, "expected query_user = the name of a PostgreSQL user")
    if "upstream" in methods and lifecheck.whole("upstream_servers") and not lifecheck.get("upstream_servers"):
        wrong = 'has "upstream", but upstream_servers is empty'
        problems.mistake(lifecheck.at("methods"), wrong, 'expected upstream_servers such as ["10.0.0.1"]')


def detector_has_room(problems: Problems, draft: Draft) -> None:
    """The floor of the adaptive detector lies between what one lost datagram costs and its ceiling."""
    heartbeat = draft["heartbeat"]
    floor_ms = heartbeat.get("deadtime_min_ms")
    if floor_ms is None or not heartbeat.whole("interval_ms", "deadtime_ms"):
        return
    least_ms, most_ms = 3 * heartbeat.get("interval_ms"), heartbeat.get("deadtime_ms")
    if not least_ms <= floor_ms <= most_ms:
        wrong = f"is not between three intervals ({least_ms} ms) and deadtime_ms ({most_ms} ms)"
        problems.mistake(heartbeat.at("deadtime_min_ms"), wrong, f"expected {least_ms} to {most_ms}")


RULES: tuple[Rule, ...] = (
    lease_fits_renewal,
    deadtime_fits_interval,
    half_hears_in_time,
    removal_waits_for_certainty,
    there_are_nodes,
    ids_are_unique,
    hosts_are_unique,
    addresses_are_unique,
    paths_are_given_or_follow,
    paths_match,
    somebody_can_lead,
    half_has_a_tie_breaker,
    voters_can_lose_one,
    vips_are_unique,
    vip_is_nobodys_own,
    command_driver_has_commands,
    secret_is_private,
    pcp_password_is_private,
    query_password_is_private,
    pgpool_watchdog_leads_alone,
    command_rules.backends_are_watched,
    command_rules.placeholders_are_known,
    command_rules.de_escalation_runs_once,
    command_rules.consensus_makes_sense,
    run_dir_is_short,
    folders_differ,
    heartbeat_is_a_method,
    methods_have_what_they_need,
    detector_has_room,
    host_rules.upstream_is_asked,
)
