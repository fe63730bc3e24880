"""Imports what lifecheck will need, in the supervisor before it forks: an import afterwards copies a megabyte of pages.

Only what the settings ask for is imported, here as there, so that a method costs nobody who does not use it. libpq is
left out: its 20 MiB must not be mapped in every process, and its 0.2 s not be spent at the supervisor's start.
"""

from __future__ import annotations

from pgvigil.lifecheck.settings import LifecheckSettings


def preload(settings: LifecheckSettings) -> None:
    """Import the modules of the configured methods; those that are there already cost nothing."""
    if settings.links.interfaces or settings.links.vip_interface:
        import pgvigil.lifecheck.probes.links
    if settings.upstream is not None:
        import pgvigil.lifecheck.probes.upstream
    if settings.adaptive:
        import pgvigil.lifecheck.core.accrual
    if settings.external_alone:
        import pgvigil.lifecheck.core.external
        import pgvigil.lifecheck.probes.external
    if settings.pgpool_watchdog is not None:
        import pgvigil.lifecheck.core.informing
        import pgvigil.lifecheck.probes.pgpool_watchdog  # noqa: F401
