"""pgvigil in the failover lab: as everywhere in the lab, but asked over its control socket.

A hundred runs ask for the status thousands of times, and each `pgvigil status` would be a process of its own.
"""

from __future__ import annotations

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.cli.node import ask_json
from pgvigil.watchdog.demo.cluster import Cluster, NodeView, view_of
from pgvigil.watchdog.demo.lab import Host

ANSWER_LIMIT_MS = 1000


class QuickCluster(Cluster):
    """The pgvigils of all nodes, whose status costs next to nothing."""

    def status(self, node: Host) -> NodeView:
        """The view of one node; an empty one when it cannot be asked."""
        if not self.lab.is_on(node):
            return NodeView()
        try:
            return view_of(ask_json(str(node.folder / "run"), "status", timeout_ms=ANSWER_LIMIT_MS))
        except (CommandError, ValueError, KeyError, TypeError):
            return NodeView()
