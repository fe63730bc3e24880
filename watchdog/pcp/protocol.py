"""PCP on the wire: bytes to frames, frames to typed answers, requests to bytes; pgpool-II 4.2 to 4.7.

A frame is one letter, a length of four bytes (big endian, counting itself) and a body whose items end with NUL. Nobody
says which version speaks: the number of fields of a row tells. Everything a server sends is suspect: every frame, row
and answer has a limit that is checked before anything is kept, and whatever breaks the format is a `PeerError` that
names what came and what was expected. No socket and no clock; sources: docs of pgpool-II and its observed behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from pgvigil.ipc.errors import ConfigError, InvariantError, PeerError
from pgvigil.watchdog.pcp.records import Report

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LENGTH_BYTES = 4
HEADER_BYTES = 1 + LENGTH_BYTES
MAX_REQUEST_BODY_BYTES = 255
"""pgpool-II hangs up on a request whose length field is 260 or more."""
MAX_REPORT_FIELDS = 16
SALT_BYTES = 4
SMALL_BYTES = 256 * 1024
"""Limit of most answers, notices on the way included."""

CUT_ITEM_BYTES = 256
"""Letter and text of a field that pgpool-II has cut; it then sends one stray byte before the next letter."""
_AFTER_CUT = (b"D", b"H", b"F")

ERROR, NOTICE = "E", "N"
COMPLETE = b"CommandComplete"
ARRAY_SIZE = b"ArraySize"
AUTHENTICATED = b"AuthenticationOK"


_DECIMAL = b"0123456789+-.eEnaif"
"""The letters of a C number, "nan" and "inf" among them; Python would take "1_0" and " 1" too."""


class Frame(NamedTuple):
    """One message of either side."""

    letter: str
    body: bytes


def encode(letter: str, body: bytes = b"") -> bytes:
    """A frame as bytes."""
    return letter.encode("ascii") + (len(body) + LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big") + body


class FrameBuffer:
    """Bytes in, whole frames out; never holds more than the answer that is waited for may have."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self._limit = 0
        self._purpose = ""
        self._letter = ""

    def expect(self, purpose: str, letter: str, limit_bytes: int) -> None:
        """From now on frames of this letter may come (none: ""), errors and notices; `limit_bytes` all in all."""
        self._purpose, self._letter, self._limit, self._left = purpose, letter, limit_bytes, limit_bytes

    def add(self, data: bytes) -> None:
        """Bytes from the server, in pieces of any size."""
        self._buffer += data

    def clear(self) -> None:
        """Forget what is unread."""
        self._buffer.clear()

    def take(self) -> Frame | None:
        """The next frame, or None if it is not whole yet; `PeerError` for a letter or length that cannot be right."""
        if not self._buffer:
            return None
        letter = chr(self._buffer[0])
        if letter not in (ERROR, NOTICE, self._letter):
            wanted = f"{self._letter!r} with {self._purpose}" if self._letter else f"nothing of {self._purpose}"
            raise PeerError(f"frame {letter!r}, expected {wanted}")
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
        if length < LENGTH_BYTES:
            raise PeerError(f"frame {letter!r} says its length is {length}, expected at least {LENGTH_BYTES}")
        if length + 1 > self._left:
            raise PeerError(
                f"frame {letter!r} of {length + 1} bytes, expected at most {self._left} more "
                f"(limit {self._limit} bytes for {self._purpose})"
            )
        if len(self._buffer) < length + 1:
            return None
        body = bytes(self._buffer[HEADER_BYTES : length + 1])
        del self._buffer[: length + 1]
        self._left -= length + 1
        return Frame(letter, body)

    @property
    def unread_bytes(self) -> int:
        """How much of a frame has come."""
        return len(self._buffer)


# --- items of a body --------------------------------------------------------------------------------------------


