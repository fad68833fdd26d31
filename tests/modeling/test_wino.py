"""Tokens that are taken back: the rule "wino" in `generate`, beside a plain loop that does the same."""

import pytest
import torch
from transformers import LogitsProcessorList
from transformers.generation import SuppressTokensLogitsProcessor

from vidlada_hf import FixedQuotaUnmasking, MARSCache, WINOUnmasking
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.cache_vidlada import DenoisingCache, NoCache
from vidlada_hf.modeling.generation_config_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

from ..tiny_models import MASK, PAD, VIDEO, batch, example, tiny_model

SETTINGS = {
    **{"unmasking": "wino", "unmask_draft_threshold": 0.25, "unmask_keep_threshold": 0.9},
    **{"max_new_tokens": 32, "block_length": 16, "suppress_tokens": [PAD, MASK], "return_dict_in_generate": True},
}
INFILLING = {"canvas": [MASK, 5, *[MASK] * 13, 7, *[MASK] * 8, 9, *[MASK] * 5, 11, MASK], "suffix": [7, 8]}
# Tokens that this model often writes, so that answers end early, and ends are taken back.
ENDS = {"eos_token_id": list(range(3, 10))}


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    """One that is less sure than others, so that there is something to doubt."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    return model


def taken_back(output) -> int:
    return sum(int(step.taken_back.sum()) for step in output.trace)


# --- the algorithm ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(model, prompt, canvas, suffix, block, shared, scale):
    """Probabilities of a block's tokens, and of its shadow's, under one mask for all tokens."""
    embed, size = model.get_input_embeddings(), len(block)
    length = prompt.shape[1] + len(canvas) + len(suffix)
    begin = prompt.shape[1] + block.start
    sees = torch.zeros(length + size, length + size, dtype=torch.bool)
    sees[:, :length] = True
    sees[:shared, shared:] = False
    for i in range(size):
        sees[length + i, begin + i] = False
        sees[length + i, length + i] = True
    branches = []
    for first in (prompt, embed(torch.full(prompt.shape[:2], MASK))):
        tokens = torch.tensor([*canvas, *suffix, *[MASK] * size])[None]
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([first, embed(tokens)], dim=1),
            attention_mask=sees[None, None],
            position_ids=torch.tensor([*range(length), *range(begin, begin + size)])[None],
        ).last_hidden_state[0]
        branches.append(model.lm_head(torch.cat([hidden[begin : begin + size], hidden[length:]])).double())
    logits = branches[0] if not scale else branches[1] + (scale + 1) * (branches[0] - branches[1])
    logits[:, [PAD, MASK]] = -torch.inf
    return logits.softmax(-1).chunk(2)


def plain_wino(model, inputs, canvas=(MASK,) * 32, suffix=(), steps=16, ends=(), shared=0, scale=0.0):
    """The canvas of one example after each step. Blocks of 16, 0.25 commits and 0.9 keeps."""
    prompt = model.model.merge_features(**inputs).detach()
    canvas, given, canvases = list(canvas), [token != MASK for token in canvas], []
    for block in (range(16), range(16, 32)):
        masks = sum(canvas[i] == MASK for i in block)
        for step in range(steps):
            stop = next((i for i, token in enumerate(canvas) if token in ends), len(canvas))
            masked = [i for i in block if canvas[i] == MASK]
            if not any(i < stop for i in masked):
                break
            own, shadow = predict(model, prompt, canvas, suffix, block, shared, scale)
            best, tokens = own.max(-1)
            quota = masks // steps + (step < masks % steps)
            masked.sort(key=lambda i: -best[i - block.start])
            chosen = [i for n, i in enumerate(masked) if n < quota or best[i - block.start] >= 0.25]
            standing = [i for i in block if canvas[i] != MASK and not given[i] and i <= stop]
            doubts = sorted((float(shadow[i - block.start, canvas[i]]), i) for i in standing)
            if step < steps - 1:
                for doubt, i in doubts[: max(0, len(chosen) - quota)]:
                    canvas[i] = MASK if doubt < 0.9 else canvas[i]
            for i in masked if step == steps - 1 else chosen:
                canvas[i] = int(tokens[i - block.start])
            canvases.append(list(canvas))
    return canvases


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, {}),
        ({"cfg_scale": 0.7}, {"scale": 0.7}),
        ({"max_denoising_steps": 12}, {"steps": 6}),
        (INFILLING, INFILLING),
        (ENDS, {"ends": ENDS["eos_token_id"]}),
    ],
    ids=["plain", "guidance", "few steps", "infilling and suffix", "ends"],
)
def test_every_step_is_that_of_a_plain_loop(model, settings, plain):
    taken = 0
    for seed in (1, 2, 3):
        inputs = example(model, 2, seed=seed)
        output = model.generate(**inputs, **SETTINGS | settings)
        assert [step.canvas[0].tolist() for step in output.trace] == plain_wino(model, inputs, **plain)
        taken += taken_back(output)
    assert taken > 0


def test_of_a_shared_video_too(model):
    inputs = example(model, 3)
    shared = int((inputs["input_ids"] == VIDEO).nonzero()[-1, 1]) + 1
    output = model.generate(**inputs, share_video=True, **SETTINGS)
    assert [step.canvas[0].tolist() for step in output.trace] == plain_wino(model, inputs, shared=shared)
    assert taken_back(output) > 0


# --- each example its own result -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"cfg_scale": 0.7}, {"max_denoising_steps": 12}, INFILLING, ENDS, ENDS | {"share_video": True}],
    ids=["plain", "guidance", "few steps", "infilling and suffix", "ends", "shared video"],
)
def test_a_padded_batch_gives_each_example_its_own_answer(model, settings, attention):
    examples = [example(model, 2), example(model, 1, after=9, seed=2), example(model, 0, before=6, seed=3)]
    if "share_video" in settings:
        more = torch.cat([examples[0]["input_ids"], torch.tensor([[7, 8, 9]])], dim=1)
        examples = [examples[0], {**examples[0], "input_ids": more}]
    begin = max(one["input_ids"].shape[1] for one in examples)
    model.set_attn_implementation({"text_config": attention})
    try:
        together = model.generate(**batch(*examples), **SETTINGS | settings)
        alone = [model.generate(**one, **SETTINGS | settings) for one in examples]
    finally:
        model.set_attn_implementation({"text_config": "sdpa"})
    assert taken_back(together) == sum(map(taken_back, alone)) > 0
    for row, one, rate, other in zip(together.sequences, examples, together.tokens_per_forward, alone, strict=True):
        answer = other.sequences[0, one["input_ids"].shape[1] :].tolist()
        assert row[begin : begin + len(answer)].tolist() == answer and rate == other.tokens_per_forward[0]


def test_a_processor_counts_for_the_shadow_too(model):
    inputs, banned = example(model, 2), list(range(20, 40))
    processors = LogitsProcessorList([SuppressTokensLogitsProcessor(banned, device="cpu")])
    processed = model.generate(**inputs, **SETTINGS, logits_processor=processors)
    suppressed = model.generate(**inputs, **SETTINGS | {"suppress_tokens": [PAD, MASK, *banned]})
    assert [step.canvas.tolist() for step in processed.trace] == [step.canvas.tolist() for step in suppressed.trace]
    assert taken_back(processed) > 0


# --- what is promised ------------------------------------------------------------------------------------------------

DOUBTFUL = {"unmask_keep_threshold": 1.0}  # takes back all that it may


@pytest.mark.parametrize("steps", [32, 16, 12, 4])
def test_a_block_is_done_in_its_steps_however_much_is_doubted(model, steps):
    inputs = batch(example(model, 2), example(model, 1, seed=2))
    output = model.generate(**inputs, **SETTINGS | DOUBTFUL | {"max_denoising_steps": steps})
    assert (output.sequences[:, -32:] != MASK).all() and (taken_back(output) > 0 or steps < 32)
    last = {step.step.block: step.step.step_in_block for step in output.trace}
    assert all(number < steps // 2 for number in last.values())
    quota = 16 // (steps // 2)
    before = torch.full((2, 32), MASK)
    for step in output.trace:
        masks = (before[:, 16 * step.step.block :][:, :16] == MASK).sum(-1)
        assert (step.committed.sum(-1) - step.taken_back.sum(-1) >= masks.clamp(max=quota)).all()
        before = step.canvas


def test_given_tokens_are_never_taken_back(model):
    inputs = example(model, 2)
    output = model.generate(**inputs, **SETTINGS | DOUBTFUL | {"canvas": INFILLING["canvas"]})
    assert taken_back(output) > 0
    for column, token in enumerate(INFILLING["canvas"]):
        if token != MASK:
            assert all(step.canvas[0, column] == token for step in output.trace)
            assert not any(step.taken_back[0, column % 16] for step in output.trace if step.step.block == column // 16)


def test_an_end_that_is_taken_back_ends_nothing(model):
    inputs, reopened = example(model, 2, seed=8), 0
    output = model.generate(**inputs, **SETTINGS | ENDS)
    before = torch.full((32,), MASK)
    for step in output.trace:
        block = before[16 * step.step.block :][:16]
        ended = torch.isin(block, torch.tensor(ENDS["eos_token_id"]))
        reopened += bool((ended & step.taken_back[0]).any())
        before = step.canvas[0]
    assert reopened > 0
    answer = output.sequences[0, inputs["input_ids"].shape[1] :]
    assert answer.tolist() == before[: len(answer)].tolist()
    assert len(answer) == 32 or before[len(answer)].item() in ENDS["eos_token_id"]
    assert len(answer) <= output.tokens_per_forward.item() * len(output.trace) <= (before != MASK).sum()


def test_what_is_told_of_the_steps_is_what_stands(model):
    class Recorder:
        blocks, drafts = [], []

        def put(self, value):
            self.blocks.append(value)

        def put_draft(self, value):
            self.drafts.append(value)

        def end(self):
            pass

    inputs, streamer = example(model, 2), Recorder()
    output = model.generate(**inputs, **SETTINGS, streamer=streamer)
    answer, canvas = output.sequences[:, inputs["input_ids"].shape[1] :], torch.full((1, 32), MASK)
    for step, draft in zip(output.trace, streamer.drafts, strict=True):
        block = canvas[:, 16 * step.step.block :][:, :16]
        assert not (step.taken_back & (step.committed | (block == MASK))).any()
        block[step.taken_back] = MASK
        block[step.committed] = step.tokens[step.committed]
        assert torch.equal(step.canvas, canvas) and torch.equal(draft, canvas[:, 16 * step.step.block :])
    assert torch.equal(canvas, answer) and torch.equal(torch.cat(streamer.blocks[1:], dim=1), answer)
    assert output.tokens_per_forward.tolist() == pytest.approx([32 / len(output.trace)])


# --- with what it goes -----------------------------------------------------------------------------------------------

REFUSED = r"WINOUnmasking \(`unmasking`\) looks at committed tokens again, which .* take `cache_strategy='none'`, or an"


class NoShadow(NoCache):
    """Of a user, who has not said that it computes a shadow."""


@pytest.mark.parametrize(
    "cache",
    [*sorted(set(CACHE_STRATEGIES) - {"none"}), MARSCache(), NoShadow()],
    ids=lambda cache: cache if isinstance(cache, str) else type(cache).__name__,
)
@pytest.mark.parametrize("rule", ["wino", WINOUnmasking()], ids=["name", "object"])
def test_a_strategy_without_a_shadow_is_refused_before_any_work(model, monkeypatch, cache, rule):
    monkeypatch.setattr(model.model, "merge_features", None)
    with pytest.raises(ValueError, match=REFUSED):
        model.generate(**example(model, 1), cache_strategy=cache, unmasking=rule)


def test_settings_that_do_not_go_together_are_refused(model):
    with pytest.raises(ValueError, match=REFUSED):
        VidLaDAGenerationConfig(unmasking="wino", cache_strategy="mars")
    with pytest.raises(ValueError, match="WINOUnmasking compares probabilities, and `remasking='random'`"):
        model.generate(**example(model, 1), unmasking="wino", remasking="random")
    for name in ("unmask_draft_threshold", "unmask_keep_threshold"):
        with pytest.raises(ValueError, match=f"`{name}` is a probability, of at most 1, got 1.5"):
            VidLaDAGenerationConfig(unmasking="wino", **{name: 1.5})


def test_a_stored_name_is_no_hindrance_where_another_is_given():
    inputs, small = example(tiny_model(), 1), {"max_new_tokens": 4}
    wino, mars = tiny_model(), tiny_model()
    wino.generation_config.update(unmasking="wino")
    mars.generation_config.update(cache_strategy="mars", cache_config={"anchors": 2})
    for rule in ("quota", FixedQuotaUnmasking()):
        wino.generate(**inputs, **small, cache_strategy="mars", unmasking=rule)
        wino.generate(**inputs, **small, cache_strategy=NoShadow(), unmasking=rule)
    for cache in ("none", NoCache()):
        mars.generate(**inputs, **small, unmasking="wino", cache_strategy=cache)
    with pytest.raises(ValueError, match=REFUSED):
        wino.generate(**inputs, **small, cache_strategy="mars")
    with pytest.raises(ValueError, match=REFUSED):
        mars.generate(**inputs, **small, unmasking="wino")
    assert wino.score_choices(**inputs, choices=[[5], [6, 7]], end_token_id=2, num_draws=2, cache_strategy="mars").all()


def test_a_strategy_of_ones_own_may_say_that_it_computes_a_shadow(model):
    class Whole(DenoisingCache):
        """One example, under one mask for all tokens."""

        computes_shadow = True

        def denoise(self, text_model, inputs_embeds, step):
            positions, length = self.layout.position_ids, self.layout.position_ids.shape[1]
            sees, block = torch.ones(1, 1, *[inputs_embeds.shape[1]] * 2, dtype=torch.bool), step.span
            if step.shadow:
                positions = torch.cat([positions, positions[:, block]], dim=1)
                sees[..., length:] = torch.eye(inputs_embeds.shape[1], dtype=torch.bool)[:, length:]
                sees[..., length:, block] = ~torch.eye(block.stop - block.start, dtype=torch.bool)
            states = text_model(inputs_embeds=inputs_embeds, attention_mask=sees, position_ids=positions)
            states = states.last_hidden_state
            return torch.cat([states[:, block], states[:, length:]], dim=1)

    inputs = example(model, 2)
    own, named = (model.generate(**inputs, **SETTINGS, cache_strategy=cache) for cache in (Whole(), "none"))
    assert torch.equal(own.sequences, named.sequences) and len(own.trace) == len(named.trace)


def test_the_bounds_are_stored_with_the_model(tmp_path):
    model = tiny_model()
    model.generation_config = VidLaDAGenerationConfig(
        unmasking="wino", unmask_draft_threshold=0.5, unmask_keep_threshold=0.8
    )
    model.save_pretrained(tmp_path)
    stored = VidLaDAForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert (stored.unmasking, stored.unmask_draft_threshold, stored.unmask_keep_threshold) == ("wino", 0.5, 0.8)
