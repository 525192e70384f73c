"""Threads change when things are computed, never what comes out."""

from __future__ import annotations

import threading
import time

import pytest

from unskew.ahead import PER_WORKER, ahead


@pytest.mark.parametrize("workers", [0, 1, 2, 7, None])
def test_results_come_in_the_items_order(workers: int | None) -> None:
    """Whatever the number of threads, and however unevenly long the items take."""

    def slow_at_first(item: int) -> int:
        time.sleep(0.003 * (item % 5 == 0))
        return item * item

    assert list(ahead(slow_at_first, range(30), workers)) == [n * n for n in range(30)]
    assert list(ahead(slow_at_first, [], workers)) == []


def test_memory_is_bounded() -> None:
    """No more is begun than a few items a thread beyond the one in use."""
    begun: list[int] = []
    results = ahead(lambda item: begun.append(item), iter(range(1000)), 2)
    for used in range(1, 6):
        next(results)
        time.sleep(0.01)
        assert len(begun) <= used + PER_WORKER * 2
    results.close()
    assert len(begun) < 15


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_is_raised_at_its_turn(workers: int) -> None:
    """The results before it come out, its own type reaches the caller, and no thread is left."""
    before = threading.active_count()
    done = []
    with pytest.raises(ZeroDivisionError):
        for result in ahead(lambda item: 12 // item, [4, 3, 0, 2, 1], workers):
            done.append(result)
    assert done == [3, 4]
    assert threading.active_count() == before