def split(body: bytes, what: str, most: int) -> list[bytes]:
    """The NUL-terminated items of a body, at most so many."""
    if not body.endswith(b"\0"):
        raise PeerError(f"{what} ends with {shown(body[-8:])}, expected a NUL byte")
    count = body.count(b"\0")
    if count > most:
        raise PeerError(f"{what} has {count} items, expected at most {most}")
    return body[:-1].split(b"\0")


def shown(data: bytes) -> str:
    """A few bytes for an error message."""
    return repr(data[:40].decode("ascii", "backslashreplace")) + ("..." if len(data) > 40 else "")


def text(data: bytes) -> str:
    """Text of any encoding, for people; bytes that are no UTF-8 are spelled out."""
    return data.decode("utf-8", "backslashreplace")


class Fields:
    """The items of one row, read one after another by name."""

    def __init__(self, what: str, items: list[bytes]) -> None:
        self._what = what
        self._items = iter(items)

    def _next(self, name: str) -> bytes:
        item = next(self._items, None)
        if item is None:
            raise InvariantError(f"{self._what} has no field {name}: the number of fields was not checked")
        return item

    def text(self, name: str) -> str:
        return text(self._next(name))

    def number(self, name: str, low: int, high: int) -> int:
        """A decimal number within limits."""
        return number(self._next(name), f"{name} of {self._what}", low, high)

    def decimal(self, name: str) -> float | None:
        """A number with a fraction; None for an average of nothing ("-nan")."""
        item = self._next(name)
        try:
            value = float(item) if len(item) <= 64 and not item.translate(None, _DECIMAL) else None
        except ValueError:
            value = None
        if value is None:
            raise PeerError(f"{name} of {self._what} is {shown(item)}, expected a number")
        return value if abs(value) < float("inf") else None

    def flag(self, name: str) -> bool:
        return self.number(name, 0, 1) == 1


def number(item: bytes, what: str, low: int, high: int) -> int:
    """A decimal number within limits, or `PeerError`."""
    digits = item[1:] if item.startswith(b"-") else item
    if not 1 <= len(digits) <= 20 or not digits.isdigit():
        raise PeerError(f"{what} is {shown(item)}, expected a number of {low} to {high}")
    if not low <= int(item) <= high:
        raise PeerError(f"{what} is {int(item)}, expected {low}" + (f" to {high}" if high > low else ""))
    return int(item)


def report(body: bytes) -> Report:
    """An error or notice: a letter and its text, again and again, and an empty item at the end."""
    found = dict.fromkeys("SCMDH", "")
    previous = b""
    for item in split(body, "an error report", MAX_REPORT_FIELDS + 1):
        if len(previous) == CUT_ITEM_BYTES and item[1:2] in _AFTER_CUT and item[:1] not in _AFTER_CUT:
            item = item[1:]
        previous = item
        letter, content = chr(item[0]) if item else "", text(item[1:]).strip()
        # The first one counts: behind a text that was cut anything may look like a field.
        if content and letter in found and not found[letter]:
            found[letter] = content
    if not found["S"] or not found["M"]:
        raise PeerError(f"an error report {shown(body)} without severity or message, expected both")
    return Report(found["S"], found["C"], found["M"], found["D"], found["H"])


# --- answers ----------------------------------------------------------------------------------------------------


class Reader(Protocol[T_co]):
    """Takes the frames of one answer, one by one."""

    def take(self, body: bytes) -> bool:
        """Whether the answer is whole now; `PeerError` for a frame that does not belong here."""
        ...

    def value(self) -> T_co:
        """The whole answer."""
        ...


class Done:
    """An answer that says nothing but that it was done."""

    def take(self, body: bytes) -> bool:
        if body != COMPLETE + b"\0":
            raise PeerError(f"an answer {shown(body)}, expected {shown(COMPLETE)}")
        return True

    def value(self) -> None:
        return None


