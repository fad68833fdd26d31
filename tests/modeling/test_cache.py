import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutput

from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES, resolve_cache_strategy
from vidlada_hf.modeling.cache_vidlada import DenoisingCache, DenoisingStep, NoCache, SequenceLayout
from vidlada_hf.modeling.dllm_cache_vidlada import DLLMCache
from vidlada_hf.modeling.generation_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.kv_cache_vidlada import DualCache, PrefixCache, SelectiveKVCache
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

from ..tiny_models import batch, example, tiny_model
from .layouts import (
    Case,
    Prompt,
    assert_each_gets_what_it_gets_alone,
    assert_same,
    cases,
    plain_case,
    run,
    simulate,
    text_model,
)
from .ways import OFTEN, WAYS, in_every_way

few = settings(max_examples=15, deadline=None)


def layout(tokens: int, canvas: slice) -> SequenceLayout:
    return SequenceLayout(torch.arange(tokens)[None], None, torch.full((1, tokens), -1), canvas)


@torch.no_grad()
def test_none_is_the_whole_model():
    model = tiny_model()
    inputs = example(model, 2)
    embeddings = model.model.merge_features(**inputs)
    span = slice(embeddings.shape[1] - 3, embeddings.shape[1])
    cache = NoCache()
    cache.begin(layout(embeddings.shape[1], span))
    hidden_states = cache.denoise(model.model.language_model, embeddings, DenoisingStep(0, 0, 0, span))
    torch.testing.assert_close(model.lm_head(hidden_states), model(**inputs).logits[:, -3:])


def test_none_leaves_finished_examples_alone():
    """Else the longest answer of a batch would be paid for by all."""
    seen, embeddings = [], torch.rand(3, 5, 2)

    def text_model(inputs_embeds, **_):
        seen.append(inputs_embeds)
        return BaseModelOutput(last_hidden_state=inputs_embeds)

    cache = NoCache()
    cache.begin(layout(5, slice(2, 5)).repeat(3))
    hidden_states = cache.denoise(text_model, embeddings, DenoisingStep(0, 0, 0, slice(3, 5), (True, False, True)))
    assert torch.equal(seen[0], embeddings[[0, 2]])
    assert torch.equal(hidden_states[[0, 2]], embeddings[[0, 2], 3:]) and not hidden_states[1].any()


@torch.no_grad()
def test_layers_and_tokens_can_be_run_piece_by_piece():
    """What a strategy builds on: depth by depth, and tokens against keys that it kept."""
    model = tiny_model()
    text = model.model.language_model
    embeddings = model.model.merge_features(**example(model, 2))
    expected = text(inputs_embeds=embeddings).last_hidden_state

    class Keep(DenoisingCache):
        """Stores all keys and values in the first pass; the second computes few tokens against them."""

        def __init__(self) -> None:
            self.keys, self.values = {}, {}

        def denoise(self, text_model, inputs_embeds, step):
            raise NotImplementedError

        def attend(self, attention, query, key, value, attention_mask, **kwargs):
            if attention.layer_idx not in self.keys:
                self.keys[attention.layer_idx], self.values[attention.layer_idx] = key, value
            stored = self.keys[attention.layer_idx], self.values[attention.layer_idx]
            return attention.attend(query, *stored, attention_mask, **kwargs)[0]

    cache = Keep()
    half = text(inputs_embeds=embeddings, layers=range(0, 2), denoising_cache=cache).last_hidden_state
    whole = text(inputs_embeds=half, layers=range(2, 4), denoising_cache=cache).last_hidden_state
    torch.testing.assert_close(whole, expected)
    positions = torch.tensor([[4, 9, 2]])
    few = text(
        inputs_embeds=embeddings[:, positions[0]], position_ids=positions, denoising_cache=cache
    ).last_hidden_state
    torch.testing.assert_close(few, expected[:, positions[0]], atol=1e-5, rtol=1e-5)


