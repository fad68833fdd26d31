import pytest
import torch

from tests.tiny_models import batch, example, tiny_model
from vidlada_hf import SelectiveKVCache, VidLaDAGenerationConfig
from vidlada_hf.evaluation.cost_model import LayerWork, Machine, Sizes, StepCost, TextShape, cost_of_steps, plan_work
from vidlada_hf.evaluation.flops import count_flops
from vidlada_hf.evaluation.measure import StepRecorder
from vidlada_hf.modeling.cache_strategies_vidlada import resolve_cache_strategy
from vidlada_hf.modeling.cache_vidlada import DenoisingCache

CHUNKED = {"anchors": 2, "visual_intervals": [8, 4], "text_intervals": [4, 2], "proxy_queries": 5}
STRATEGIES = [
    ("none", {}),
    ("dual", {"refresh_interval": 3}),
    ("prefix", {}),
    ("interval", {"prompt_interval": 5, "generation_interval": 3}),
    ("mars", CHUNKED),
    ("mars", CHUNKED | {"first_step": "chunked"}),
    ("mars", CHUNKED | {"neighborhood": None}),
    ("mars", CHUNKED | {"neighborhood": 2, "visual_intervals": [None, None], "anchor_choice": "random"}),
]


def run(strategy, inputs, **settings):
    """(counted operations, counted on paper), of the text model and its head."""
    model = tiny_model()
    features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"])
    recorder = StepRecorder(strategy)
    flops = count_flops(
        lambda: model.generate(
            **inputs, video_features=features, cache_strategy=strategy, step_callback=recorder, **settings
        )
    )
    costs = cost_of_steps(strategy, TextShape.of(model.config.text_config), recorder.layout, recorder.steps)
    return flops, sum(cost.flops for cost in costs)


@pytest.mark.parametrize(("name", "settings"), STRATEGIES)
def test_the_paper_agrees_with_the_counter(name, settings):
    counted, planned = run(
        resolve_cache_strategy(name, settings), example(tiny_model(), 5), max_new_tokens=8, block_length=4
    )
    assert planned == pytest.approx(counted, rel=0.002)


@pytest.mark.parametrize("name", ["none", "dual", "mars"])
def test_it_agrees_for_padded_batches_with_guidance_and_a_suffix(name):
    model = tiny_model()
    inputs = batch(example(model, 5), example(model, 3, before=7))
    settings = {"unmasking": "threshold", "unmask_threshold": 0.5, "cfg_scale": 1.0, "suffix": [5, 6, 7]}
    strategy = resolve_cache_strategy(name, CHUNKED if name == "mars" else {})
    counted, planned = run(strategy, inputs, max_new_tokens=8, block_length=4, **settings)
    assert planned == pytest.approx(counted, rel=0.002)


def test_a_shadow_is_counted():
    inputs = batch(example(tiny_model(), 5), example(tiny_model(), 3, before=7))
    rule = {"unmasking": "wino", "unmask_draft_threshold": 0.5}
    counted, planned = run(resolve_cache_strategy("none"), inputs, max_new_tokens=8, block_length=8, **rule)
    assert planned == pytest.approx(counted, rel=0.002)


@pytest.mark.parametrize("name", ["prefix", "dual", "interval"])
def test_it_agrees_where_a_short_example_is_padded_far(name):
    """One token a step, so that most steps compute the block alone."""
    model = tiny_model()
    inputs = batch(example(model, 5, before=9), example(model, 0, before=2))
    counted, planned = run(resolve_cache_strategy(name), inputs, max_new_tokens=8, block_length=4)
    assert planned == pytest.approx(counted, rel=0.01)


def test_the_span_of_a_strategy_of_the_users_own_is_enough():
    class Window(SelectiveKVCache):
        def recompute_span(self, step):
            return slice(step.span.start - 3, step.span.stop)

    counted, planned = run(Window(), example(tiny_model(), 2), max_new_tokens=8, block_length=8)
    assert planned == pytest.approx(counted, rel=0.002)


def test_a_strategy_that_decides_as_it_goes_is_not_planned():
    class Undecided(DenoisingCache):
        def denoise(self, text_model, inputs_embeds, step):
            raise NotImplementedError

    shape, sizes = TextShape.of(tiny_model().config.text_config), Sizes(5, (4, 4, 4), 8)
    steps = sizes.steps_in_sequence(VidLaDAGenerationConfig(max_new_tokens=8).planned_steps())
    assert plan_work(Undecided(), shape, sizes, steps) is None


def test_a_table_by_hand():
    """Two groups of two layers, 3 frames of 4 tokens, 5 of text, a canvas of two blocks of 2: 21 tokens."""
    sizes, shape = Sizes(5, (4, 4, 4), 4), TextShape(8, 16, 4, 2, 2, 4, 10)
    config = {"anchors": 1, "visual_intervals": [None, 2], "text_intervals": [2, 2], "first_step": "full"}
    steps = sizes.steps_in_sequence(VidLaDAGenerationConfig(max_new_tokens=4, block_length=2).planned_steps())
    shallow, deep = [], []
    for layers in plan_work(resolve_cache_strategy("mars", config), shape, sizes, steps):
        assert layers[0] == layers[1] and layers[2].tokens == layers[3].tokens
        shallow.append((layers[0].tokens, layers[0].pairs))
        deep.append((layers[3].tokens, layers[3].pairs))
    # Frames 0 and 2 see two frames and an anchor of the third, frame 1 all three; all see the 9 tokens of text.
    framed = 4 * (8 + 1 + 9) + 4 * (12 + 9) + 4 * (8 + 1 + 9)
    assert shallow == [(21, 21 * 21), (2, 2 * 21), (9, 9 * 21), (2, 2 * 21)]
    assert deep == [(21, 21 * 21), (2, 2 * 21), (21, 9 * 21 + framed), (2, 2 * 21)]


def test_layers_operations_and_the_floor():
    shape = TextShape(hidden=8, intermediate=16, layers=1, heads=2, key_value_heads=1, head_dim=4, vocabulary=10)
    assert shape.layer_parameters == 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert LayerWork(3, 7, 5).flops(shape) == 2 * 3 * 576 + 4 * 7 * 8 + 5
    assert StepCost(100, 10).floor(Machine(10, 10)) == 10 and StepCost(10, 100).floor(Machine(10, 10)) == 10


def test_the_8b_figures_of_a_full_step():
    """6.98e9 weights; 1.2e14 operations a step with 6,720 visual tokens; half a megabyte of keys and values a token."""
    shape = TextShape(4096, 12288, 32, 32, 32, 128, 126464)
    assert 32 * shape.layer_parameters == pytest.approx(6.98e9, rel=0.01)
    full = LayerWork(6900, 6900**2).flops(shape) * 32
    assert full == pytest.approx(1.2e14, rel=0.05)
    per_token = 2 * shape.layers * shape.key_value_heads * shape.head_dim * 2
    assert per_token == pytest.approx(0.52e6, rel=0.01)


def test_sizes_of_a_layout():
    model = tiny_model()
    inputs = batch(example(model, 5), example(model, 2, before=7))
    layouts = []

    class Noting(type(resolve_cache_strategy("none"))):
        def begin(self, layout):
            super().begin(layout)
            layouts.append(layout)

    model.generate(**inputs, max_new_tokens=8, suffix=torch.tensor([4, 5]), cache_strategy=Noting())
    frame = model.model.tokens_per_frame
    assert Sizes.of(layouts[0], 0) == Sizes(7, (frame,) * 5, 8, 2)
    assert Sizes.of(layouts[0], 1) == Sizes(11, (frame,) * 2, 8, 2)
