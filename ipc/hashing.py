"""BLAKE2b and the comparison of signatures, without OpenSSL.

hashlib and hmac would bring in libcrypto, which nothing here uses: 1 MB per node, and 2 ms at every start. These are
the same functions that they hand out (hashlib.blake2b, hmac.compare_digest).
"""

from __future__ import annotations

from _blake2 import blake2b
from _operator import _compare_digest as compare_digest

__all__ = ["blake2b", "compare_digest"]
