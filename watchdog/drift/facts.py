"""Settings as texts under their keys: how a value is written, what keeps a node out, and the digest over all.

A value is one short printable line, for it ends up in logs and on terminals of other nodes. No secret leaves a node: a
password that can be recognised inside a command is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pgvigil.ipc.hashing import blake2b

Facts = Mapping[str, str]

DIGEST_BYTES = 16
MAX_TEXT_BYTES = 160
"""Of a value as it is compared and shown. Longer ones end in their length and hash."""
HEAD_BYTES = 100
NOT_SET = "not set"

# FATAL_SCHEME changes with this: nodes that mean different things by "fatal" must not count each other's digests.
FATAL_SCHEME = 1
_FATAL = re.compile(r"cluster\.name|nodes|vip\.addresses|node\.[0-9]+\.(host|port|role|paths)")

_WORD = r"(?:\"[^\"]*\"|'[^']*'|[^\s\"';&|]+)"
_SECRET_NAME = r"[\w-]*(?:password|passwd|passphrase|pwd|secret|token|authkey|api[_-]?key)"
# They begin at the beginning of a word only, so that their time is linear in the length of a text.
_ASSIGNED = re.compile(rf"(?i)(?<![\w-])({_SECRET_NAME}\s*[=:]\s*){_WORD}")
_OPTION = re.compile(rf"(?i)(?<![\w-])(--{_SECRET_NAME}\s+){_WORD}")
_IN_URI = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def is_fatal(key: str) -> bool:
    """Whether a node that differs in this must not lead: it would carry another address, or count other voters."""
    return _FATAL.fullmatch(key) is not None


def shown(text: str) -> str:
    """A value in one printable line of bounded length, without passwords.

    What cannot be shown as it is gets its hash, so that unequal values stay unequal.
    """
    text = masked(text)
    if not text:
        return '""'
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    data = line.encode()
    if line == text and len(data) <= MAX_TEXT_BYTES:
        return line
    head = line if len(data) <= HEAD_BYTES else data[:HEAD_BYTES].decode(errors="ignore") + "..."
    name = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{head} ({len(text)} letters, hash {name})"


def masked(text: str) -> str:
    """A command or connection string with three stars for every password that can be recognised."""
    text = _IN_URI.sub(r"\1***@", text)
    return _OPTION.sub(r"\1***", _ASSIGNED.sub(r"\1***", text))


def digest(facts: Facts) -> bytes:
    """16 bytes that are equal for equal facts."""
    return _digest((key, facts[key]) for key in sorted(facts))


def fatal_digest(facts: Facts) -> bytes:
    """The same over the facts that keep a node out."""
    return _digest((key, facts[key]) for key in sorted(facts) if is_fatal(key))


def _digest(items: Iterable[tuple[str, str]]) -> bytes:
    made = blake2b(digest_size=DIGEST_BYTES, person=b"pgvigil-drift")
    for item in items:
        for part in item:
            data = part.encode()
            made.update(len(data).to_bytes(4, "big") + data)
    return made.digest()
