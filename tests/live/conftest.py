"""Fixtures of the live tests: configurations on loopback, and the certainty that no process is left behind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent

import pytest
from tests.live import clusters, nodes
from tests.live.clusters import Cluster
from tests.live.nodes import REAL, STUB, Node

MakeNodes = Callable[..., list[Node]]
MakeCluster = Callable[..., Cluster]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, for TCP and UDP."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def configuration(folder: Path, count: int, extra: str, process: str) -> str:
    """A file for `count` nodes on loopback, without a virtual IP unless `extra` has one."""
    ports = free_ports(2 * count)
    tables = [f'[cluster]\nname = "live"\ninsecure = true\nfence = "best-effort"\n{extra}']
    for index in range(count):
        tables.append(
            dedent(f"""
            [[node]]
            id = {index + 1}
            host = "pg{index + 1:02d}"
            port = {ports[2 * index]}
            [[node.path]]
            interface = "lo"
            address = "127.0.0.{index + 1}"
            port = {ports[2 * index + 1]}
            """)
        )
    tables.append(f'[pgpool]\npid_file = "{folder}/pgpool.pid"\n')
    tables.append(process)
    return "\n".join(tables)


@pytest.fixture
def make_nodes(tmp_path: Path) -> Iterator[MakeNodes]:
    """`make_nodes(count, program=..., extra=..., hang_timeout_ms=...)`: nodes on loopback, swept afterwards."""
    nodes.become_subreaper()
    made: list[Node] = []

    def make(count: int = 1, program: Sequence[str] = (), extra: str = "", hang_timeout_ms: int = 2000) -> list[Node]:
        fresh = []
        text = configuration(tmp_path, count, extra, "")
        for node_id in range(1, count + 1):
            folder = tmp_path / f"n{node_id}"
            folder.mkdir()
            process = dedent(f"""
            [process]
            run_dir = "{folder}/run"
            state_dir = "{folder}/state"
            log = "file:{folder}/log"
            log_level = "debug"
            hang_timeout_ms = {hang_timeout_ms}
            """)
            config = folder / "pgvigil.toml"
            config.write_text(text + process)
            fresh.append(Node(config, node_id, folder, program or REAL))
        made.extend(fresh)
        return fresh

    yield make
    nodes.sweep()
    for node in made:
        node.close()
    nodes.reap_orphans(set())


@pytest.fixture
def stub_node(make_nodes: MakeNodes) -> Node:
    """One node with stub children, which do as the files in its `stub` folder say."""
    import sys

    return make_nodes(1, program=(sys.executable, str(STUB)))[0]


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for all tests of a module."""
    nodes.become_subreaper()
    made = clusters.make_cluster(tmp_path_factory.mktemp("live"), free_ports(6))
    yield made
    made.end()


@pytest.fixture
def cluster(module_cluster: Cluster) -> Cluster:
    """The module's cluster, whole: what the test before has done is undone."""
    module_cluster.heal()
    return module_cluster


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """`make_cluster(count, witnesses=(), extra="")`: a cluster of its own for one test; nothing is started yet."""
    nodes.become_subreaper()
    made: list[Cluster] = []

    def make(count: int, witnesses: tuple[int, ...] = (), extra: str = "") -> Cluster:
        made.append(clusters.make_cluster(tmp_path / f"c{len(made)}", free_ports(2 * count), witnesses, extra))
        return made[-1]

    yield make
    for one in made:
        one.end()
