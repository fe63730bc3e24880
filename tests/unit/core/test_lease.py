"""The lease never outlives a majority of the promises that back it, whatever happens on the way (P2, P4, P6)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pgvigil.watchdog.core.lease import NS_PER_MS, Lease, Promise, lease_end_ns, promise_on_renewal
from pgvigil.watchdog.core.quorum import majority

LEADER = 1
SIZE = 5
RATES_PPM = st.integers(-4950, 4950)  # any two clocks then differ by less than 1 % in rate

# One thing that happens, and how many microseconds after the last one.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 400_000),
        st.sampled_from(("renew", "deliver", "deliver", "again", "ack", "ack", "shorter", "restart")),
        st.integers(2, SIZE),
        st.integers(0, 30),
    ),
    max_size=60,
)


def local(true_ns: int, rate_ppm: int) -> int:
    """What a clock of that rate shows."""
    return true_ns * (1_000_000 + rate_ppm) // 1_000_000


@settings(max_examples=300, deadline=None)
@given(rates=st.lists(RATES_PPM, min_size=SIZE + 1, max_size=SIZE + 1), steps=STEPS)
def test_a_lease_is_always_backed(rates: list[int], steps: list[tuple[int, str, int, int]]) -> None:
    """Renewals and acknowledgements come late, doubled, in any order; the lease time may become shorter."""
    true_ns, lease_ms, boot = 0, 1000, 1
    lease = Lease(LEADER, 1, boot, 0)
    own: Promise | None = None
    promises: dict[int, Promise] = {}
    sent: list[tuple[int, int, int]] = []  # boot, sequence, lease_ms
    acks: list[tuple[int, int, int]] = []  # voter, boot, sequence
    for wait_us, what, voter, pick in steps:
        true_ns += wait_us * 1000
        now_ns = local(true_ns, rates[LEADER])
        if what == "renew" or (what == "deliver" and not sent):
            renewal = lease.renew(now_ns, lease_ms)
            sent.append((boot, renewal.sequence, renewal.lease_ms))
            until_ns = renewal.sent_at_ns + renewal.lease_ms * NS_PER_MS
            own = Promise(LEADER, 1, boot, renewal.sequence, max(until_ns, own.until_ns if own else 0))
        elif what in ("deliver", "again"):
            message = sent[-1 - pick % len(sent)] if sent else (0, 0, 0)
            until_ns = local(true_ns, rates[voter]) + message[2] * NS_PER_MS
            taken = promise_on_renewal(promises.get(voter), LEADER, 1, message[0], message[1], until_ns)
            if taken is not None and message[0]:
                old = promises.get(voter)
                assert old is None or taken.until_ns >= old.until_ns, "a promise was shortened"
                promises[voter] = taken
                acks.append((voter, message[0], message[1]))
        elif what == "ack" and acks:
            acked = acks[-1 - pick % len(acks)]
            if acked[1] == boot:
                lease.acknowledge(acked[0], acked[2])
                lease.settle(range(1, SIZE + 1), now_ns)
        elif what == "shorter":
            lease_ms = max(400, lease_ms - 150)
        elif what == "restart":
            boot += 1
            lease = Lease(LEADER, 1, boot, now_ns)
        if lease.held(local(true_ns, rates[LEADER])):
            assert lease.until_ns is not None
            end_ns = lease.until_ns * 1_000_000 // (1_000_000 + rates[LEADER])  # true
            backing = [node for node, promise in promises.items() if promise.live(local(end_ns, rates[node]))]
            assert own is not None and own.live(lease.until_ns)
            assert len(backing) + 1 >= majority(SIZE), "the lease outlives its promises"


def test_a_lease_ends_before_a_promise_by_the_fastest_clock() -> None:
    """L * (1 - rho) on the slowest clock is less than L on the fastest."""
    for lease_ms in (100, 999, 1000, 60_000):
        assert lease_end_ns(0, lease_ms) * 1_000_000 // 995_050 < lease_ms * NS_PER_MS * 1_000_000 // 1_004_950


def test_an_acknowledgement_that_comes_too_late_gives_nothing() -> None:
    """The lease it would give has ended."""
    lease = Lease(LEADER, 1, 1, 0)
    lease.renew(0, 1000)
    lease.acknowledge(2, 1)
    assert not lease.settle((1, 2, 3), 990 * NS_PER_MS)
    assert not lease.held(990 * NS_PER_MS)


def test_a_carried_lease_runs_on_without_a_majority() -> None:
    """P12: the end of the old term's lease is that of the new one until it is prolonged."""
    lease = Lease(LEADER, 2, 1, 500, until_ns=900)
    assert lease.held(899) and not lease.held(900)
