"""The shared secret, and every key that is derived from it.

One secret per cluster; each purpose gets its own key by keyed BLAKE2b with a personalisation of its own and the
cluster's name, so that no key serves twice and two clusters with one secret still cannot mix. The secret is read
from a file of mode 0600 and never logged. Without a secret (`insecure`) the keys come from a text that everybody knows.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat

from pgvigil.ipc.errors import ConfigError
from pgvigil.ipc.hashing import blake2b

KEY_BYTES = 32
MAX_KEY_FILE_BYTES = 4096
MEND = "make one with 'pgvigil keygen FILE' and copy it to every node"

# At most 16 bytes each (RFC 7693, section 2.5 and hashlib's `person`).
_MASTER = b"pgvigil master"
_HEARTBEAT = b"pgvigil beat"
_CURVE = b"pgvigil curve"
_KEY_ID = b"pgvigil keyid"
_INSECURE = b"pgvigil: no secret, by the will of the operator"


def generate() -> str:
    """The text of a fresh key file: 32 random bytes in base64, one line."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii") + "\n"


def read_secret(path: str) -> bytes:
    """The bytes of a key file; `ConfigError` says "what; expected" without the path."""
    text = _read_private(path)
    secret = _decode(text)
    if secret is None:
        raise ConfigError(f"is neither base64 nor hexadecimal text; {MEND}")
    if len(secret) < KEY_BYTES:
        raise ConfigError(f"holds {len(secret)} bytes of secret, expected at least {KEY_BYTES}; {MEND}")
    return secret


def check_private(path: str) -> int:
    """Open a file that only its owner may read; the descriptor, or `ConfigError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError("does not exist; expected a file of mode 0600") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {getattr(error, 'strerror', None) or error}; expected a file") from None
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        raise ConfigError("is not a regular file; expected a file of mode 0600")
    if stat.S_IMODE(info.st_mode) & 0o077:
        os.close(descriptor)
        mode = stat.S_IMODE(info.st_mode)
        raise ConfigError(f"is open to others (mode {mode:04o}); expected mode 0600: run 'chmod 600 {path}'")
    return descriptor


def read_text(path: str) -> str:
    """The text of a private file, which may not be empty; `ConfigError` says "what; expected" without the path."""
    text = _read_private(path)
    if not text:
        raise ConfigError("is empty; expected one line")
    return text


def _read_private(path: str) -> str:
    descriptor = check_private(path)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_KEY_FILE_BYTES).decode("ascii", errors="replace").strip()


def _decode(text: str) -> bytes | None:
    """Hexadecimal text is base64 too, so it is tried first."""
    text = "".join(text.split())
    if re.fullmatch(r"([0-9a-fA-F]{2})+", text):
        return bytes.fromhex(text)
    try:
        return base64.b64decode(text, validate=True) if text else None
    except (binascii.Error, ValueError):
        return None


def _derive(key: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """32 bytes; the parts are length-prefixed so that no two lists of parts are alike."""
    data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(data, digest_size=KEY_BYTES, key=key[:64], person=purpose).digest()


def master_key(secret: bytes, cluster: str) -> bytes:
    """The 32 bytes that `ClusterSettings.key` carries: secret and cluster name in one."""
    shortened = blake2b(secret, digest_size=64).digest()
    return _derive(shortened, _MASTER, cluster.encode())


def insecure_key(cluster: str) -> bytes:
    """The key of a cluster that runs without a secret: anybody can work it out."""
    return master_key(_INSECURE, cluster)


def heartbeat_key(master: bytes, cluster: str) -> bytes:
    """32 bytes that authenticate heartbeats."""
    return _derive(master, _HEARTBEAT, cluster.encode())


def key_id(key: bytes) -> int:
    """A 32-bit name of a key, safe to send and to print: tells a wrong key from a broken message."""
    return int.from_bytes(_derive(key, _KEY_ID)[:4], "big")


def curve_pair(master: bytes, node_id: int) -> tuple[bytes, bytes]:
    """Public and secret CURVE key of a node, 40 bytes of Z85 each (ZeroMQ RFC 32).

    Everybody who has the secret can work out every node's pair: membership is what is proved, not which member.
    """
    import zmq
    from zmq.utils import z85

    secret = z85.encode(_derive(master, _CURVE, node_id.to_bytes(4, "big")))
    public = zmq.curve_public(secret)
    return public, secret
