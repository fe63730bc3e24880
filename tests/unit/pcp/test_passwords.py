"""Password files: what fits, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.pcp import passwords

FILE = """# a comment
pg01:9898:ann:first
localhost:*:ann:local
/run/pcp:9898:bob:folder
pg01:9898:odd\\:name:with:colons\\\\
too:few
*:*:ann:last
"""


@pytest.mark.parametrize(
    ("host", "port", "user", "password"),
    [
        ("pg01", 9898, "ann", "first"),
        ("pg01", 9899, "ann", "last"),
        ("localhost", 1, "ann", "local"),
        ("/var/run/postgresql", 9898, "ann", "local"),
        ("/run/pcp", 9898, "bob", "folder"),
        ("/run/pcp", 9899, "bob", None),
        ("pg01", 9898, "odd:name", "with:colons\\"),
        ("pg01", 9898, "# a comment", None),
        ("pg01", 9898, "eve", None),
    ],
)
def test_the_first_line_that_fits(host: str, port: int, user: str, password: str | None) -> None:
    assert passwords.find(FILE, host, port, user) == password


def test_where_the_pass_file_is() -> None:
    assert passwords.pass_file({"HOME": "/home/ann"}) == "/home/ann/.pcppass"
    assert passwords.pass_file({"HOME": "/home/ann", "PCPPASSFILE": "/etc/pcppass"}) == "/etc/pcppass"
    assert passwords.pass_file({}) == ""


def private(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_a_pass_file_is_read_only_if_nobody_else_can(tmp_path: Path) -> None:
    path = private(tmp_path / "pcppass", FILE.encode())
    assert passwords.password_of_pass_file(path, "pg01", 9898, "ann") == "first"
    private(tmp_path / "pcppass", FILE.encode(), 0o640)
    with pytest.raises(ConfigError, match=r"pcppass: is open to others \(mode 0640\); expected mode 0600"):
        passwords.password_of_pass_file(path, "pg01", 9898, "ann")
    assert passwords.password_of_pass_file(str(tmp_path / "none"), "pg01", 9898, "ann") is None


def test_a_password_file_holds_one_line(tmp_path: Path) -> None:
    assert passwords.password_of_file(private(tmp_path / "one", b"s3cret \n")) == "s3cret "
    for content, words in ((b"", "empty"), (b"\n", "empty"), (b"a\nb\n", "several lines"), (b"x" * 70_000, "bytes")):
        with pytest.raises(ConfigError, match=words):
            passwords.password_of_file(private(tmp_path / "wrong", content))
    with pytest.raises(ConfigError, match="does not exist"):
        passwords.password_of_file(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="not a regular file"):
        passwords.password_of_file(str(tmp_path))
