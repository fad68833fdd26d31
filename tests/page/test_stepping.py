import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from vidlada_hf.page.stepping import Draft, denoise_stepwise, race

MASK = 9


def generate(steps: int, log: list, gate: threading.Event | None = None, *, step_callback) -> None:
    """As a model's: a token a step, from the left. `log` gets each step as it begins, and what ends it."""
    canvas = torch.full((1, steps), MASK)
    try:
        for i in range(steps):
            log.append(i)
            if gate is not None:
                gate.wait(10)
            canvas[0, i] = i
            step_callback(SimpleNamespace(canvas=canvas.clone(), num_tokens=torch.tensor([i + 1])))
        log.append("whole")
    finally:
        log.append("freed")


def test_a_step_begins_when_it_is_asked_for() -> None:
    log: list = []
    drafts = denoise_stepwise(partial(generate, 3, log))
    assert log == []
    first = next(drafts)
    assert (log, first.ids, first.before, first.steps, first.tokens) == ([0], (0, MASK, MASK), (), 1, 1)
    second, third, done = drafts
    assert (second.ids, second.before) == ((0, 1, MASK), first.ids) and not third.is_done
    assert (done.is_done, done.ids, done.steps, done.tokens_per_forward) == (True, (0, 1, 2), 3, 1.0)
    assert log == [0, 1, 2, "whole", "freed"] and 0 < first.seconds < second.seconds < done.seconds


def test_closing_frees_and_no_step_follows() -> None:
    log: list = []
    drafts = denoise_stepwise(partial(generate, 3, log))
    next(drafts)
    drafts.close()
    assert log == [0, "freed"]
    never_begun = denoise_stepwise(partial(generate, 3, log))
    never_begun.close()
    assert log == [0, "freed"]


def test_an_error_is_raised_where_drafts_are_asked_for() -> None:
    def fail(step_callback) -> None:
        raise ValueError("no such video")

    with pytest.raises(ValueError, match="no such video"):
        next(denoise_stepwise(fail))


def run(step_seconds: float, steps: int):
    """Drafts of steps that take so long each."""
    for i in range(1, steps + 1):
        yield Draft(steps=i, seconds=i * step_seconds, is_done=i == steps)


def test_a_race_is_fair_in_time() -> None:
    states = list(race([run(1.0, 4), run(0.5, 100)]))
    assert [draft.steps for draft in states[0]] == [0, 0]
    for slow, fast in states:
        if not slow.is_done:
            assert abs(slow.seconds - fast.seconds) <= 1.0
    assert states[-1][0].is_done and states[-1][1].steps == 100


def test_a_race_closes_its_runs() -> None:
    logs: list[list] = [[], []]
    states = race([denoise_stepwise(partial(generate, 5, log)) for log in logs])
    while not (logs[0] and logs[1]):
        next(states)
    states.close()
    assert all(log[-1] == "freed" and "whole" not in log for log in logs)
