"""Errors, split by who has to act.

Every error of pgvigil is one of four kinds, named after who is to blame, because that decides what
happens next: an operator reads a `ConfigError`, a `PeerError` is counted and the message dropped, a
`CommandError` is reported and retried, an `InvariantError` ends the process. The text names the value
that was met and what was expected instead.
"""

from __future__ import annotations


class PgvigilError(Exception):
    """Base of all errors; never raised itself."""


class ConfigError(PgvigilError):
    """The operator gave something that cannot work: a file, an option, an order."""


class PeerError(PgvigilError):
    """Another process or node sent something that is not valid; the message is dropped."""


class CommandError(PgvigilError):
    """The environment refused: the kernel, the disk, a command, a service."""


class InvariantError(PgvigilError):
    """pgvigil contradicts itself; the process must end rather than act on it."""
