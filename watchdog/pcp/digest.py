"""How PCP proves a password: md5 only, in every version of pgpool-II, and no TLS.

Whoever hears a login can try passwords against it, so keep PCP on the unix socket or on a network of the nodes' own.
"""

from __future__ import annotations

try:
    # hashlib would bring in OpenSSL (see ipc.hashing), which may also have been told to refuse md5 (FIPS).
    from _md5 import md5  # type: ignore[import-not-found]
except ImportError:  # a Python that was built without it
    from hashlib import md5


def digest(user: bytes, password: bytes, salt: bytes) -> bytes:
    """What a client sends: md5 of the salt behind md5 of the user behind the hash that stands in pcp.conf."""
    return _hex(_hex(stored(password) + user) + salt)


def stored(password: bytes) -> bytes:
    """The hash of a password as it stands in pcp.conf (and as `pg_md5` prints it)."""
    return _hex(password)


def _hex(data: bytes) -> bytes:
    text: str = md5(data).hexdigest()
    return text.encode("ascii")
