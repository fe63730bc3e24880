"""Which of the nodes this machine is.

The file is the same on all nodes, so the answer comes from outside: the command line, the environment, a file
beside the configuration, or the addresses of this machine, in that order. The first that says anything counts; a
wrong answer is a mistake and is never passed over for the next.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pgvigil.watchdog.config.local import LocalNetwork
from pgvigil.watchdog.config.problems import Problems, show
from pgvigil.watchdog.config.reader import NodeDraft

VARIABLE = "PGVIGIL_NODE_ID"
FILE_NAME = "node_id"


def own_node_id(
    problems: Problems, given: int | None, environment: Mapping[str, str], nodes: list[NodeDraft], local: LocalNetwork
) -> int | None:
    """The id of this node, or None and a mistake."""
    ids = [node.section.get("id") for node in nodes if node.section.get("id") is not None]
    if not ids:
        # Whatever is wrong with the nodes has been told already.
        return None
    path = os.path.join(os.path.dirname(problems.source.path) or ".", FILE_NAME)
    if given is not None:
        return _known(problems, str(given), "--node-id", ids)
    if environment.get(VARIABLE):
        return _known(problems, environment[VARIABLE], VARIABLE, ids)
    text = _file_text(problems, path)
    if text is not None:
        return _known(problems, text, path, ids) if text else None
    return _by_address(problems, path, nodes, local)


def _file_text(problems: Problems, path: str) -> str | None:
    """None if there is no such file; empty, with a mistake, if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(64).strip()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        problems.mistake((), f"cannot read {path}: {error.strerror}", "expected a file with the node's id")
        return ""
    if not text:
        problems.mistake((), f"{path} is empty", "expected the node's id, one number")
    return text


def _known(problems: Problems, text: str, origin: str, ids: list[int]) -> int | None:
    shown = ", ".join(str(node_id) for node_id in ids) or "none"
    try:
        node_id = int(text) if len(text) <= 20 else -1
    except ValueError:
        node_id = -1
    if node_id not in ids:
        problems.mistake((), f"{origin} says this is node {show(text)}", f"expected an id of a [[node]]: {shown}")
        return None
    return node_id


def _by_address(problems: Problems, path: str, nodes: list[NodeDraft], local: LocalNetwork) -> int | None:
    ways = f"give --node-id, set {VARIABLE}, write the id into {path}, or use an address of this machine"
    mine = [
        node.section.get("id")
        for node in nodes
        if node.section.get("id") is not None and any(local.carrier(address) for address in _addresses(node))
    ]
    if len(mine) == 1:
        return int(mine[0])
    if not mine:
        problems.mistake((), "no [[node]] has an address of this machine, so its own id is unknown", ways)
    else:
        several = ", ".join(str(node_id) for node_id in mine)
        problems.mistake((), f"the addresses of nodes {several} are all this machine's, so its own id is unknown", ways)
    return None


def _addresses(node: NodeDraft) -> list[str]:
    return [path.get("address") for path in node.paths if path.get("address") is not None]
