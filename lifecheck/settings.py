"""What the lifecheck process needs to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LifecheckPeer:
    """A peer to judge. `label` is its host name as operators know it."""

    node_id: int
    label: str


@dataclass(frozen=True, slots=True)
class LifecheckSettings:
    """`interfaces` names the paths in order; `pgpool_pid_file` is None on a witness without pgpool-II."""

    node_id: int
    peers: tuple[LifecheckPeer, ...]
    interfaces: tuple[str, ...]
    methods: tuple[str, ...]
    interval_ms: int
    deadtime_ms: int
    pgpool_pid_file: str | None
    run_dir: str

    @property
    def checks_pgpool(self) -> bool:
        """Whether anything looks at the local pgpool-II; else it is taken to be alive, and shown as not checked."""
        return self.pgpool_pid_file is not None and "process" in self.methods
