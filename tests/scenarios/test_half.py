"""What `quorum = "half"` cannot guarantee, shown: the limit is real, and it is the one that status and docs name."""

from __future__ import annotations

import pytest
from tests.scenarios.cluster import SafetyError
from tests.scenarios.test_scenarios import Teller

PARTED = """
nodes n1 n2 n3 n4
set half
begin
isolate n1 n2
"""


def test_halves_that_both_reach_the_tie_breaker_both_lead() -> None:
    """Not guaranteed: nothing but the tie-breaker stands between two halves that do not hear each other."""
    with pytest.raises(SafetyError, match=r"two gates are open|two leases run"):
        Teller().tell(PARTED + "run 10000")


@pytest.mark.parametrize("cut_off", ["n1 n2", "n3 n4"])
def test_one_half_leads_if_only_one_reaches_it(cut_off: str) -> None:
    """Guaranteed: whichever half it is; the other one never leads, however long it lasts."""
    teller = Teller()
    teller.tell(f"{PARTED}tiebreaker {cut_off} off\nrun 10000")
    (gate,) = teller.cluster.open_gates()
    assert gate not in cut_off


@pytest.mark.parametrize("cut", ["n1 > n2", "n2 > n1"])
def test_a_link_one_way_between_two_nodes_is_enough_to_keep_one_leader(cut: str) -> None:
    """Both reach the tie-breaker; whoever hears the other one follows it, or closes its gate for the higher term."""
    teller = Teller()
    teller.tell(f"nodes n1 n2\nset half\nbegin\ncut {cut}\nrun 10000")
    assert len(teller.cluster.open_gates()) == 1


def test_a_majority_needs_no_tie_breaker_with_half() -> None:
    """Three of four elect as ever."""
    teller = Teller()
    teller.tell("nodes n1 n2 n3 n4\nset half\nbegin\ntiebreaker all off\ncrash n1\nuntil leader within 2500")
    assert len(teller.cluster.open_gates()) == 1
