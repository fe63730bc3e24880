"""What must hold between the users' commands, the consensus on backends, and pgpool-II.

A failover command that nobody would ever start, or one that would run with words torn apart by a shell, is found here
and not on the night of the failure.
"""

from __future__ import annotations

import grp

from pgvigil.ipc.counted import counted
from pgvigil.watchdog import placeholders
from pgvigil.watchdog.config.problems import Problems
from pgvigil.watchdog.config.reader import Draft

OF_BACKENDS = ("failover", "failback", "follow_primary")


def backends_are_watched(problems: Problems, draft: Draft) -> None:
    """Without PCP nobody knows the backends, so nothing is ever decided about one."""
    pgpool = draft["pgpool"]
    if pgpool.get("watchdog") == "external":
        return  # told by `pgpool_rules`
    missing = [key for key in ("pcp_user", "pcp_password_file") if key not in pgpool.given]
    for name in OF_BACKENDS:
        if name in draft.commands and missing:
            wrong = f"would never run: without {' and '.join(missing)} of [pgpool] nobody watches the backends"
            problems.mistake(("commands", name), wrong, f"set {' and '.join(missing)} in [pgpool]")


def placeholders_are_known(problems: Problems, draft: Draft) -> None:
    """pgpool-II drops what it does not know, and lets the shell have what it finds in quotes."""
    for name in OF_BACKENDS:
        run = draft.commands[name].get("run") if name in draft.commands else None
        wrong = None if run is None else placeholders.wrong_in(run)
        if wrong is not None:
            found, _, expected = wrong.partition("; ")
            problems.mistake(("commands", name, "run"), found, expected)


def de_escalation_runs_once(problems: Problems, draft: Draft) -> None:
    """A node that leads no more can commit nothing, so nobody could know that a retry is due."""
    if "de_escalation" in draft.commands and draft.commands["de_escalation"].get("policy") == "retry":
        wrong = "has no use here: a node that leads no more cannot have it repeated by another"
        problems.mistake(("commands", "de_escalation", "policy"), wrong, 'expected "once"')


def consensus_makes_sense(problems: Problems, draft: Draft) -> None:
    """What weighs votes means nothing where one is enough; half of an odd number is no number."""
    failover, pgpool = draft["failover"], draft["pgpool"]
    if failover.given and pgpool.get("watchdog") == "external":
        wrong = "pgpool-II's own watchdog decides on failovers (pgpool.watchdog)"
        problems.mistake(failover.location, wrong, "remove it, and set failover_require_consensus in pgpool.conf")
        return
    for key in ("half_votes", "multiple_requests_from_node"):
        if failover.get(key) and failover.get("require_consensus") is False:
            wrong = "counts votes, and with require_consensus = false one report is enough"
            problems.mistake(failover.at(key), wrong, "remove one of the two")
    members = sum(node.section.get("role") == "member" for node in draft.nodes)
    if failover.get("half_votes") and members % 2:
        who = f"{counted(members, 'pgpool-II')} {'has' if members == 1 else 'have'}"
        wrong = f"{who} no half (a witness has no vote on backends), so a majority is needed as ever"
        problems.warn(failover.at("half_votes"), wrong, "an even number of members is what it is for")


def control_group_is_here(problems: Problems, draft: Draft) -> None:
    """On the machine that reads the file; others may number their groups as they like."""
    name = draft["process"].get("control_group")
    if name is None:
        return
    try:
        grp.getgrnam(name)
    except KeyError:
        wrong = "this machine has no such group"
        problems.mistake(draft["process"].at("control_group"), wrong, "expected the group of pgpool-II's user")
