"""Totals of many runs: what was simulated, how much of each class of timings, and what came of it."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.simulation.run import Result

CRASHES = ("kill", "crash", "lose", "trap: kill", "trap: crash", "stop, then kill", "trap: stop, then kill")
SHOWN = ("elections", "commits", "starts", "messages", "events", "excused overlaps")


class Summary:
    """Adds results up."""

    def __init__(self) -> None:
        self.seeds = 0
        self.hours = 0.0
        self.violations: list[Result] = []
        self._counts: Counter[str] = Counter()
        self._classes: dict[int, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        self._profiles: Counter[str] = Counter()
        self._sizes: Counter[int] = Counter()
        self._recoveries: list[float] = []
        self._not_demanded = 0

    def add(self, result: Result) -> None:
        """One more run."""
        self.seeds += 1
        self.hours += result.hours
        self._counts.update(result.counts)
        group = self._classes[result.options.lease_ms]
        group[0] += 1
        group[1] += result.hours
        group[2] += result.hours * 3_600_000 / result.options.lease_ms
        self._profiles[result.options.profile] += 1
        self._sizes[result.options.size] += 1
        if result.checker:
            self.violations.append(result)
        elif result.recovery_leases >= 0:
            self._recoveries.append(result.recovery_leases)
        else:
            self._not_demanded += 1

    def line(self) -> str:
        """One line for a long run."""
        crashes = sum(self._counts[kind] for kind in CRASHES)
        return (
            f"{self.seeds} seeds, {self.hours:.1f} cluster-hours, {self._counts['elections']} elections, "
            f"{self._counts['faults']} faults, {crashes} crashes, {self._counts['messages']} messages, "
            f"{len(self.violations)} violations"
        )

    def text(self) -> str:
        """Everything."""
        lines = [self.line()]
        for lease_ms, (seeds, hours, leases) in sorted(self._classes.items()):
            lines.append(f"  L = {lease_ms:5} ms: {seeds:5.0f} seeds, {hours:8.1f} hours, {leases:9.0f} leases long")
        lines.append("  nodes: " + ", ".join(f"{size}: {count}" for size, count in sorted(self._sizes.items())))
        lines.append("  profiles: " + ", ".join(f"{name}: {count}" for name, count in sorted(self._profiles.items())))
        lines.append("  " + ", ".join(f"{name}: {self._counts[name]}" for name in SHOWN))
        hidden = {*SHOWN, "faults"}
        faults = sorted((name, count) for name, count in self._counts.items() if name not in hidden)
        lines.append("  faults: " + ", ".join(f"{name}: {count}" for name, count in faults))
        lines.append("  " + self._recovery())
        lines.extend(f"  VIOLATION seed {result.options.seed}: {result.text}" for result in self.violations)
        return "\n".join(lines)

    def _recovery(self) -> str:
        times = sorted(self._recoveries)
        if not times:
            return "the VIP came back: never asked for"
        found = {share: times[min(len(times) - 1, len(times) * share // 100)] for share in (50, 90, 99)}
        shares = ", ".join(f"p{share}: {leases:.2f}" for share, leases in found.items())
        return (
            f"the VIP was back after, in leases: {shares}, most: {times[-1]:.2f}; "
            f"not demanded in {self._not_demanded} runs (no majority with its records was left)"
        )
