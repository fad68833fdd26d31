"""The next videos are read while a device works on those before."""

from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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


__all__ = ["ReadAhead"]
