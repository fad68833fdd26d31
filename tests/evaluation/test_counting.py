import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_models import example, tiny_model
from vidlada_hf.evaluation.counting import LiveBytes, count_flops, count_kept
from vidlada_hf.modeling.cache_strategies_vidlada import resolve_cache_strategy


def test_flops_of_a_forward_are_those_counted_by_hand():
    """Attention on the CPU included, which is a third of them here."""
    model = tiny_model().model.language_model
    rows, hidden, mlp, layers = 50, 32, 48, 4
    linear = 2 * rows * (4 * hidden * hidden + 3 * hidden * mlp)
    attention = 2 * 2 * rows * rows * hidden
    with torch.no_grad():
        counted = count_flops(lambda: model(inputs_embeds=torch.randn(1, rows, hidden)))
    rotary = 2 * rows * model.config.head_dim // 2  # a product in transformers 5.17, element-wise later
    assert counted - layers * (linear + attention) in (0, rotary)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_seen_with_and_without_a_mask(masked):
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    mask = torch.ones(5, 7, dtype=torch.bool) if masked else None
    with torch.no_grad():
        flops = count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key, mask))
    assert flops == 2 * 2 * 3 * 5 * 7 * (8 + 8)


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
    assert count_kept(holder) == 40 + 40


def test_a_strategy_keeps_what_it_says():
    model, inputs = tiny_model(), example(tiny_model(), 4)
    rows, kept = inputs["input_ids"].shape[1] + 8, {}
    for name in ("none", "dual", "mars"):
        strategy = resolve_cache_strategy(name, {"anchors": 1} if name == "mars" else None)

        def look(_, strategy=strategy, name=name):
            kept[name] = max(kept.get(name, 0), count_kept(strategy))

        model.generate(**inputs, max_new_tokens=8, cache_strategy=strategy, step_callback=look)
        assert not strategy.layout
    keys_and_values, boundaries = 2 * 4 * rows * 32 * 4, 3 * rows * 32 * 4
    assert kept["none"] == 0
    assert keys_and_values <= kept["dual"] < 1.2 * keys_and_values  # indices besides
    assert keys_and_values + boundaries <= kept["mars"] < 1.4 * (keys_and_values + boundaries)


PEAKS = """
import torch
from vidlada_hf.evaluation.counting import PeakMemory
for size in (1, 50_000_000):
    with PeakMemory(torch.device("cpu")) as peak:
        torch.ones(size).sum()
    print(peak.bytes)
"""


def test_the_peak_of_a_process():
    """A fresh one: this one's allocator may hold memory that other tests have left."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("this system does not tell the resident set")
    small, large = map(int, done.stdout.split())
    assert large - small > 150_000_000
