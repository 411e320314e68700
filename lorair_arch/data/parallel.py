"""Work in threads, in advance as far as memory allows: decoders, NumPy and OpenCV let go of Python's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 16
_AHEAD = 2**28, 1000  # bytes and items that are worked on in advance

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item], weigh: Callable[[_Item], int]
) -> Iterator[tuple[_Item, _Result]]:
    """Calls a function in threads, and gives the results in order.

    Args:
        function, items: What to call with what.
        weigh: Gives the bytes that an item and its result take.
    """
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    size = 0

    def is_too_much() -> bool:
        return len(waiting) > threads and (size > _AHEAD[0] or len(waiting) > _AHEAD[1])

    # Not `map`, which would keep the images of a whole data set.
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            size += weigh(item)
            while waiting and (waiting[0][1].done() or is_too_much()):
                item, future = waiting.popleft()
                size -= weigh(item)
                yield item, future.result()
        yield from ((item, future.result()) for item, future in waiting)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C not every item is to be worked on first
