"""What the options of `rolling` may hold, refused by argparse with what is expected."""

from __future__ import annotations

import argparse


def batch_size(text: str) -> str:
    """How many backends at once: "half", or a number."""
    if text != "half" and (not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 128):
        raise argparse.ArgumentTypeError(f"'{text[:40]}', expected half or a number of 1 to 128")
    return text


def backend_count(text: str) -> int:
    """How many backends, at least one."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 128:
        raise argparse.ArgumentTypeError(f"'{text[:40]}', expected a number of 1 to 128")
    return int(text)


def long_seconds(text: str) -> float:
    """A time limit for work of the operator's own: more than 0 and at most a week."""
    value = float(text)
    if not 0 < value <= 604_800:
        raise argparse.ArgumentTypeError(f"{text} s, expected more than 0 and at most 604800")
    return value
