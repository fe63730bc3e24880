"""Holes are filled, within a limit, and what children need is made before the fork."""

from __future__ import annotations

import os
import sys

import pytest

from pgvigil.ipc import codec, frames
from pgvigil.watchdog.core.record import Record
from pgvigil.watchdog.supervisor import rehearsal, sharing


def test_filling_is_limited_for_every_allocator() -> None:
    classes = sharing.LARGEST // sharing.STEP
    assert 0 < sharing.fill_holes() <= classes * (sharing.MAX_FILL_BYTES + sharing.LARGEST)


def test_the_codec_is_ready_for_every_frame_and_the_record() -> None:
    codec.prepare((*frames.KINDS.values(), Record))
    for kind in (*frames.KINDS.values(), Record, frames.Beat, frames.Role, frames.PeerSession):
        assert kind in codec._READERS
        assert kind in codec._WRITERS
    assert tuple in codec._WRITERS


def test_a_rehearsal_leaves_no_descriptor_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.listdir("/proc/self/fd")
    rehearsal.rehearse()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert capfd.readouterr() == ("", "")


def test_filling_the_heap_is_limited_and_leaves_little_to_fill() -> None:
    first = sharing.fill_heap()
    assert 0 <= first <= sharing.MAX_HEAP_FILL_BYTES + sharing.LARGEST_PIECE
    assert sharing.fill_heap() <= max(first, 256 * 1024)


def test_a_forgotten_lookup_holds_no_name() -> None:
    name = sys.intern("an_attribute_that_only_this_test_asks_for")
    assert not hasattr(Record, name)
    asked = sys.getrefcount(name)
    sharing.forget_lookups()
    held = sys.getrefcount(name)
    assert held == asked if sys.version_info >= (3, 12) else held < asked
