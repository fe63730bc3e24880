"""How many of what, for people: one of a thing is not "1 things".

For messages only. Whatever is compared, sent or stored keeps its number.
"""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "no mistakes", "1 mistake", "3 mistakes"."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
