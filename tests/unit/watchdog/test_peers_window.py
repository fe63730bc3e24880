from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgvigil.watchdog.transport.window import MAX_RECORDS, WINDOW, Window, Windows

MESSAGES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3 * WINDOW)), max_size=300)


@given(MESSAGES)
def test_against_a_model_that_never_forgets(messages: list[tuple[int, int]]) -> None:
    window = Window()
    seen: set[tuple[int, int]] = set()
    for boot, counter in messages:
        newest_boot = max((known for known, _ in seen), default=0)
        highest = max((number for known, number in seen if known == newest_boot), default=0)
        accepted = window.accept(boot, counter)
        if boot < newest_boot:
            assert not accepted
        elif boot > newest_boot:
            assert accepted
        else:
            assert accepted == ((boot, counter) not in seen and counter > highest - WINDOW)
        if accepted:
            seen.add((boot, counter))


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_memory_does_not_grow_with_the_numbers(first: int, second: int) -> None:
    window = Window()
    window.accept(1, first)
    window.accept(1, second)
    assert window._seen.bit_length() <= WINDOW


def test_late_path_delivers_what_the_early_one_lost() -> None:
    window = Window()
    assert [window.accept(1, counter) for counter in (1, 3, 4, 2, 2, 3)] == [True, True, True, True, False, False]


def test_node_that_lost_its_record_is_heard_from_boot_one() -> None:
    windows = Windows()
    assert windows.accept(50, 900, 1)
    assert windows.accept(51, 1, 1)
    assert not windows.accept(50, 900, 1)
    assert not windows.accept(51, 1, 1)


def test_number_of_records_is_bounded() -> None:
    windows = Windows()
    for record_id in range(100):
        windows.accept(record_id, 1, 1)
    assert len(windows._by_record) == MAX_RECORDS