def test_generate_hands_over_the_layout():
    model = tiny_model()
    seen = []

    class Look(NoCache):
        def begin(self, layout):
            seen.append(layout)
            super().begin(layout)

    inputs = batch(example(model, 2, before=3, after=4), example(model, 1, before=1, after=2, seed=2))
    model.generate(**inputs, max_new_tokens=4, suffix=[5, 6], cache_strategy=Look())
    model.generate(**inputs, max_new_tokens=4, suffix=[5, 6], cfg_scale=1.0, cache_strategy=Look())
    plain, guided = seen
    prompt, tokens = inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] + 6
    assert plain.canvas == slice(prompt, prompt + 4)
    assert plain.position_ids.shape == plain.attention_mask.shape == plain.frame_index.shape == (2, tokens)
    padding = int((inputs["attention_mask"][1] == 0).sum())
    assert plain.attention_mask[1].tolist() == [False] * padding + [True] * (tokens - padding)
    assert plain.position_ids[1, padding:].tolist() == list(range(tokens - padding))
    assert plain.frame_index[0].tolist() == [-1] * 3 + [0] * 6 + [1] * 6 + [-1] * 10
    assert torch.equal(guided.frame_index, plain.frame_index.repeat(2, 1))


def test_one_object_serves_one_call_at_a_time():
    cache = NoCache()
    cache.begin(layout(2, slice(1, 2)))
    with pytest.raises(RuntimeError, match="already serves a running `generate`"):
        cache.begin(layout(2, slice(1, 2)))
    cache.end()
    cache.begin(layout(2, slice(1, 2)))


# --- the plain strategies --------------------------------------------------------------------------------------------

EXACT = {
    "tokens": SelectiveKVCache,
    "prefix": lambda: PrefixCache(refresh_interval=1),
    "dual": lambda: DualCache(refresh_interval=1),
    "interval": lambda: DLLMCache(1, 1),
    "interval, all tokens picked": lambda: DLLMCache(1, None, transfer_ratio=1),
}
PLAIN = {
    "prefix": PrefixCache,
    "prefix, refreshed": lambda: PrefixCache(refresh_interval=2),
    "dual": DualCache,
    "dual, refreshed": lambda: DualCache(refresh_interval=3),
    "interval": lambda: DLLMCache(5, 3, transfer_ratio=0.4),
    "interval, prompt more often": lambda: DLLMCache(2, 3),
    "interval, none picked": lambda: DLLMCache(4, 2, transfer_ratio=0),
}


@pytest.mark.parametrize("name", EXACT)
@few
@given(case=cases())
def test_a_refresh_every_step_is_exact(name, case):
    assert_same(run(EXACT[name](), case), run(NoCache(), case), case)


@pytest.mark.parametrize("name", ["none", *PLAIN])
@few
@given(case=cases())
def test_each_example_of_a_batch_gets_what_it_gets_alone(name, case):
    assert_each_gets_what_it_gets_alone(PLAIN.get(name, NoCache), case)


@pytest.mark.parametrize("interval", [None, 2])
@pytest.mark.parametrize("strategy", [PrefixCache, DualCache])
@few
@given(case=cases(batch=1, inactive=False))
def test_between_refreshes_tokens_are_recomputed_against_stale_keys(strategy, interval, case):
    columns = case.layout().frame_index.shape[1]

    def recomputed(step: DenoisingStep) -> torch.Tensor:
        tokens = torch.zeros(4, columns, dtype=torch.bool)
        stop = step.span.stop if strategy is DualCache else columns
        tokens[:, step.span.start : stop] = True
        if step.step_in_block == 0 or (interval and step.step_in_block % interval == 0):
            tokens[:] = True
        return tokens

    assert_same(run(strategy(interval), case), simulate(case, recomputed), case)


def test_stale_keys_make_a_difference():
    """Without it the tests above would show nothing."""
    case = plain_case()
    exact = run(NoCache(), case)
    for build in PLAIN.values():
        assert max((a - b).abs().max() for a, b in zip(run(build(), case), exact, strict=True)) > 0.01


