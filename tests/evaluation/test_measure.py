import pytest
import torch

from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT, DecodingRunner, DecodingSetup
from vidlada_hf.evaluation.measure import (
    TimedDecoding,
    clock,
    count_decoding,
    count_each,
    describe_machine,
    measure_machine,
    time_in_turns,
)
from vidlada_hf.evaluation.random_model import (
    SMALL_TEXT,
    TINY_TEXT,
    build_random_model,
    encode_random_question,
    full_canvas_runner,
)

CPU = torch.device("cpu")


class FixedRun:
    """A run of known seconds that notes when it is timed and counted."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def count(self):
        self.log.append(f"count {self.name}")
        return {"tokens": 8}

    def time(self):
        self.log.append(self.name)
        return self.seconds, 100 + len(self.log)


def fixed_runs(log, **seconds):
    return {name: FixedRun(name, value, log) for name, value in seconds.items()}


def test_runs_take_turns():
    log, results, saved = [], {}, []
    time_in_turns(fixed_runs(log, exact=8.0, fast=2.0), "exact", 3, results, lambda: saved.append(len(log)))
    assert log == ["exact", "fast"] * 3 and saved == [2, 4, 6]
    assert results["fast"] == {"seconds": [2] * 3, "reference_seconds": [8] * 3, "peak_bytes": 106}
    assert results["exact"]["seconds"] == results["exact"]["reference_seconds"] == [8] * 3


def test_what_is_done_is_not_timed_again_and_what_comes_later_meets_the_reference():
    log = []
    results = {
        "exact": {"seconds": [8.0] * 2, "reference_seconds": [8.0] * 2},
        "fast": {"seconds": [2.0], "reference_seconds": [8.0]},
    }
    runs = fixed_runs(log, exact=6.0, fast=3.0, late=1.0)
    time_in_turns(runs, "exact", 2, results)
    assert log == ["exact", "fast", "late", "exact", "late"]
    assert results["exact"]["seconds"] == [8, 8]
    assert (results["fast"]["seconds"], results["fast"]["reference_seconds"]) == ([2, 3], [8, 6])
    assert (results["late"]["seconds"], results["late"]["reference_seconds"]) == ([1, 1], [6, 6])
    log.clear()
    time_in_turns(runs, "exact", 2, results, warm_up=True)
    assert log == []
    time_in_turns(runs, "exact", 3, results, warm_up=True)
    assert log == ["exact", "fast", "late"] * 2


def test_each_is_counted_once():
    log, results, saved = [], {"exact": {"counts": {"tokens": 9}}}, []
    runs = fixed_runs(log, exact=8.0, fast=2.0)
    for _ in range(2):
        count_each(runs, results, lambda: saved.append(len(log)))
    assert log == ["count fast"] and saved == [1] and results["fast"]["counts"] == {"tokens": 8}


def test_the_machine_is_measured_and_named():
    machine = measure_machine(CPU, torch.float32, quick=True)
    assert machine.flops > 1e6 and machine.bytes > 1e6
    assert describe_machine(CPU)["torch"] == torch.__version__ and describe_machine(CPU)["device"]
    assert 0 < clock(lambda: sum(range(1000)), CPU) < 10


def test_counts_do_not_depend_on_the_machine(tiny, questions):
    runner = DecodingRunner(*tiny, 8, "canvas", {"max_new_tokens": 3})
    setup = DecodingSetup("mars", {"visual_intervals": [1], "text_intervals": [1], "neighborhood": 8})
    batches = [runner.encode(questions[:1])]
    first, second = (count_decoding(runner, batches, setup, Machine(1e9, 1e9)) for _ in range(2))
    assert first == second and first["steps"] == first["tokens"] == first["forwards"] == 3
    assert first["flops"] == pytest.approx(first["flops_planned"], rel=0.01)


def test_batches_are_summed_up(tiny, questions):
    runner, machine = DecodingRunner(*tiny, 8, "canvas", {"max_new_tokens": 2}), Machine(1e9, 1e9)
    batches = [runner.encode([question]) for question in questions[:2]]
    one, other = (count_decoding(runner, [batch], EXACT, machine) for batch in batches)
    both = TimedDecoding(runner, batches, EXACT, machine).count()
    for name in ("flops", "flops_planned", "floor_seconds", "steps", "tokens", "forwards"):
        assert both[name] == pytest.approx(one[name] + other[name])
    assert both["live_bytes"] == max(one["live_bytes"], other["live_bytes"]) and both["steps_run"] == 4


def test_some_of_equal_steps_stand_for_all():
    model = build_random_model(TINY_TEXT, CPU, torch.float32, grid=4)
    runner, batches = full_canvas_runner(model, 2, 8, 4), [encode_random_question(model, 2)]
    whole = TimedDecoding(runner, batches, EXACT, Machine(1e9, 1e9))
    part = TimedDecoding(runner, batches, EXACT, Machine(1e9, 1e9), max_steps=2)
    assert part.factor == 4 and whole.factor == 1
    counts, scaled = whole.count(), part.count()
    assert (scaled.pop("steps_run"), counts.pop("steps_run")) == (2, 8)
    assert scaled == pytest.approx(counts, rel=5e-3)  # a few bytes of indices come and go
    seconds, _ = part.time()
    assert seconds > 0


# The second: chunk attention within three steps.
@pytest.mark.parametrize("intervals", [(128, 64, 32, 16), pytest.param((4, 2, 1, 1), marks=pytest.mark.slow)])
def test_the_memory_that_mars_needs_is_that_of_exact_decoding_and_what_it_keeps(intervals):
    """Keys, values and boundaries, what enters a group of layers, and tables of all tokens' positions."""
    text = SMALL_TEXT | {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4}
    model = build_random_model(text, CPU, torch.float32)
    runner, batch = full_canvas_runner(model, 4, 4, 2), encode_random_question(model, 4)
    settings = {"visual_intervals": intervals, "text_intervals": intervals}
    exact, mars = (
        count_decoding(runner, [batch], setup, Machine(1.0, 1.0), max_steps=3)  # a block's first step among them
        for setup in (EXACT, DecodingSetup("mars", settings))
    )
    hidden_bytes = (batch.inputs["input_ids"].shape[1] + 4) * text["hidden_size"] * 4
    keys_and_values, boundaries = 2 * text["num_hidden_layers"] * hidden_bytes, (len(intervals) - 1) * hidden_bytes
    tables = 4 * hidden_bytes // text["num_attention_heads"]  # cosine and sine of each token, kept and of a step
    kept = keys_and_values + boundaries + hidden_bytes + tables
    assert mars["live_bytes"] <= exact["live_bytes"] + kept < 2 * mars["live_bytes"]
