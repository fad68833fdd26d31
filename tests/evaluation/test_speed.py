import pytest
import torch

from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT
from vidlada_hf.evaluation.random_model import TINY_TEXT, build_random_model, random_denoiser, random_question
from vidlada_hf.evaluation.speed import TimedDecoding, measure_runs, speed_table


class Fixed:
    """A run of known seconds that notes what is asked of it."""

    def __init__(self, seconds, asked, **counts):
        self.seconds, self.asked, self.counts = seconds, asked, counts

    def count(self):
        self.asked.append("count")
        return {"tokens": 8} | self.counts

    def time(self):
        self.asked.append("time")
        return self.seconds, 100


def test_runs_are_counted_once_timed_in_turn_and_summarized():
    asked, found, saved = [], {}, []
    runs = {"exact": Fixed(4.0, asked, flops=1000), "fast": Fixed(0.5, asked, flops=10), "other": Fixed(2.0, asked)}
    measure_runs(runs, "exact", 2, found, lambda: saved.append(1))
    assert asked == ["time"] * 6 + ["count"] * 3 and len(saved) == 5
    fast, other = found["fast"]["summary"], found["other"]["summary"]
    assert (fast["speedup"], fast["flops_saving"], fast["tokens_per_second"], fast["peak_bytes"]) == (8, 100, 16, 100)
    assert other["flops_saving"] is None and "| other | 2 | 2.0x | 4.0 | - | - | - | - | - |" in speed_table(found)
    asked.clear()
    measure_runs(runs, "exact", 2, found, lambda: None, warm_up=True)
    assert asked == []
    measure_runs(runs, "exact", 3, found, lambda: None, warm_up=True)
    assert asked == ["time"] * 6
    asked.clear()
    del found["fast"]["counts"], found["fast"]["summary"]  # as after a change that costs other operations
    measure_runs(runs, "exact", 3, found, lambda: None)
    assert asked == ["count"] and found["fast"]["summary"]["flops_saving"] == 100


def test_what_is_not_known_yet_is_a_dash():
    found = {}
    runs = {"exact": Fixed(4.0, [], flops=1000), "fast": Fixed(0.5, [], flops=10)}
    measure_runs(runs, "exact", 0, found, lambda: None)
    assert "| fast | - | - | - | - | 1e-11 | 100.0x | - | - |" in speed_table(found)


def test_some_of_equal_steps_stand_for_all():
    model = build_random_model(TINY_TEXT, torch.device("cpu"), torch.float32, grid=4)
    setting = random_denoiser(model, 2, 16, 8), random_question(model, 2), EXACT, Machine(1e9, 1e9)
    whole, part = TimedDecoding(*setting), TimedDecoding(*setting, limit=4)
    assert part.factor == 4 and whole.factor == 1
    counts, scaled = whole.count(), part.count()
    assert (scaled.pop("steps_run"), counts.pop("steps_run")) == (4, 16)
    assert scaled == pytest.approx(counts, rel=1e-3)  # a few bytes of indices come and go
    seconds, _ = part.time()
    assert seconds > 0
