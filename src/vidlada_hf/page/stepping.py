"""A denoising that takes a step when it is asked to, and several of them driven from one loop."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True)
class Draft:
    """An answer after some steps.

    Args:
        ids: the canvas, the mask's id where nothing is known yet; empty before the first step.
        before: the canvas a step earlier.
        steps: forward passes so far.
        tokens: that stand committed.
        seconds: that the steps took, without the time between them.
        is_done: whether no step follows.
    """

    ids: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    is_done: bool = False

    @property
    def tokens_per_forward(self) -> float:
        """Committed in a forward pass, on average; 0 before the first."""
        return self.tokens / self.steps if self.steps else 0.0


class _Stopped(Exception):
    """Leaves a `generate` between two steps."""


def denoise_stepwise(generate: Callable[..., Any]) -> Generator[Draft, None, None]:
    """Yields the first example's draft after each step; a step begins when its draft is asked for, not earlier.

    Once closed, no further step begins, and what the denoising held is free.

    Args:
        generate: a model's `generate` with all arguments but `step_callback`. It runs in a thread of its own.

    Raises:
        Exception: what `generate` raised.
    """
    wanted, made, stopped = threading.Semaphore(0), SimpleQueue[Any](), threading.Event()

    def wait_until_wanted() -> None:
        wanted.acquire()
        if stopped.is_set():
            raise _Stopped

    def on_step(output: Any) -> None:
        made.put((tuple(output.canvas[0].tolist()), int(output.num_tokens[0])))  # waits for the device
        wait_until_wanted()

    def work() -> None:
        try:
            wait_until_wanted()
            generate(step_callback=on_step)
            made.put(None)
        except _Stopped:
            pass
        except Exception as error:  # raised again where the drafts are asked for
            made.put(error)

    thread, draft = threading.Thread(target=work, daemon=True), Draft()
    thread.start()
    try:
        while not draft.is_done:
            started = time.perf_counter()
            wanted.release()
            step = made.get()
            seconds = draft.seconds + time.perf_counter() - started
            if isinstance(step, Exception):
                raise step
            if step is None:
                draft = Draft(draft.ids, draft.ids, draft.steps, draft.tokens, seconds, is_done=True)
            else:
                draft = Draft(step[0], draft.ids, draft.steps + 1, step[1], seconds)
            yield draft
    finally:
        stopped.set()
        wanted.release()
        thread.join()


def race(runs: Sequence[Generator[Draft, None, None]]) -> Generator[tuple[Draft, ...], None, None]:
    """Yields where the runs stand: before the first step, and each time that one has taken a step.

    The next step is taken by the run that has computed for the shortest time: one that is twice as fast takes twice as
    many steps in the same time, though each step has the device for itself. All runs are closed at the end.
    """
    latest, running = [Draft()] * len(runs), set(range(len(runs)))
    with ExitStack() as closes:
        for run in runs:
            closes.enter_context(closing(run))
        yield tuple(latest)
        while running:
            index = min(running, key=lambda i: latest[i].seconds)
            latest[index] = next(runs[index])
            if latest[index].is_done:
                running.remove(index)
            yield tuple(latest)


__all__ = ["Draft", "denoise_stepwise", "race"]
