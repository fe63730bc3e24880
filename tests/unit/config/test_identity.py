"""Which node this machine is: four ways, the first that says something counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.config.helpers import GOOD, MACHINE

from pgvigil.watchdog.config.load import Outcome, examine


def examine_in(folder: Path, node_id: int | None = None, text: str = GOOD, **environment: str) -> Outcome:
    return examine(str(folder / "pgvigil.toml"), node_id, MACHINE, environment, text.encode())


def id_of(result: Outcome) -> int:
    assert result.settings is not None, result.mistakes
    return result.settings.node_id


FAR = GOOD.replace("10.0.0.1", "127.0.0.1").replace("10.0.0.2", "127.0.0.2")


def test_the_four_ways_in_their_order(tmp_path: Path) -> None:
    assert id_of(examine_in(tmp_path)) == 1
    (tmp_path / "node_id").write_text(" 2\n")
    assert id_of(examine_in(tmp_path, text=FAR)) == 2
    assert id_of(examine_in(tmp_path, text=FAR, PGVIGIL_NODE_ID="1")) == 1
    assert id_of(examine_in(tmp_path, node_id=2, text=FAR, PGVIGIL_NODE_ID="1")) == 2


def test_no_way_and_two_ways_tell_all_four(tmp_path: Path) -> None:
    nobody = GOOD.replace("10.0.0.1", "10.0.0.9")
    for text, said in ((nobody, "no [[node]] has an address"), (FAR, "the addresses of nodes 1, 2 are all")):
        report = str(examine_in(tmp_path, text=text).mistakes[0])
        for words in (said, "--node-id", "PGVIGIL_NODE_ID", str(tmp_path / "node_id"), "address of this machine"):
            assert words in report


@pytest.mark.parametrize("content", ["", "two", "9", "1 2", "\x00", "1" * 5000])
def test_a_wrong_file_is_a_mistake_and_not_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "node_id").write_text(content)
    result = examine_in(tmp_path)
    assert result.settings is None
    assert str(tmp_path / "node_id") in str(result.mistakes[0])


def test_a_wrong_argument_names_the_ids(tmp_path: Path) -> None:
    report = str(examine_in(tmp_path, node_id=7).mistakes[0])
    assert "--node-id says this is node" in report
    assert "expected an id of a [[node]]: 1, 2, 3" in report
