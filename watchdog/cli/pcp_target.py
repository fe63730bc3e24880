"""Which pgpool-II a PCP command talks to, and as whom: options first, then the configuration, then .pcppass.

With `--host` no configuration is needed, so the command also works where pgvigil is not set up. The password never
comes from the command line: every user of the machine could read it there.
"""

from __future__ import annotations

import argparse
import os
import pwd
from dataclasses import dataclass

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.cli.parser import config_path
from pgvigil.watchdog.config.load import examine
from pgvigil.watchdog.config.problems import refusal
from pgvigil.watchdog.pcp import passwords
from pgvigil.watchdog.pcp.client import Address
from pgvigil.watchdog.settings import NodeSettings, PgpoolSettings, Settings

DEFAULT_PORT = 9898


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and as whom."""

    address: Address
    user: str
    password: str


def target_of(options: argparse.Namespace) -> Target:
    """`ConfigError` with what to write where if something is missing."""
    settings = _settings(options)
    if options.host is not None:
        address = Address(options.host, options.port or DEFAULT_PORT)
    else:
        node = _node(settings, options.node)
        address = Address(node.pgpool_host, options.port or node.pcp_port)
    configured = settings.pgpool if settings is not None else PgpoolSettings()
    user = options.user or configured.pcp_user or _own_name()
    return Target(address, user, _password(options, configured, address, user))


def _settings(options: argparse.Namespace) -> Settings | None:
    """None only if the command does without: with --host."""
    if options.host is not None and options.node is not None:
        raise ConfigError("--host and --node name two pgpool-IIs, expected one of them")
    outcome = examine(config_path(options), options.node_id)
    if outcome.settings is None and options.host is None:
        raise refusal(outcome.mistakes)
    return outcome.settings


def _node(settings: Settings | None, wanted: str | None) -> NodeSettings:
    if settings is None:
        raise ConfigError("no configuration, expected one or --host")
    if wanted is None:
        return settings.node
    for node in settings.nodes:
        if wanted in (str(node.id), node.host):
            return node
    known = ", ".join(f"{node.host} ({node.id})" for node in settings.nodes)
    raise ConfigError(f"--node {wanted[:253]}: no such node, expected one of {known}")


def _own_name() -> str:
    """As pgpool-II's tools: the user of the operating system."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigError(f"user {os.geteuid()} has no name, expected --user or pcp_user in [pgpool]") from None


def _password(options: argparse.Namespace, configured: PgpoolSettings, address: Address, user: str) -> str:
    if options.password_file is not None:
        return passwords.password_of_file(options.password_file)
    if configured.pcp_password_file and user == configured.pcp_user:
        return passwords.password_of_file(configured.pcp_password_file)
    path = passwords.pass_file(os.environ)
    found = passwords.password_of_pass_file(path, address.host, address.port, user) if path else None
    if found is None:
        where = f"a line '{address.host}:{address.port}:{user}:password' in {path or 'PCPPASSFILE'} (mode 0600)"
        raise ConfigError(
            f"no password of PCP user {user} for {address}; expected pcp_user and pcp_password_file in [pgpool], "
            f"--password-file, or {where}"
        )
    return found
