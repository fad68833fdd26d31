"""Items made ahead by threads, and batches of items of like length."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def map_ahead(
    function: Callable[[Item], Made], items: Iterable[Item], workers: int, ahead: int
) -> Generator[Made, None, None]:
    """`function(item)` of each item, in order, by so many threads, which work up to `ahead` items ahead of the caller.

    An error comes where its item would. A loop that is left waits for what the threads are at, and for no more.
    """
    pool, waiting = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead"), deque[Future[Made]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batch_by_length(
    items: Iterable[Item], length: Callable[[Item], int], batch_size: int, window: int
) -> Iterator[list[Item]]:
    """Batches of at most so many items. Each takes the one that waits longest, and of all that wait those most like it.

    Args:
        window: how many wait at most. Without different lengths, batches are as the items come.
    """
    waiting: list[Item] = []

    def take() -> list[Item]:
        first = length(waiting[0])
        nearest = sorted(range(len(waiting)), key=lambda i: abs(length(waiting[i]) - first))[:batch_size]
        batch = [waiting[i] for i in sorted(nearest)]
        for i in sorted(nearest, reverse=True):
            del waiting[i]
        return batch

    for item in items:
        waiting.append(item)
        if len(waiting) >= max(window, batch_size):
            yield take()
    while waiting:
        yield take()


__all__ = ["batch_by_length", "map_ahead"]
