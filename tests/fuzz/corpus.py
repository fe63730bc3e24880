"""The committed inputs of every target: small ones that a fuzzing session found to reach something new.

They are named by their content and hold no secret. Valid values are not among them: those are made from the types
(`samples`), so that a format may grow without a change here. What once broke a decoder stays, named after what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")
MAX_FILES = 48
MAX_FILE_BYTES = 2048


def folder_of(target: str) -> Path:
    """Where the inputs of a target are."""
    return FOLDER / target


def inputs_of(target: str) -> dict[str, bytes]:
    """Name and content of each, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder_of(target).iterdir())}


def keep(target: str, found: Iterable[bytes]) -> int:
    """Add what is small enough until the folder is full; returns how many were added."""
    folder = folder_of(target)
    folder.mkdir(parents=True, exist_ok=True)
    known = set(inputs_of(target).values())
    fitting = [data for data in dict.fromkeys(found) if len(data) <= MAX_FILE_BYTES and data not in known]
    chosen = spread(fitting, MAX_FILES - len(known))
    for data in chosen:
        (folder / hashlib.blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
    return len(chosen)


def spread(items: list[bytes], count: int) -> list[bytes]:
    """At most so many of them, evenly from the shortest to the longest."""
    ordered = sorted(items, key=lambda item: (len(item), item))
    if count <= 0 or len(ordered) <= count:
        return ordered[: max(0, count)]
    return [ordered[index * len(ordered) // count] for index in range(count)]