@torch.no_grad()
def dllm_cache(case: Case, prompt_interval: int, answer_interval: int, ratio: float) -> list[torch.Tensor]:
    """dLLM-Cache as its authors describe it, for one example: four caches a layer, attention's and the MLP's apart."""
    model, layout, results, kept = text_model(), case.layout(), [], {}
    begin = layout.canvas.start
    for index, step in enumerate(case.steps()):
        hidden = case.embeddings(step)
        cos, sin = model.rotary_emb(hidden, layout.position_ids)
        for i, layer in enumerate(model.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            due = torch.zeros(hidden.shape[1], dtype=torch.bool)
            due[:begin] = index % prompt_interval == 0
            due[begin:] = index % answer_interval == 0
            value = attention.v_proj(normed)
            if i not in kept:
                kept[i] = [torch.zeros_like(value) for _ in range(4)]
            keys, values, attended, fed = kept[i]
            if not due[begin]:
                similarity = torch.cosine_similarity(value[0, begin:], values[0, begin:], dim=-1)
                order = (similarity * 2**14).round().argsort(stable=True)
                due[begin + order[: int(ratio * len(similarity))]] = True
                values[:, begin:] = value[:, begin:] if ratio else values[:, begin:]
            heads = (1, -1, 4, 8)
            query, key = attention.q_proj(normed).view(heads), attention.k_proj(normed).view(heads)
            rotate = torch.cat([-key[..., 4:], key[..., :4]], -1), torch.cat([-query[..., 4:], query[..., :4]], -1)
            key = (key * cos[:, :, None] + rotate[0] * sin[:, :, None]).flatten(2)
            query = query * cos[:, :, None] + rotate[1] * sin[:, :, None]
            keys[:, due], values[:, due] = key[:, due], value[:, due]
            scores = torch.einsum("bqhd,bkhd->bhqk", query, keys.view(heads)) * 8**-0.5
            result = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values.view(heads)).flatten(2)
            attended[:, due] = attention.o_proj(result)[:, due]
            between = hidden + attended
            fed[:, due] = layer.mlp(layer.post_attention_layernorm(between))[:, due]
            hidden = between + fed
        results.append(model.norm(hidden[:, step.span]))
    return results


@few
@given(
    case=cases(batch=1, inactive=False),
    intervals=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    ratio=st.sampled_from([0, 0.25, 0.5, 1]),
)
@example_of(
    Case((Prompt(0, (), 1),), 1, (((True,), (True,)), ((True,), (True,))), 0), (2, 3), 0.25
)  # of 2 tokens: none
def test_interval_is_dllm_cache(case, intervals, ratio):
    assert_same(run(DLLMCache(*intervals, ratio), case), dllm_cache(case, *intervals, ratio), case)


def test_schedules_are_known_without_running():
    steps = VidLaDAGenerationConfig(max_new_tokens=8, block_length=4).planned_steps()
    assert [(s.index, s.block, s.step_in_block, s.span.start) for s in steps][3:5] == [(3, 0, 3, 0), (4, 1, 0, 4)]
    assert NoCache().schedule(steps)["visual"].all()
    assert DualCache(3).schedule(steps)["text"][:, 0].tolist() == [True, False, False, True] * 2
    assert PrefixCache().schedule(steps)["visual"][:, 0].tolist() == [True, False, False, False] * 2
    planned = DLLMCache(4, 3).schedule(steps)
    assert planned["prompt"][:, 0].nonzero()[:, 0].tolist() == [0, 4]
    assert planned["answer"][:, 0].nonzero()[:, 0].tolist() == [0, 3, 6]


def test_a_strategy_that_forgets_the_block_is_named():
    class Forgets(SelectiveKVCache):
        def recompute_span(self, step):
            return slice(0, step.span.start)

    case = plain_case()
    with pytest.raises(ValueError, match="must recompute the block's positions 17 to 19"):
        strategy = Forgets()
        strategy.begin(case.layout())
        for step in case.steps():
            strategy.denoise(text_model(), case.embeddings(step), step)


