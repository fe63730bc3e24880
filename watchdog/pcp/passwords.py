"""Where the password of a PCP user comes from: a file of its own, or the file of pgpool-II's own tools.

A file that others may read is refused, not skipped as by pgpool-II's tools: who has the password can stop pgpool-II.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config.keys import check_private

MAX_FILE_BYTES = 64 * 1024
FIELDS = 4
LOCAL = "localhost"
ANY = "*"


def password_of_file(path: str) -> str:
    """The only line of a password file of mode 0600; `ConfigError` names file and what is expected."""
    password = _read(path).rstrip("\r\n")
    if not password or "\n" in password:
        raise ConfigError(f"{path}: {'several lines' if password else 'empty'}, expected one line with the password")
    return password


def pass_file(environment: Mapping[str, str]) -> str:
    """Where pgpool-II's own tools look for passwords: PCPPASSFILE, or .pcppass in the home folder; "" for nowhere."""
    home = environment.get("HOME", "")
    return environment.get("PCPPASSFILE") or (os.path.join(home, ".pcppass") if home else "")


def password_of_pass_file(path: str, host: str, port: int, user: str) -> str | None:
    """The password of the first line that fits, None if no line or no file does; `ConfigError` if others may read it.

    A unix socket counts as "localhost", and as its folder.
    """
    if not os.path.lexists(path):
        return None
    return find(_read(path), host, port, user)


def find(content: str, host: str, port: int, user: str) -> str | None:
    """The same for the text of such a file: host:port:user:password; `*` fits all, a backslash makes `:` plain."""
    hosts = (host, LOCAL) if host.startswith("/") else (host,)
    wanted = (hosts, (str(port),), (user,))
    for line in content.splitlines():
        fields = _split(line)
        if line.startswith("#") or len(fields) != FIELDS:
            continue
        if all(field == ANY or field in allowed for field, allowed in zip(fields, wanted, strict=False)):
            return fields[-1]
    return None


def _split(line: str) -> list[str]:
    fields, letters = [""], iter(line)
    for letter in letters:
        if letter == "\\":
            fields[-1] += next(letters, "")
        elif letter == ":" and len(fields) < FIELDS:
            fields.append("")
        else:
            fields[-1] += letter
    return fields


def _read(path: str) -> str:
    try:
        descriptor = check_private(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: more than {MAX_FILE_BYTES} bytes, expected a small file of passwords")
    return data.decode("utf-8", errors="surrogateescape")
