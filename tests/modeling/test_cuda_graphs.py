"""Captured steps: on a CPU the same code, with a recording in place of a CUDA graph; on a GPU as they are."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from vidlada_hf import (
    DualCache,
    FixedQuotaUnmasking,
    MARSCache,
    MARSCacheConfig,
    NoCache,
    VidLaDAForConditionalGeneration,
)
from vidlada_hf.modeling import cuda_graphs_vidlada
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.canvas_vidlada import Canvas
from vidlada_hf.modeling.cuda_graphs_vidlada import StepGraphs, why_not_captured
from vidlada_hf.modeling.kv_cache_vidlada import ComputedTokens, TokenPlan

from ..tiny_models import MASK, batch, example, tiny_model
from .ways import OFTEN, WAYS, in_every_way

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STRATEGIES = [*((name, None) for name in CACHE_STRATEGIES), ("mars", OFTEN)]


class Recording:
    """What a CUDA graph does: nothing is done when the work is recorded, and each replay writes to the same place."""

    made: list["Recording"] = []

    def __init__(self, work, memory):
        self.work, self.replays, self.closed = work, 0, False
        self.made.append(self)

    def replay(self):
        assert not self.closed
        self.work()
        self.replays += 1

    def close(self):
        self.closed = True


@pytest.fixture
def recordings(monkeypatch) -> list[Recording]:
    """Steps are recorded on a CPU too; these are the recordings."""

    def why_not(*arguments):
        reason = why_not_captured(*arguments)
        return None if reason and reason.startswith("the device is") else reason

    monkeypatch.setattr(cuda_graphs_vidlada, "CudaGraph", Recording)
    monkeypatch.setattr(cuda_graphs_vidlada, "why_not_captured", why_not)
    monkeypatch.setattr(Recording, "made", [])
    return Recording.made


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


def prompts(model, count: int, equal: bool = False) -> dict:
    """A batch; the prompts are equally long, or have frames or none, before text of any length."""
    if equal:
        return batch(*(example(model, 4, seed=seed) for seed in range(count)))
    frames = [4, 1, 0, 5, 3]
    return batch(*(example(model, frames[i % 5], before=2 + i, after=9 - i, seed=i) for i in range(count)))


def answers(model, inputs, **arguments) -> torch.Tensor:
    """What `generate` put behind the prompts."""
    arguments = {"max_new_tokens": 12, "block_length": 4} | arguments
    return model.generate(**inputs, **arguments)[:, inputs["input_ids"].shape[1] :]


# --- the same tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "config", "way"), in_every_way(STRATEGIES))
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "ragged"])
def test_recorded_steps_give_the_same_tokens(model, recordings, name, config, way, equal):
    settings = {"cache_strategy": name, "cache_config": config, "block_length": 6, **WAYS[way]}
    inputs = prompts(model, 3, equal)
    expected = answers(model, inputs, cuda_graphs=False, **settings)
    assert not recordings
    assert torch.equal(answers(model, inputs, **settings), expected)
    if way in ("plain", "guidance", "stops") and (name != "none" or equal):
        assert sum(recording.replays for recording in recordings) > 0


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
@pytest.mark.parametrize("size", [1, 8])
def test_examples_that_finish_early_keep_what_they_have_and_change_nobody(model, recordings, name, size):
    """With an end token that is common, answers of a batch end all over the canvas, and in the middle of blocks."""
    inputs, ends = prompts(model, size), {"eos_token_id": list(range(3, 20)), "max_new_tokens": 24, "block_length": 8}
    expected = answers(model, inputs, cuda_graphs=False, cache_strategy=name, **ends)
    assert torch.equal(answers(model, inputs, cache_strategy=name, **ends), expected)


@pytest.mark.parametrize("name", ["prefix", "dual", "interval", "mars"])
def test_finished_examples_stay_in_the_shape(model, recordings, name):
    """A canvas whose masks run out at different steps: one recording for the block's steps, not one for each number."""
    inputs = prompts(model, 3, equal=True)
    canvas = torch.full((3, 12), MASK)
    canvas[0, :9], canvas[1, :6] = 5, 6
    settings = {"canvas": canvas, "block_length": 12, "cache_strategy": name, "suppress_tokens": [0, MASK]}
    expected = answers(model, inputs, cuda_graphs=False, **settings)
    assert torch.equal(answers(model, inputs, **settings), expected)
    block = [recording for recording in recordings if recording.replays > 1]
    assert len(block) <= 2 and max(recording.replays for recording in block) >= 4


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_what_each_step_commits_is_the_same(model, recordings, name):
    settings = {"cache_strategy": name, "return_dict_in_generate": True, "max_new_tokens": 16, "block_length": 8}
    inputs = prompts(model, 2, equal=True)
    eager, recorded = (model.generate(**inputs, cuda_graphs=on, **settings) for on in (False, True))
    assert recordings and torch.equal(eager.tokens_per_forward, recorded.tokens_per_forward)
    for ours, expected in zip(recorded.trace, eager.trace, strict=True):
        assert ours.step == expected.step and torch.equal(ours.committed, expected.committed)
        torch.testing.assert_close(ours.confidence, expected.confidence)


