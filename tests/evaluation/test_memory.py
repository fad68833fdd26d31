import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_models import example, tiny_model
from vidlada_hf.evaluation.memory import LiveBytes, count_kept_bytes
from vidlada_hf.modeling.cache_strategies_vidlada import resolve_cache_strategy


def test_live_bytes_count_what_is_held_and_no_view_twice():
    before = torch.zeros(1000)
    with LiveBytes() as count:
        held = before + 1
        view = held.view(10, 100).t()
        before.add_(1)
        before.view(-1)
        assert count.now == count.peak == 4000
        both = held + view.reshape(-1)  # the reshape is a copy, which goes
        assert (count.now, count.peak) == (8000, 12000)
        del held, view
        assert count.now == 4000
        del both
    assert (count.now, count.peak) == (0, 12000)


def test_kept_are_keys_values_boundaries_and_indices():
    shared = torch.zeros(10)
    holder = SimpleNamespace(
        a={0: shared}, b=[shared[2:], (torch.zeros(5, dtype=torch.int64),)], layout=torch.zeros(99)
    )
    assert count_kept_bytes(holder) == 40 + 40


def test_what_strategies_keep():
    model, inputs = tiny_model(), example(tiny_model(), 4)
    tokens, kept = inputs["input_ids"].shape[1] + 8, {}
    for name in ("none", "dual", "mars"):
        strategy = resolve_cache_strategy(name, {"anchors": 1} if name == "mars" else None)

        def note(_, strategy=strategy, name=name):
            kept[name] = max(kept.get(name, 0), count_kept_bytes(strategy))

        model.generate(**inputs, max_new_tokens=8, cache_strategy=strategy, step_callback=note)
        assert not strategy.layout
    keys_and_values, boundaries = 2 * 4 * tokens * 32 * 4, 3 * tokens * 32 * 4
    assert kept["none"] == 0
    assert keys_and_values <= kept["dual"] < 1.2 * keys_and_values  # indices besides
    assert keys_and_values + boundaries <= kept["mars"] < 1.4 * (keys_and_values + boundaries)


# The large one first: under memory pressure the system takes pages of libraries from the resident set at any time,
# which widens the difference to a later measurement, and would hide it from an earlier one.
PEAKS = """
import torch
from vidlada_hf.evaluation.memory import PeakMemory
for size in (50_000_000, 1):
    with PeakMemory(torch.device("cpu")) as peak:
        torch.ones(size).sum()
    print(peak.bytes)
"""


def test_the_peak_of_a_process():
    """A fresh one: this one's allocator may hold memory that other tests have left."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("this system does not report the resident set")
    large, small = map(int, done.stdout.split())
    assert large - small > 150_000_000