def test_what_was_stored_is_freed_and_forgotten():
    strategy, case = DualCache(), plain_case()
    first = run(strategy, case)
    assert not strategy.keys and not strategy.values and strategy.layout is None
    assert all(torch.equal(a, b) for a, b in zip(first, run(strategy, case), strict=True))


# --- names and settings ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


def answers(model, inputs, **arguments) -> torch.Tensor:
    """What `generate` put behind the prompts."""
    arguments = {"max_new_tokens": 12, "block_length": 4} | arguments
    return model.generate(**inputs, **arguments)[:, inputs["input_ids"].shape[1] :]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'none', 'mars', 'prefix', 'dual', 'interval'"):
        resolve_cache_strategy("nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_strategy": "dual", "cache_config": {"refresh_intervall": 2}}, "Did you mean `refresh_interval`"),
        (
            {"cache_strategy": "mars", "cache_config": {"anchor": 2}},
            "Unknown setting .* `anchor`. Did you mean `anchors`",
        ),
        ({"cache_strategy": "none", "cache_config": {"anchors": 2}}, "of 'none': `anchors`. Known are: none"),
        ({"cache_strategy": "dual", "cache_config": [2]}, "`cache_config` must be a dict of settings, got list"),
        ({"cache_strategy": DualCache(), "cache_config": {"refresh_interval": 2}}, "give the settings to your object"),
        ({"cache_strategy": "dual", "cache_config": {"refresh_interval": 0}}, "`refresh_interval` must be .* got 0"),
        ({"cache_strategy": "interval", "cache_config": {"transfer_ratio": 2}}, "`transfer_ratio` must lie between"),
        ({"cache_strategy": "interval", "cache_config": {"prompt_interval": "often"}}, "`prompt_interval` must be"),
    ],
)
def test_bad_settings_are_refused_by_name_before_any_work(model, arguments, message):
    encoded = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: encoded.append(1))
    try:
        with pytest.raises(ValueError, match=message):
            answers(model, example(model, 2), **arguments)
    finally:
        hook.remove()
    assert not encoded


def test_settings_are_stored_and_restored(tmp_path):
    model, inputs = tiny_model(), example(tiny_model(), 4)
    expected = answers(model, inputs, cache_strategy=DualCache(refresh_interval=2))
    stored = VidLaDAGenerationConfig(
        cache_strategy="dual", cache_config={"refresh_interval": 2}, max_new_tokens=12, block_length=4
    )
    model.generation_config = stored
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["cache_config"] == {"refresh_interval": 2}
    loaded = VidLaDAForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(answers(loaded, inputs), expected)
    assert torch.equal(
        answers(tiny_model(), inputs, cache_strategy="dual", cache_config={"refresh_interval": 2}), expected
    )
    # A stored setting belongs to the stored name.
    assert torch.equal(answers(loaded, inputs, cache_strategy="none"), answers(tiny_model(), inputs))
    assert torch.equal(
        answers(loaded, inputs, cache_strategy=PrefixCache()), answers(tiny_model(), inputs, cache_strategy="prefix")
    )


def test_a_busy_object_is_refused_before_any_work(model):
    strategy, encoded = DualCache(), []

    def ask_again(step):
        hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: encoded.append(1))
        try:
            with pytest.raises(RuntimeError, match="This DualCache already serves a running `generate`"):
                answers(model, example(model, 1), cache_strategy=strategy)
        finally:
            hook.remove()

    inputs = example(model, 2)
    expected = answers(model, inputs, cache_strategy="dual")
    assert torch.equal(answers(model, inputs, cache_strategy=strategy, step_callback=ask_again), expected)
    assert not encoded


def test_one_that_could_not_begin_may_be_used_again(model):
    class Unlucky(DualCache):
        luck = False

        def begin(self, layout):
            super().begin(layout)
            if not self.luck:
                raise OSError("no luck")

    strategy, inputs = Unlucky(), example(model, 1)
    with pytest.raises(OSError, match="no luck"):
        answers(model, inputs, cache_strategy=strategy)
    strategy.luck = True
    assert torch.equal(answers(model, inputs, cache_strategy=strategy), answers(model, inputs, cache_strategy="dual"))


