"""The secret and what is derived from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.config.helpers import write_key

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config import keys

SECRET = bytes(range(32))


def test_what_keygen_writes_is_read_back_and_never_twice_the_same(tmp_path: Path) -> None:
    assert len(keys.read_secret(str(write_key(tmp_path)))) == 32
    assert keys.generate() != keys.generate()


def test_hexadecimal_text_is_read_as_such(tmp_path: Path) -> None:
    assert keys.read_secret(str(write_key(tmp_path, SECRET.hex() + "\n"))) == SECRET


@pytest.mark.parametrize(
    ("text", "said"), [("", "neither"), ("§", "neither"), ("aGVsbG8=", "holds 5 bytes"), ("ab" * 31, "holds 31 bytes")]
)
def test_a_weak_or_broken_secret_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "authkey"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=said):
        keys.read_secret(str(path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        keys.read_secret(str(write_key(tmp_path, mode=mode)))


def test_every_purpose_cluster_and_node_has_its_own_key() -> None:
    master, other = keys.master_key(SECRET, "a"), keys.master_key(SECRET, "b")
    derived = [master, other, keys.heartbeat_key(master, "a"), keys.heartbeat_key(other, "b"), keys.insecure_key("a")]
    assert len(set(derived)) == len(derived)
    assert all(len(key) == 32 for key in derived)
    assert keys.master_key(SECRET, "a") == master
    assert keys.key_id(master) != keys.key_id(other)
    assert 0 <= keys.key_id(master) < 2**32


def test_a_curve_pair_belongs_together_and_to_one_node() -> None:
    import zmq

    master = keys.master_key(SECRET, "a")
    public, secret = keys.curve_pair(master, 1)
    assert zmq.curve_public(secret) == public
    assert len(public) == len(secret) == 40
    assert keys.curve_pair(master, 1) == (public, secret)
    assert keys.curve_pair(master, 2)[0] != public