class Single(Generic[T]):
    """An answer of one frame: the word that it is complete, and items."""

    def __init__(self, what: str, most: int, decode: Callable[[list[bytes]], T]) -> None:
        self._what, self._most, self._decode = what, most, decode
        self._values: list[T] = []

    def take(self, body: bytes) -> bool:
        items = split(body, self._what, self._most + 1)
        if items[0] != COMPLETE:
            raise PeerError(f"{self._what} begins with {shown(items[0])}, expected {shown(COMPLETE)}")
        self._values = [self._decode(items[1:])]
        return True

    def value(self) -> T:
        return self._values[0]


class Rows(Generic[T]):
    """An answer of a count, that many rows, and the word that it is complete.

    Fewer rows than announced are allowed with `may_be_fewer`: pgpool-II announces the slots of all of a child's pools
    and leaves some out. `alone` reads the only frame of an answer of 4.2, which knows no rows.
    """

    def __init__(
        self, what: str, word: bytes, most_fields: int, most_rows: int, decode: Callable[[int, list[bytes]], T], *,
        may_be_fewer: bool = False, binary_count: bool = False, alone: Callable[[list[bytes]], T] | None = None,
    ) -> None:  # fmt: skip
        self._what, self._word, self._most_fields, self._most_rows = what, word, most_fields, most_rows
        self._decode, self._alone = decode, alone
        self._may_be_fewer, self._binary_count = may_be_fewer, binary_count
        self._announced: int | None = None
        self._rows: list[T] = []

    def take(self, body: bytes) -> bool:
        if self._announced is None:
            return self._first(body)
        items = split(body, self._what, self._most_fields + 1)
        if items[0] == self._word:
            self._row(items[1:])
            return False
        if items != [COMPLETE]:
            raise PeerError(f"{self._what}: {shown(body)}, expected {shown(self._word)} or {shown(COMPLETE)}")
        if len(self._rows) < self._announced and not self._may_be_fewer:
            raise PeerError(f"{self._what}: {len(self._rows)} rows, expected the announced {self._announced}")
        return True

    def value(self) -> tuple[T, ...]:
        return tuple(self._rows)

    def _first(self, body: bytes) -> bool:
        if self._binary_count and body.startswith(ARRAY_SIZE + b"\0"):
            count = body[len(ARRAY_SIZE) + 1 :]
            if len(count) != LENGTH_BYTES:
                raise PeerError(f"{self._what}: a count of {len(count)} bytes, expected {LENGTH_BYTES}")
            self._announced = self._checked(int.from_bytes(count, "big", signed=True))
            return False
        items = split(body, self._what, self._most_fields + 1)
        if items[0] == COMPLETE and self._alone is not None:
            self._rows = [self._alone(items[1:])]
            return True
        if items[0] != ARRAY_SIZE or len(items) != 2 or self._binary_count:
            raise PeerError(f"{self._what} begins with {shown(body)}, expected {shown(ARRAY_SIZE)} and a count")
        self._announced = self._checked(number(items[1], f"the count of {self._what}", -(2**31), 2**31))
        return False

    def _checked(self, count: int) -> int:
        if not 0 <= count <= self._most_rows:
            raise PeerError(f"{self._what}: {count} rows announced, expected 0 to {self._most_rows}")
        return count

    def _row(self, items: list[bytes]) -> None:
        if len(self._rows) == self._announced:
            raise PeerError(f"{self._what}: one more row, expected the announced {self._announced}")
        self._rows.append(self._decode(len(self._rows), items))


# --- requests ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One question or order. `changes`: if the connection breaks, nobody knows whether it was carried out."""

    name: str
    letter: str
    body: bytes
    answer: str
    """Letter of the answer's frames; empty: there is no answer."""
    reader: Callable[[], Reader[T]]
    max_bytes: int = SMALL_BYTES
    changes: bool = False

    def encoded(self) -> bytes:
        """The frame; `ConfigError` if it is too long for pgpool-II."""
        if len(self.body) > MAX_REQUEST_BODY_BYTES:
            raise ConfigError(f"{self.name} with {len(self.body)} bytes, expected at most {MAX_REQUEST_BODY_BYTES}")
        return encode(self.letter, self.body)