def test_one_recording_serves_every_block_of_a_shape(model, recordings):
    settings = {"cache_strategy": "dual", "max_new_tokens": 16, "block_length": 4}
    answers(model, prompts(model, 2, equal=True), **settings)
    assert [recording.replays for recording in recordings] == [4 * 3 - 1]


class Stubborn(FixedQuotaUnmasking):
    """Commits one more where the most probable token is that of the step before: it keeps the logits."""

    before = None

    def select(self, confidence, eligible, quota, logits):
        same = torch.ones_like(eligible) if self.before is None else logits.argmax(-1) == self.before.argmax(-1)
        self.before = logits
        more = super().select(confidence, eligible & same, quota + 1, logits)
        return more | super().select(confidence, eligible, quota, logits)


def test_who_keeps_logits_keeps_those_of_its_step(model, recordings):
    inputs, settings = prompts(model, 2, equal=True), {"cache_strategy": "dual", "block_length": 12}
    expected = answers(model, inputs, unmasking=Stubborn(), cuda_graphs=False, **settings)
    assert torch.equal(answers(model, inputs, unmasking=Stubborn(), **settings), expected)
    assert recordings

    kept = {}

    def keep(name):
        kept[name] = []

        def processor(ids, scores):
            kept[name].append(scores)
            return scores

        return [processor]

    for name, on in (("eager", False), ("recorded", True)):
        answers(model, inputs, logits_processor=keep(name), cuda_graphs=on, **settings)
    assert all(torch.equal(a, b) for a, b in zip(kept["eager"], kept["recorded"], strict=True))


# --- looking at the canvas -------------------------------------------------------------------------------------------


class Drafts:
    """A streamer that looks at every step."""

    def put(self, value):
        pass

    def put_draft(self, value):
        pass

    def end(self):
        pass


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 0),
        ({"step_callback": print}, 0),
        ({"return_dict_in_generate": True}, 0),
        ({"eos_token_id": [3, 4]}, 1),
        ({"unmasking": "threshold"}, 1),
        ({"streamer": Drafts()}, 1),
        ({"stopping_criteria": [lambda ids, scores: torch.zeros(len(ids), dtype=torch.bool)]}, 1),
        (
            {
                **WAYS["stop strings"],
                "streamer": Drafts(),
                "unmasking": "factor",
                "return_dict_in_generate": True,
                "eos_token_id": [3],
                "stopping_criteria": [lambda ids, scores: torch.zeros(len(ids), dtype=torch.bool)],
            },
            1,
        ),
    ],
)
def test_the_canvas_is_looked_at_once_a_step_at_most_and_not_where_nobody_asks(model, monkeypatch, settings, most):
    looked, view = [], Canvas.view

    def counted(canvas):
        looked.append(canvas._view is None)
        return view(canvas)

    monkeypatch.setattr(Canvas, "view", counted)
    model.generate(**prompts(model, 2), max_new_tokens=8, block_length=4, **settings)
    assert sum(looked) <= most * (8 + 1)  # and once before the first step
    assert bool(sum(looked)) == bool(most)


# --- graphs belong to one call ---------------------------------------------------------------------------------------


def test_threads_have_their_own(model, recordings):
    inputs = [prompts(model, size) for size in (1, 2, 3, 2)]
    settings = {"cache_strategy": "mars", "cache_config": OFTEN, "max_new_tokens": 24, "block_length": 8}
    expected = [answers(model, each, **settings, cuda_graphs=False) for each in inputs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda each: answers(model, each, **settings), inputs * 3))
    assert all(torch.equal(a, b) for a, b in zip(found, expected * 3, strict=True))


def test_one_call_after_the_other_shares_nothing(model, recordings):
    cache, inputs = DualCache(), prompts(model, 1)
    first, second = (answers(model, inputs, cache_strategy=cache) for _ in range(2))
    assert torch.equal(first, second) and len(recordings) == 2 and not cache.keeps_shape


