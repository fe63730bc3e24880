"""What a reload may change, and what needs a full restart. Pure.

A setting that other nodes, the durable record or the kernel's gate have been told about cannot change under a
running node. Each such difference gets one sentence for the operator, and one of them refuses the whole reload:
half of a configuration is nobody's intention.
"""

from __future__ import annotations

from collections.abc import Callable

from pgvigil.watchdog.settings import Settings
from pgvigil.watchdog.supervisor.children import ChildSpec

Pick = Callable[[Settings], object]

# What must stay, how it is shown, and why. The key is never shown.
FIXED: tuple[tuple[str, Pick, bool, str], ...] = (
    ("the node's id", lambda s: s.node_id, True, "the durable record and the other nodes know this node by it"),
    ("cluster.name", lambda s: s.cluster.name, True, "the other nodes know the cluster by it"),
    ("the cluster's key", lambda s: s.cluster.key, False, "the other nodes would not be understood any more"),
    ("cluster.insecure", lambda s: s.cluster.insecure, True, "it decides about the key"),
    ("process.run_dir", lambda s: s.process.run_dir, True, "the processes of this node meet there"),
    ("process.control_group", lambda s: s.process.control_group, True, "the run directory was given to it"),
    ("process.state_dir", lambda s: s.process.state_dir, True, "the durable record lies there"),
    ("vip.addresses", lambda s: tuple(map(str, s.vip.addresses)), True, "they may be up at this moment"),
    ("vip.interface", lambda s: s.vip.interface, True, "the virtual IP may be up there at this moment"),
    ("vip.driver", lambda s: s.vip.driver, True, "what raised the virtual IP has to take it down"),
)


def refusals(old: Settings, new: Settings) -> tuple[str, ...]:
    """One sentence for every difference that a reload cannot make."""
    return tuple(
        _sentence(name, pick(old), pick(new), shown, why) for name, pick, shown, why in FIXED if pick(old) != pick(new)
    )


def _sentence(name: str, old: object, new: object, shown: bool, why: str) -> str:
    change = f" from {_show(old)} to {_show(new)}" if shown else ""
    return f"{name} cannot change{change} while pgvigil runs, because {why}; stop and start this node instead"


def _show(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else repr(value)


def differences(
    old: tuple[ChildSpec, ...], new: tuple[ChildSpec, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the children to stop, to restart and to start."""
    before = {spec.name: spec for spec in old}
    after = {spec.name: spec for spec in new}
    gone = tuple(name for name in before if name not in after)
    changed = tuple(name for name in after if name in before and after[name] != before[name])
    fresh = tuple(name for name in after if name not in before)
    return gone, changed, fresh
