"""Which messages of one sender were taken already; pure.

Every message travels on every path, so copies are the rule. The protocol survives copies; the window keeps
them from costing anything, with memory that does not grow. It never drops the first copy of a message that is
newer than all before it.
"""

from __future__ import annotations

WINDOW = 256
MAX_RECORDS = 4


class Window:
    """Sliding window over (boot, counter) of one record of one sender."""

    def __init__(self) -> None:
        self._boot = -1
        self._highest = -1
        self._seen = 0

    def accept(self, boot: int, counter: int) -> bool:
        """True the first time; False for a copy, an older boot, or what is `WINDOW` behind the newest."""
        if boot < self._boot:
            return False
        if boot > self._boot:
            self._boot, self._highest, self._seen = boot, counter, 1
            return True
        if counter > self._highest:
            shift = counter - self._highest
            self._seen = ((self._seen << shift) | 1) & (2**WINDOW - 1) if shift < WINDOW else 1
            self._highest = counter
            return True
        bit = self._highest - counter
        if bit >= WINDOW or self._seen >> bit & 1:
            return False
        self._seen |= 1 << bit
        return True


class Windows:
    """The windows of one sender, one per record: a node that lost its record counts its boots from the start again."""

    def __init__(self) -> None:
        self._by_record: dict[int, Window] = {}

    def accept(self, record_id: int, boot: int, counter: int) -> bool:
        """As `Window.accept`; the records heard least recently are forgotten beyond `MAX_RECORDS`."""
        window = self._by_record.pop(record_id, None) or Window()
        self._by_record[record_id] = window
        if len(self._by_record) > MAX_RECORDS:
            del self._by_record[next(iter(self._by_record))]
        return window.accept(boot, counter)