def test_an_error_in_a_step_leaves_nothing_behind(model, recordings):
    cache, inputs = MARSCache(MARSCacheConfig(anchors=2)), prompts(model, 1)
    expected = answers(model, inputs, cache_strategy=cache)

    def fail(output):
        if output.step.index == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers(model, inputs, cache_strategy=cache, step_callback=fail)
    assert cache.layout is None and not cache.keys and not cache.keeps_shape
    assert torch.equal(answers(model, inputs, cache_strategy=cache), expected)


def test_a_capture_that_fails_is_given_up_and_the_step_runs(model, recordings, monkeypatch):
    attempts = []

    def fail(work, memory):
        attempts.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    inputs = prompts(model, 2, equal=True)
    expected = answers(model, inputs, cache_strategy="dual", cuda_graphs=False)
    monkeypatch.setattr(cuda_graphs_vidlada, "CudaGraph", fail)
    assert torch.equal(answers(model, inputs, cache_strategy="dual"), expected)
    assert len(attempts) == 1


# --- what is captured ------------------------------------------------------------------------------------------------


@dataclass
class OwnCache(DualCache):
    """A strategy with state in Python."""

    def __post_init__(self):
        super().__init__()
        self.calls = 0

    def attend(self, *args, **kwargs):
        self.calls += 1
        return super().attend(*args, **kwargs)


def test_a_users_strategy_runs_as_it_is_until_it_says_that_it_can_be_captured(model, recordings):
    inputs, own = prompts(model, 1), OwnCache()
    assert torch.equal(answers(model, inputs, cache_strategy=own), answers(model, inputs, cache_strategy="dual"))
    assert own.calls == 12 * len(model.model.language_model.layers)
    assert "OwnCache does not say" in why_not_captured(model, own, CPU)

    class Willing(DualCache):
        captures = True

    recordings.clear()
    answers(model, inputs, cache_strategy=Willing())
    assert recordings


def test_models_that_cannot_be_captured_say_why():
    model = tiny_model()
    assert "only CUDA" in why_not_captured(model, DualCache(), CPU)
    assert "not on cuda" in why_not_captured(model, DualCache(), torch.device("cuda:0"))
    assert "in training" in why_not_captured(model.train(), DualCache(), CPU)
    model.eval()
    add_hook_to_module(model.model.language_model.layers[1].mlp, ModelHook())
    assert "hooks" in why_not_captured(model, DualCache(), CPU)
    watched = tiny_model()
    watched.lm_head.register_forward_hook(lambda *args: None)
    assert "hooks" in why_not_captured(watched, DualCache(), CPU)
    dynamic = tiny_model()
    dynamic.model.language_model.rotary_emb.rope_type = "dynamic"
    assert "'dynamic' looks at positions" in why_not_captured(dynamic, DualCache(), CPU)
    quantized = tiny_model()
    quantized.model.language_model.layers[2].mlp.up_proj.__class__ = type("Linear8bit", (torch.nn.Linear,), {})
    assert "Linear8bit may look at values" in why_not_captured(quantized, DualCache(), CPU)
    packed, layer = type("Int4Tensor", (torch.Tensor,), {}), quantized.model.language_model.layers[2].mlp
    layer.up_proj.__class__ = torch.nn.Linear
    layer.up_proj.weight = torch.nn.Parameter(layer.up_proj.weight.detach().as_subclass(packed))
    assert "quantized or split (it is of type Int4Tensor)" in why_not_captured(quantized, DualCache(), CPU)
    flex = tiny_model()
    flex.set_attn_implementation({"text_config": "flex_attention"})
    assert "flex_attention" in why_not_captured(flex, NoCache(), CPU)


def test_plans_that_differ_in_values_only_share_a_graph(recordings):
    def plan(value: int, count: int = 2, repeats: bool = True) -> TokenPlan:
        tokens = ComputedTokens(torch.full((count,), value), torch.full((count,), value), (count,), torch.arange(count))
        return TokenPlan(1, None, repeats, groups=(tokens,))

    graphs, seen = StepGraphs(CPU), []

    def work(given):
        seen.append(given.groups[0].indices.clone())
        return given.groups[0].indices * 2.0

    results = [graphs.run(plan(value), work).clone() for value in (1, 2, 3, 4)]
    assert [result[0].item() for result in results] == [2, 4, 6, 8] and len(graphs.graphs) == 1
    for other in (plan(5, 3), plan(6, 2, repeats=False)):
        assert torch.equal(graphs.run(other, work), other.groups[0].indices * 2.0)
    graphs.run(plan(6, 2, repeats=False), work)
    assert len(graphs.graphs) == 1
    graphs.close()
    assert not graphs.graphs and all(recording.closed for recording in recordings)


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu_model() -> VidLaDAForConditionalGeneration:
    return tiny_model(text_config={"hidden_size": 64, "num_attention_heads": 4}).to(CUDA, torch.bfloat16)


