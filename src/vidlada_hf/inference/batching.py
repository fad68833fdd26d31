"""Batches of items of like length."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


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


__all__ = ["batch_by_length"]
