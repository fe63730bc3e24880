"""Loss by counters, jitter as in RFC 3550, lateness, round trips."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.heartbeat.quality import LATEST, MEMORY, PPM, RECENT, SHOWN, Quality
from pgvigil.ipc.codec import MAX_INT

MS = 1_000_000
S = 1000 * MS
INTERVAL = 200 * MS


def fed(counters: list[int]) -> Quality:
    """Every heartbeat in time."""
    quality = Quality(INTERVAL)
    for counter in counters:
        quality.take(counter * INTERVAL + 7, counter * INTERVAL, counter)
    return quality


def test_a_path_that_loses_nothing() -> None:
    summary = fed(list(range(1, 2001))).summary(2)
    assert (summary.node_id, summary.lost_permille, summary.lateness_us, summary.jitter_us) == (2, 0, 0, 0)
    assert summary.loss_ppm == int(PPM * 0.5 / (MEMORY + 1))
    assert summary.round_trip_us is None


def test_loss_is_that_of_the_last_hundred_heartbeats() -> None:
    assert fed([counter for counter in range(1, 401) if counter % 5]).summary(2).lost_permille == 200
    assert fed([1, 2, 4]).lost(SHOWN) == (1, 4)
    healed = fed([counter for counter in range(1, 501) if counter % 5 or counter > 400])
    assert healed.summary(2).lost_permille == 0
    assert healed.loss_ppm() == int(PPM * (80 + 0.5) / (500 + 1))  # 400 and the ones before are remembered


def test_what_to_expect_is_the_worse_of_a_short_and_a_long_memory() -> None:
    fresh_loss = fed([counter for counter in range(1, 1001) if counter not in (990, 991)])
    assert fresh_loss.loss_ppm() == int(PPM * 2 / RECENT)
    assert fed([1]).loss_ppm() == PPM // 4  # half a loss in two: a path that is hardly known may be anything


def test_one_lost_datagram_in_a_gap_of_any_length() -> None:
    assert fed([1, 2 + 5 * MEMORY]).lost(MEMORY) == (MEMORY - 1, MEMORY)
    assert fed([1, MAX_INT]).summary(2).lost_permille == 990


def test_a_sender_that_starts_anew_has_lost_nothing() -> None:
    quality = fed(list(range(1, 50)))
    quality.take(60 * INTERVAL, 60 * INTERVAL, 1)
    assert quality.lost(SHOWN) == (0, 50) and quality.summary(2).lateness_us == 0
    quality.take(62 * INTERVAL, 62 * INTERVAL, 3)
    assert quality.lost(SHOWN) == (1, 52)


def test_jitter_is_that_of_rfc_3550() -> None:
    quality = Quality(INTERVAL)
    jitter, transit = 0.0, 0
    for counter, delay in enumerate((1, 5, 2, 9, 9, 1), 1):
        quality.take(counter * INTERVAL + delay * MS, counter * INTERVAL, counter)
        if counter > 1:
            jitter += (abs(delay - transit) * MS - jitter) / 16
        transit = delay
    assert quality.summary(2).jitter_us == int(jitter) // 1000


def test_lateness_counts_pauses_of_the_sender_too_and_no_early_heartbeat() -> None:
    quality = fed([1, 2])
    quality.take(2 * INTERVAL + 57, 2 * INTERVAL + 50, 3)  # an extra round
    assert quality.summary(2).lateness_us == 0
    quality.take(4 * INTERVAL + 57, 4 * INTERVAL + 50, 4)  # 200 ms late, and sent so
    assert quality.summary(2).lateness_us == 200_000 // 8
    assert quality.summary(2).jitter_us == 0
    quality.take(9000 * INTERVAL, 9000 * INTERVAL, 5)
    assert quality.summary(2).lateness_us <= LATEST * 200_000 // 7


def test_the_round_trip_is_smoothed_and_leaves_out_what_cannot_be() -> None:
    quality = fed([1])
    quality.take_echo(10 * S, 10 * S - 3 * MS, 2 * MS)
    assert quality.summary(2).round_trip_us == 1000
    quality.take_echo(11 * S, 11 * S - 9 * MS, 0)
    assert quality.summary(2).round_trip_us == 2000
    for echoed, held_ns in ((100 * S - 1, 2), (MAX_INT, 0), (1, MAX_INT), (0, 0)):
        quality.take_echo(100 * S, echoed, held_ns)
    assert quality.summary(2).round_trip_us == 2000


@given(st.lists(st.tuples(st.integers(0, MAX_INT), st.integers(0, MAX_INT), st.integers(0, MAX_INT)), max_size=30))
def test_whatever_a_peer_says_the_summary_can_be_sent(taken: list[tuple[int, int, int]]) -> None:
    """Peers are authentic, not infallible."""
    quality = Quality(INTERVAL)
    for now_ns, sequence, counter in taken:
        quality.take(now_ns, sequence, counter)
        quality.take_echo(now_ns, sequence, counter)
    summary = quality.summary(2)
    numbers = (summary.lost_permille, summary.loss_ppm, summary.lateness_us, summary.jitter_us or 0)
    assert all(0 <= number <= MAX_INT for number in numbers)
    assert summary.lost_permille <= 1000 and summary.loss_ppm <= PPM
