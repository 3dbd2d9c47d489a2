"""Requests of a store, many on their way at once: one to S3 takes tens of milliseconds, whatever it asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

AT_ONCE: Final = 32  # requests; half of the connections that a client of S3 keeps

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def pooled(ask: Callable[[Item], Answer], items: Iterable[Item], at_once: int = AT_ONCE) -> Iterator[Answer]:
    """`ask` of each item, in order, from threads. No more than `at_once` answers wait to be taken.

    The first that raises ends it, in its turn.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="store") as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(ask, item))
                if len(waiting) == at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
