"""Work on the next items in threads while the last one is being used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that read, decode and resize: Pillow and hashlib let go of Python's lock meanwhile."""
PER_WORKER = 2
"""Items that may be begun or done ahead, a worker: what bounds the memory that pictures take."""
T = TypeVar("T")
R = TypeVar("R")


def ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Generator[R, None, None]:
    """function(item) of every item, in the items' order, computed in `workers` threads.

    None takes WORKERS; 0 computes each when it is asked for, in the caller's thread. What comes
    out is the same for any number of them, if the function has no state. Its exception is raised
    at its item's turn, after the results before it; what has not begun by then never begins.
    """
    workers = WORKERS if workers is None else workers
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > PER_WORKER * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # an error or a stop: the pool's end waits for what has begun, not for the rest
            for future in waiting:
                future.cancel()
