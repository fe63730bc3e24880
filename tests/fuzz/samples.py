"""Valid values of every kind that a decoder of pgvigil knows, made from the declared types.

A kind or a field that is added later is in the samples at once: nobody has to remember the fuzzer. Each type gives
an empty, a usual and a crowded value.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from tests.unit.config.helpers import GOOD

from pgvigil.watchdog.core.record import RECORD_FORMAT, Record

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
SIZES = (0, 1, 3)
"""How much an optional field or a list holds in the three samples of a type."""
_SCALARS: dict[Any, tuple[object, object, object]] = {
    int: (0, 7, 2**63 - 1),
    bool: (False, True, True),
    str: ("", "pg02", 'é"\n\\ü' * 20),
    bytes: (b"", b"\x93\x01\x02\x03", bytes(range(256))),
}


def samples_of(kind: type[T]) -> list[T]:
    """An empty, a usual and a crowded value of a dataclass."""
    return [_sample(kind, size) for size in range(len(SIZES))]


def _sample(annotation: Any, size: int) -> Any:
    if annotation in _SCALARS:
        return _SCALARS[annotation][size]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = next(item for item in arguments if item is not type(None))
        return _sample(inner, size) if SIZES[size] else None
    if origin is tuple:
        return tuple(_sample(arguments[0], size) for _ in range(SIZES[size]))
    if issubclass(annotation, enum.Enum):
        return list(annotation)[size % len(annotation)]
    hints = typing.get_type_hints(annotation)
    return annotation(*(_sample(hints[field.name], size) for field in dataclasses.fields(annotation)))


def records() -> list[Record]:
    """Records of this format."""
    return [dataclasses.replace(record, format=RECORD_FORMAT) for record in samples_of(Record)]


NODE = """
[[node]]
id = {number}
host = "pg0{number}"
port = 9001
role = "{role}"
priority = {number}
pgpool_host = "pool0{number}"
[[node.path]]
interface = "eth0"
address = "10.0.0.{number}"
port = 9695
[[node.path]]
address = "10.1.0.{number}"
"""
FULL = (
    """
[cluster]
name = 'shop' # insecure: anybody can sign
insecure = true
lease_ms = 1_500
renew_ms = 250
quorum = "majority"
preempt = true
fence = "best-effort"
[heartbeat]
interval_ms = 100
deadtime_ms = 0x320
[vip]
addresses = [ "10.0.0.100/24", # two
  "fd00::100/64" ]
interface = "eth0"
driver = "command"
if_up_cmd = "/bin/true $_IP_$"
if_down_cmd = \"\"\"/bin/true $_IP_$\"\"\"
arping_cmd = '/bin/true "$_IP_$"'
announce_interval_s = 30
[lifecheck]
methods = ["heartbeat", "process"]
[pgpool]
pid_file = "/run/pgpool.pid"
[commands.escalation]
run = "echo \\u0041 \\\\ $_IP_$"
timeout_s = 5
policy = "retry"
[process]
run_dir = "/run/pgvigil-test"
state_dir = "/var/lib/pgvigil-test"
log = "file:/var/log/pgvigil-test.log"
log_level = "debug"
hang_timeout_ms = 1000
"""
    + NODE.format(number=1, role="member")
    + NODE.format(number=2, role="member")
    + NODE.format(number=3, role="witness")
)
"""Every table and nearly every key, in several ways of writing, for node 1 of the made-up machine."""


def configurations() -> list[bytes]:
    """The shortest good file, a full one, the commented one, and one with ten mistakes."""
    paths = (REPOSITORY / "conf" / "pgvigil.toml", REPOSITORY / "tests" / "unit" / "config" / "ten_mistakes.toml")
    return [GOOD.encode(), FULL.encode(), *(path.read_bytes() for path in paths)]