def on_gpu(inputs: dict) -> dict:
    moved = {name: value.to(CUDA) for name, value in inputs.items()}
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in moved.items()}


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "config", "way"), in_every_way(STRATEGIES))
def test_captured_is_eager(gpu_model, name, config, way):
    settings = {"cache_strategy": name, "cache_config": config, "block_length": 6, **WAYS[way]}
    for equal in (True, False):
        inputs = on_gpu(prompts(gpu_model, 3, equal))
        expected = answers(gpu_model, inputs, cuda_graphs=False, **settings)
        assert torch.equal(answers(gpu_model, inputs, **settings), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 8, 32])
@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_captured_is_eager_in_any_batch(gpu_model, name, size):
    inputs = on_gpu(prompts(gpu_model, size))
    for ends in ([], list(range(3, 20))):
        settings = {"eos_token_id": ends, "max_new_tokens": 24, "block_length": 8, "cache_strategy": name}
        assert torch.equal(
            answers(gpu_model, inputs, **settings), answers(gpu_model, inputs, cuda_graphs=False, **settings)
        )


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(("name", "config"), STRATEGIES)
def test_no_step_waits_for_the_device(gpu_model, monkeypatch, name, config, graphs):
    """From the first step's logits to the last commit; with the quota rule and no stops."""
    original, steps = gpu_model._block_logits, []

    def strict(run, step, step_graphs):
        torch.cuda.set_sync_debug_mode("error")  # from here on, to the end of the loop
        steps.append(step)
        if len(steps) == 24:
            torch.cuda.set_sync_debug_mode("default")
        return original(run, step, step_graphs)

    inputs = on_gpu(prompts(gpu_model, 2, equal=True))
    monkeypatch.setattr(gpu_model, "_block_logits", strict)
    settings = {"eos_token_id": [], "max_new_tokens": 24, "block_length": 8, "cache_strategy": name}
    try:
        answers(gpu_model, inputs, cache_config=config, cuda_graphs=graphs, **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 24


@pytest.mark.gpu
def test_memory_does_not_grow(gpu_model):
    inputs, settings = on_gpu(prompts(gpu_model, 2)), {"cache_strategy": "mars", "max_new_tokens": 16}
    answers(gpu_model, inputs, **settings)
    torch.cuda.synchronize()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(50):
        answers(gpu_model, inputs, **settings)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before and torch.cuda.memory_reserved() <= reserved + 2**22


@pytest.mark.gpu
def test_an_interrupt_in_a_captured_step_leaves_the_next_call_sound(gpu_model):
    inputs = on_gpu(prompts(gpu_model, 2))
    settings = {"cache_strategy": "dual", "max_new_tokens": 16, "block_length": 16}
    expected = answers(gpu_model, inputs, **settings)

    def stop(output):
        if output.step.index == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers(gpu_model, inputs, step_callback=stop, **settings)
    assert torch.equal(answers(gpu_model, inputs, **settings), expected)


@pytest.mark.gpu
def test_threads_capture_beside_each_other(gpu_model):
    inputs = [on_gpu(prompts(gpu_model, size)) for size in (1, 2, 3, 2)]
    settings = {"cache_strategy": "mars", "cache_config": OFTEN, "max_new_tokens": 24, "block_length": 8}
    expected = [answers(gpu_model, each, **settings, cuda_graphs=False) for each in inputs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda each: answers(gpu_model, each, **settings), inputs * 3))
    assert all(torch.equal(a, b) for a, b in zip(found, expected * 3, strict=True))


class Looking(DualCache):
    """Says that it can be captured, and waits for the device."""

    captures = True

    def run(self, text_model, inputs_embeds, plan):
        assert inputs_embeds.sum().item() is not None
        return super().run(text_model, inputs_embeds, plan)


@pytest.mark.gpu
def test_a_capture_that_fails_turns_captures_off_and_harms_nothing(gpu_model, monkeypatch):
    """The last test of the file: the process captures no more behind it."""
    inputs, settings = on_gpu(prompts(gpu_model, 2)), {"max_new_tokens": 16, "block_length": 8}
    expected = answers(gpu_model, inputs, cache_strategy="dual", **settings)
    for strategy in (Looking(), "dual", "mars"):
        tokens = answers(gpu_model, inputs, cache_strategy=strategy, **settings)
        assert strategy == "mars" or torch.equal(tokens, expected)
    assert "a capture failed" in why_not_captured(gpu_model, DualCache(), torch.device("cuda:0"))
