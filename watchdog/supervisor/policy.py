"""When to start a process again, when to kill it, when to give up. Pure: it is told the time and only answers.

The first restart comes at once, because a leader's watchdog main must be back within its lease. A process that
fails again and again waits longer each time, so that a broken machine is not kept busy by us; one good run
forgets the past. Only a vital process (watchdog main) can make the supervisor give up.
"""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """All times in ns. `hang_ns` counts from the last sign of life, `start_limit_ns` from the fork."""

    hang_ns: int
    start_limit_ns: int = 10_000 * NS_PER_MS
    backoff_first_ns: int = 100 * NS_PER_MS
    backoff_limit_ns: int = 10_000 * NS_PER_MS
    good_run_ns: int = 5_000 * NS_PER_MS
    vital_failures: int = 8
    vital_window_ns: int = 30_000 * NS_PER_MS
    start_failures: int = 3

    @property
    def life_interval_ns(self) -> int:
        """How often a child must show life: four times within `hang_ns`, once a second at least."""
        return max(20 * NS_PER_MS, min(1_000 * NS_PER_MS, self.hang_ns // 4))

    @property
    def beat_ns(self) -> int:
        """How often the supervisor itself wakes up, at least."""
        return min(1_000 * NS_PER_MS, self.hang_ns // 4)


@dataclass(frozen=True, slots=True)
class History:
    """What a child did before: failures in a row, and when the recent ones were."""

    in_a_row: int = 0
    failed_at_ns: tuple[int, ...] = ()
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again at `at_ns`."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start it again: release the virtual IP and end, for this reason."""

    reason: str


Verdict = Restart | GiveUp


def backoff_ns(in_a_row: int, rules: Rules) -> int:
    """The pause before the restart after `in_a_row` failures: 0, then 100 ms doubling up to 10 s."""
    if in_a_row <= 1:
        return 0
    # The exponent is bounded before the shift: a child may fail for years.
    return min(rules.backoff_first_ns << min(in_a_row - 2, 32), rules.backoff_limit_ns)


def after_exit(
    history: History, ran_ready_ns: int | None, now_ns: int, vital: bool, rules: Rules
) -> tuple[History, Verdict]:
    """The new history and what to do after a child ended unasked.

    `ran_ready_ns` is how long it did its duty, None if it was never ready.
    """
    good = ran_ready_ns is not None and ran_ready_ns >= rules.good_run_ns
    in_a_row = 1 if good else history.in_a_row + 1
    recent = tuple(at for at in history.failed_at_ns if now_ns - at < rules.vital_window_ns)
    recent = (*recent, now_ns)[-rules.vital_failures :]
    updated = History(in_a_row, recent, history.restarts + 1)
    if vital and len(recent) >= rules.vital_failures:
        return updated, GiveUp(
            f"{len(recent)} failures within {(now_ns - recent[0]) / 1e9:.1f} s, at most"
            f" {rules.vital_failures - 1} in {rules.vital_window_ns / 1e9:.0f} s are tried"
        )
    return updated, Restart(now_ns + backoff_ns(in_a_row, rules))


def must_die(started_ns: int, ready: bool, sign_of_life_ns: int, now_ns: int, rules: Rules) -> str | None:
    """Why a running child has to be killed, or None."""
    if not ready:
        waited_ns = now_ns - started_ns
        if waited_ns >= rules.start_limit_ns:
            return f"not ready after {waited_ns / 1e9:.1f} s, at most {rules.start_limit_ns / 1e9:.1f} s are given"
        return None
    silent_ns = now_ns - sign_of_life_ns
    if silent_ns >= rules.hang_ns:
        return f"no sign of life for {silent_ns // NS_PER_MS} ms, at most {rules.hang_ns // NS_PER_MS} ms are given"
    return None


def death_deadline_ns(started_ns: int, ready: bool, sign_of_life_ns: int, rules: Rules) -> int:
    """The instant at which `must_die` will speak if nothing is heard."""
    return sign_of_life_ns + rules.hang_ns if ready else started_ns + rules.start_limit_ns


def must_doubt_itself(away_ns: int, rules: Rules) -> bool:
    """Whether the supervisor was away so long (it wakes every `beat_ns`) that the others' silence proves nothing.

    After SIGSTOP of everything, a suspend or a starved machine, all children look hung although nobody was.
    """
    return away_ns >= rules.hang_ns // 2


def start_has_failed(history: History, rules: Rules) -> bool:
    """Whether a first start, with an operator waiting, should end with the child's reason instead of going on."""
    return history.in_a_row >= rules.start_failures