def test_an_object_is_used_whatever_it_is_worth_and_a_class_is_refused(model):
    class Empty(DualCache):
        begun = False

        def __len__(self):
            return 0

        def begin(self, layout):
            super().begin(layout)
            self.begun = True

    strategy = Empty()
    answers(model, example(model, 1), cache_strategy=strategy)
    assert strategy.begun
    with pytest.raises(ValueError, match="or an object of a subclass of DenoisingCache, got the class Empty"):
        answers(model, example(model, 1), cache_strategy=Empty)


# --- the strategies that the documentation writes ---------------------------------------------------------------------


def documented_strategies() -> list[str]:
    """The Python blocks under "Your own strategy", without the call that shows them."""
    text = (Path(__file__).parents[2] / "docs" / "caches.md").read_text(encoding="utf-8")
    section = text.split("## Your own strategy\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert blocks and all(len(block.splitlines()) <= 30 for block in blocks)
    return [block.split("print(model.generate")[0] for block in blocks]


def test_the_documented_strategies_are_exact_where_they_refresh(model):
    inputs, names = batch(example(model, 4), example(model, 1, after=7, seed=2)), {}
    for block in documented_strategies():
        exec(block, names)
    window, upper_half = names["WindowCache"], names["UpperHalfCache"]
    exact = answers(model, inputs, block_length=1)
    for strategy in (window(), upper_half()):
        assert torch.equal(answers(model, inputs, block_length=1, cache_strategy=strategy), exact)
        assert not torch.equal(answers(model, inputs, cache_strategy=strategy), answers(model, inputs))
    everything = answers(model, inputs, block_length=4, cache_strategy=window(margin=99))
    assert torch.equal(everything, answers(model, inputs, block_length=4))


# --- with everything that `generate` can do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "way"), in_every_way([*((name, None) for name in CACHE_STRATEGIES), ("mars", OFTEN)])
)
def test_every_strategy_serves_a_batch_in_every_way(model, name, config, way):
    settings = {"cache_strategy": name, "cache_config": config, **WAYS[way]}
    examples = [example(model, 4, before=2), example(model, 1, after=9, seed=2), example(model, 0, before=6, seed=3)]
    together = answers(model, batch(*examples), **settings)
    for row, one in zip(together, examples, strict=True):
        alone = answers(model, one, **settings)[0]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert (row[len(alone) :] == 0).all()


@pytest.mark.parametrize(
    ("name", "every_step"),
    [
        ("prefix", {"refresh_interval": 1}),
        ("dual", {"refresh_interval": 1}),
        ("interval", {"prompt_interval": 1, "generation_interval": 1}),
        ("mars", {"visual_intervals": [1, 1], "text_intervals": [1, 1], "neighborhood": 3}),
    ],
)
def test_both_branches_of_guidance_have_their_own_cache(model, name, every_step):
    inputs = batch(example(model, 4), example(model, 1, after=7, seed=2))
    expected = answers(model, inputs, cfg_scale=0.7)
    assert torch.equal(answers(model, inputs, cfg_scale=0.7, cache_strategy=name, cache_config=every_step), expected)


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_every_strategy_runs_in_half_precision(name):
    model = tiny_model().to(torch.bfloat16)
    inputs = batch(example(model, 4), example(model, 1, after=7, seed=2))
    assert answers(model, inputs, cache_strategy=name).shape == (2, 12)


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_every_strategy_streams(model, name):
    class Recorder:
        def __init__(self):
            self.blocks, self.drafts = [], 0

        def put(self, value):
            self.blocks.append(value)

        def put_draft(self, value):
            self.drafts += 1

        def end(self):
            self.blocks = torch.cat(self.blocks[1:], dim=1)

    streamer, inputs = Recorder(), example(model, 3)
    answer = answers(model, inputs, cache_strategy=name, streamer=streamer)
    assert torch.equal(streamer.blocks, answer) and streamer.drafts == 12
