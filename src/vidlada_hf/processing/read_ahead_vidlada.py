"""The next videos are read while a device works on those before."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
_END = object()


class ReadAhead:
    """The items of an iterable, in order; the next one is made in a thread while one is used.

    An error that making an item raises comes where that item would.

    Args:
        items: makes its items when they are asked for. `len` works if it does for this.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        if not isinstance(self.items, Sized):
            raise TypeError(f"A {type(self.items).__name__} does not say how many items it has.")
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        items = iter(self.items)
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
            ahead = thread.submit(next, items, _END)
            while (item := ahead.result()) is not _END:
                ahead = thread.submit(next, items, _END)
                yield item


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


__all__ = ["ReadAhead", "map_ahead"]
