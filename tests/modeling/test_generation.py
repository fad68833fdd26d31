import json

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    TextDiffusionStreamer,
)
from transformers.generation import MaxTimeCriteria, SuppressTokensLogitsProcessor

from vidlada_hf.modeling.cache_vidlada import NoCache
from vidlada_hf.modeling.generation_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.modeling.unmasking_vidlada import UNMASKING_STRATEGIES, FixedQuotaUnmasking

from ..golden_model import (
    assert_recorded,
    case_names,
    find_case,
    golden_inputs,
    golden_model,
    golden_tokenizer,
)
from ..tiny_models import EOT, MASK, PAD, batch, example, tiny_model


def run_golden(golden, name: str, **changes):
    """Our output for a recorded case, called with the official argument names."""
    case = find_case(golden, "generate", name)
    model, inputs = golden_model(golden), golden_inputs(golden, case)
    arguments = {"eos_token_id": [], "tokenizer": golden_tokenizer(golden), "return_dict_in_generate": True}
    arguments |= case["params"] | changes
    if "torch_manual_seed" in case:
        arguments["generator"] = torch.Generator().manual_seed(case["torch_manual_seed"])
    mask_id = arguments.pop("mask_id", None)
    before = model.config.mask_token_id
    model.config.mask_token_id = before if mask_id is None else mask_id
    try:
        output = model.generate(**inputs, **arguments)
    finally:
        model.config.mask_token_id = before
    return case, output, output.sequences[0, inputs["input_ids"].shape[1] :].tolist()


# --- the same tokens as the official code ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", case_names("generate", strict=True))
def test_tokens_and_every_step_are_the_recorded_ones(golden, name):
    case, output, answer = run_golden(golden, name, official_stop_search=name.startswith("quirk_stop_list"))
    assert answer == case["output_ids"]
    recorded = [step for block in case["trace"] for step in block["steps"] if step["k"]]
    assert len(output.trace) == len(recorded)
    for step, official in zip(output.trace, recorded, strict=True):
        selected = sorted(official["selected"])
        assert step.committed[0].nonzero()[:, 0].tolist() == selected
        assert step.tokens[0][step.committed[0]].tolist() == [official["argmax_ids"][i] for i in selected]
        confidence = torch.tensor([float(c) for c in official["confidence"]], dtype=torch.float64)
        eligible = step.confidence[0].isfinite()
        torch.testing.assert_close(step.confidence[0][eligible].double(), confidence[eligible], rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", case_names("generate", strict=False))
def test_decoded_tokens_are_never_overwritten(golden, name):
    """No parity target: there the official code replaces tokens that it had decoded."""
    case, output, answer = run_golden(golden, name)
    overwritten = {column: before for column, before, _ in case["overwritten"]}
    expected = [overwritten.get(column, token) for column, token in enumerate(case["output_ids"])]
    assert answer == expected
    commits = torch.stack([step.committed for step in output.trace]).sum(0)
    assert commits.max() == 1


def test_all_stops_are_looked_for_whatever_their_order(golden):
    """The official code forgets all but the first; ours gives the earliest for both orders."""
    (case, _, first), (_, _, second) = (run_golden(golden, f"quirk_stop_list_order_{i}") for i in (1, 2))
    assert first == second
    assert not {id for stop in case["stop_token_ids"] for id in stop} & set(first)


def test_logits_of_the_first_step_are_the_recorded_ones(golden):
    case = find_case(golden, "generate", "cfg0.5_gen16_b16_s16")
    model, inputs, seen = golden_model(golden), golden_inputs(golden, case), []
    hook = model.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.clone()))
    model.generate(**inputs, **case["params"], eos_token_id=[])
    hook.remove()
    assert_recorded(seen[0], golden, "generate", f"{case['name']}.step0_lm_head_out", atol=2e-3)


# --- each example its own result -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


def answers(model, inputs, **arguments) -> torch.Tensor:
    """What `generate` put behind the prompts."""
    return model.generate(**inputs, **({"max_new_tokens": 12, "block_length": 4} | arguments))[
        :, inputs["input_ids"].shape[1] :
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"cfg_scale": 0.7},
        {"max_denoising_steps": 6},
        {"suffix": [7, 8]},
        {"canvas": [MASK, 5, MASK, MASK, 9, MASK, MASK, MASK, MASK, MASK, 11, MASK]},
        {"eos_token_id": list(range(3, 12))},
        {"max_new_tokens": 10, "block_length": 4, "allow_uneven": True, "max_denoising_steps": 7},
    ],
    ids=["plain", "guidance", "two a step", "suffix", "infilling", "stops", "uneven"],
)
def test_a_batch_gives_each_example_its_own_answer(model, arguments):
    examples = [example(model, 3, before=2), example(model, 1, after=9, seed=2), example(model, 0, before=6, seed=3)]
    together = answers(model, batch(*examples), **arguments)
    for row, one in zip(together, examples, strict=True):
        alone = answers(model, one, **arguments)[0]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert (row[len(alone) :] == PAD).all()


def test_a_batch_draws_what_each_example_draws_alone(model):
    examples = [example(model, 2), example(model, 1, seed=2)]
    noisy = {"temperature": 1.0, "remasking": "random"}

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = answers(model, batch(*examples), **noisy, generator=generators(1, 2))
    for i, one in enumerate(examples):
        assert together[i].tolist() == answers(model, one, **noisy, generator=generators(i + 1))[0].tolist()


def test_a_finished_example_stops_drawing(model):
    """Alone it leaves a block early; beside another it must not draw on."""
    canvas = torch.tensor([[MASK, 5, 5, 5, MASK, MASK, 5, 5], [MASK] * 8])
    examples = [example(model, 1), example(model, 1, seed=2)]
    noisy = {"temperature": 1.0, "block_length": 4, "max_new_tokens": 8}
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    together = answers(model, batch(*examples), **noisy, canvas=canvas, generator=generators)
    for i, one in enumerate(examples):
        alone = answers(model, one, **noisy, canvas=canvas[i], generator=[torch.Generator().manual_seed(i + 1)])
        assert together[i].tolist() == alone[0].tolist()


def test_a_seed_gives_each_example_of_a_batch_what_it_gives_it_alone(model):
    examples = [example(model, 2), example(model, 1, seed=2)]
    together = answers(model, batch(*examples), temperature=1.0, seed=3)
    for row, one in zip(together, examples, strict=True):
        assert row.tolist() == answers(model, one, temperature=1.0, seed=3)[0].tolist()


def test_a_seed_repeats_and_another_differs(model):
    inputs = example(model, 1)
    first = answers(model, inputs, temperature=1.0, seed=3)
    assert torch.equal(first, answers(model, inputs, temperature=1.0, seed=3))
    assert not torch.equal(first, answers(model, inputs, temperature=1.0, seed=4))


def test_features_computed_before_give_the_same_answer(model):
    inputs = batch(example(model, 3), example(model, 1, seed=2))
    expected = answers(model, inputs)
    features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"])
    assert torch.equal(answers(model, inputs, video_features=features), expected)


def test_the_video_is_encoded_once(model):
    calls = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    answers(model, example(model, 2))
    hook.remove()
    assert len(calls) == 1


def test_the_answer_depends_on_the_video(model):
    inputs = example(model, 2)
    expected = answers(model, inputs)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].flip(0)
    assert not torch.equal(answers(model, inputs), expected)


@pytest.mark.parametrize("unmasking", sorted(set(UNMASKING_STRATEGIES) - {"quota"}))
def test_adaptive_rules_finish_in_fewer_steps_and_each_example_alone(model, unmasking):
    settings = {
        "unmask_threshold": 0.3,
        "unmask_relaxed_threshold": 0.1,
        "unmask_factor": 3.0,
        "unmask_entropy_bound": 4.0,
        "unmask_stable_threshold": 0.1,
        "unmask_kl_bound": 1.0,
        "unmask_gap": 0.3,
        "unmask_draft_threshold": 0.3,
        "unmasking": unmasking,
    }
    settings["suppress_tokens"] = [PAD, MASK]
    examples = [example(model, 2), example(model, 1, after=7, seed=2)]
    output = model.generate(
        **batch(*examples), max_new_tokens=12, block_length=12, return_dict_in_generate=True, **settings
    )
    assert len(output.trace) < 12 and (output.tokens_per_forward > 1).all()
    together = output.sequences[:, -12:]
    assert (together != MASK).all()
    for row, one in zip(together, examples, strict=True):
        assert row.tolist() == answers(model, one, block_length=12, **settings)[0].tolist()


# --- the canvas ------------------------------------------------------------------------------------------------------


def test_given_tokens_stay_and_only_the_masks_are_filled(model):
    canvas = torch.tensor([[MASK, 40, MASK, MASK], [41, 42, 43, 44]])
    inputs = batch(example(model, 1), example(model, 1, seed=2))
    output = model.generate(**inputs, canvas=canvas, return_dict_in_generate=True)
    answer = output.sequences[:, inputs["input_ids"].shape[1] :]
    assert answer[0, 1] == 40 and answer[1].tolist() == [41, 42, 43, 44]
    assert (answer != MASK).all()
    assert len(output.trace) == 3 and output.tokens_per_forward.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("length", [1, 7, 32, 50])
def test_any_length_goes_without_a_block_length(model, length):
    output = model.generate(**example(model, 1), max_new_tokens=length, return_dict_in_generate=True)
    assert len(output.trace) == length and output.tokens_per_forward.tolist() == [1.0]


def test_what_a_users_own_rule_leaves_is_committed_in_the_last_step(model):
    class Never(FixedQuotaUnmasking):
        def select(self, confidence, eligible, quota, logits):
            return torch.zeros_like(eligible)

    output = model.generate(
        **example(model, 1), max_new_tokens=8, block_length=4, unmasking=Never(), return_dict_in_generate=True
    )
    assert output.trace[-1].committed.sum() == 4 and len(output.trace) == 8


def test_fewer_steps_commit_more_tokens_a_forward(model):
    inputs = example(model, 1)
    for steps, per_forward in ((12, 1.0), (6, 2.0), (3, 4.0)):
        output = model.generate(
            **inputs, max_new_tokens=12, block_length=4, max_denoising_steps=steps, return_dict_in_generate=True
        )
        assert len(output.trace) == steps
        assert output.tokens_per_forward.tolist() == [per_forward]


def test_a_block_is_finished_before_the_next_begins(model):
    output = model.generate(**example(model, 1), max_new_tokens=8, block_length=4, return_dict_in_generate=True)
    for step in output.trace:
        known = step.canvas[0] != MASK
        first, last = known[:4].sum(), known[4:].sum()
        assert last == 0 or first == 4


def test_suppressed_tokens_never_appear(model):
    inputs = example(model, 1)
    free = answers(model, inputs)
    banned = free[0].unique().tolist()
    assert not set(answers(model, inputs, suppress_tokens=banned)[0].tolist()) & set(banned)


def test_stock_logits_processors_apply_to_every_position(model):
    inputs = batch(example(model, 2), example(model, 1, seed=2))
    banned = answers(model, inputs).unique().tolist()
    processors = LogitsProcessorList([SuppressTokensLogitsProcessor(banned, device="cpu")])
    expected = answers(model, inputs, suppress_tokens=[PAD, *banned])
    assert torch.equal(answers(model, inputs, logits_processor=processors), expected)


def test_logits_processors_see_no_id_outside_the_vocabulary(golden):
    model = golden_model(golden)
    case = find_case(golden, "generate", "gen2_b2_s2_wrapper_default")
    seen = []

    def look(ids, scores):
        seen.append(ids.max())
        return scores

    model.generate(**golden_inputs(golden, case), max_new_tokens=2, logits_processor=LogitsProcessorList([look]))
    assert max(seen) < model.config.text_config.vocab_size


def test_stopping_criteria_leave_the_rest_masked(model):
    inputs = example(model, 1)
    answer = answers(model, inputs, stopping_criteria=StoppingCriteriaList([MaxTimeCriteria(0.0)]))
    assert (answer == MASK).sum() == 11


# --- stops -----------------------------------------------------------------------------------------------------------


def test_the_answer_ends_before_its_first_stop(model):
    inputs = example(model, 1)
    free = answers(model, inputs)[0].tolist()
    stop = free[5]
    cut = answers(model, inputs, eos_token_id=stop)[0].tolist()
    assert stop not in cut and len(cut) <= free.index(stop)
    assert answers(model, inputs, stop_token_ids=[[stop]])[0].tolist() == cut


def test_a_stop_saves_the_blocks_behind_it(model):
    inputs = example(model, 1)
    free = model.generate(**inputs, max_new_tokens=12, block_length=4, return_dict_in_generate=True)
    stop = free.sequences[0, inputs["input_ids"].shape[1]].item()
    cut = model.generate(**inputs, max_new_tokens=12, block_length=4, eos_token_id=stop, return_dict_in_generate=True)
    assert max(step.step.block for step in cut.trace) == 0 < max(step.step.block for step in free.trace)


# --- watching --------------------------------------------------------------------------------------------------------


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.prompt, self.blocks, self.drafts, self.ended = None, [], [], False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt is None:
            self.prompt = value
        else:
            self.blocks.append(value)

    def put_draft(self, value: torch.Tensor) -> None:
        self.drafts.append(value)

    def end(self) -> None:
        self.ended = True


def test_a_streamer_gets_prompt_drafts_and_blocks(model):
    inputs, streamer, steps = example(model, 1), Recorder(), []
    expected = answers(model, inputs)
    answers(model, inputs, streamer=streamer, step_callback=steps.append)
    assert torch.equal(streamer.prompt, inputs["input_ids"]) and streamer.ended
    assert torch.equal(torch.cat(streamer.blocks, dim=1), expected)
    assert [len(d[0]) for d in streamer.drafts] == [12] * 4 + [8] * 4 + [4] * 4
    assert [int((d == MASK).sum()) for d in streamer.drafts] == list(range(11, -1, -1))
    assert [step.step.index for step in steps] == list(range(12))
    assert torch.equal(steps[-1].canvas, expected)


def test_a_streamer_is_ended_after_an_error(model):
    """A reader of an iterating streamer would wait for ever otherwise."""
    streamer = Recorder()

    def fail(step):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="^no$"):
        answers(model, example(model, 1), streamer=streamer, step_callback=fail)
    assert streamer.ended


def test_the_stock_diffusion_streamer_prints_the_answer(golden, capsys):
    case = find_case(golden, "generate", "gen16_b8_s8")
    streamer = TextDiffusionStreamer(golden_tokenizer(golden), skip_prompt=True)
    golden_model(golden).generate(
        **golden_inputs(golden, case), max_new_tokens=16, block_length=8, max_denoising_steps=8, streamer=streamer
    )
    assert "\033[33m" in capsys.readouterr().out


def test_the_trace_replays_the_answer(model):
    inputs = example(model, 1)
    output = model.generate(**inputs, max_new_tokens=8, block_length=4, return_dict_in_generate=True)
    replayed = torch.full((1, 8), MASK)
    for step in output.trace:
        block = slice(4 * step.step.block, 4 * step.step.block + 4)
        replayed[:, block] = torch.where(step.committed, step.tokens, replayed[:, block])
        assert torch.equal(step.canvas, replayed)
    assert torch.equal(replayed, output.sequences[:, inputs["input_ids"].shape[1] :])


# --- configuration ---------------------------------------------------------------------------------------------------


def test_the_generation_config_round_trips_with_the_model(model, tmp_path):
    config = VidLaDAGenerationConfig(
        max_new_tokens=8, block_length=4, temperature=1.0, eos_token_id=[EOT], stop_strings=["."], seed=0
    )
    model = tiny_model()
    model.generation_config = config
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    assert stored["temperature"] == 1.0 and stored["unmasking"] == "quota"
    again = VidLaDAForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert type(again) is VidLaDAGenerationConfig
    assert again.to_dict() == config.to_dict()


def test_arguments_win_over_the_generation_config(model):
    inputs = example(model, 1)
    config = VidLaDAGenerationConfig(max_new_tokens=4)
    assert model.generate(**inputs, generation_config=config).shape[1] == inputs["input_ids"].shape[1] + 4
    assert (
        model.generate(**inputs, generation_config=config, max_new_tokens=2).shape[1]
        == inputs["input_ids"].shape[1] + 2
    )


def test_official_names_are_aliases(model):
    inputs = example(model, 1)
    ours = answers(model, inputs, max_new_tokens=8, max_denoising_steps=4, cfg_scale=0.5, block_length=4)
    official = model.generate(
        **inputs, gen_length=8, steps=4, gen_steps=4, cfg=0.5, block_length=4, modalities=["video"], use_cache=False
    )
    assert torch.equal(official[:, inputs["input_ids"].shape[1] :], ours)


def test_a_stock_generation_config_file_is_read_with_its_foreign_fields_left_out(model, tmp_path):
    model.save_pretrained(tmp_path)
    stock = {"max_new_tokens": 16, "top_p": 0.9, "num_beams": 4, "eos_token_id": EOT, "transformers_version": "5.17.0"}
    (tmp_path / "generation_config.json").write_text(json.dumps(stock))
    config = VidLaDAForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert (config.max_new_tokens, config.eos_token_id) == (16, EOT)
    assert not hasattr(config, "top_p")


def test_a_stock_generation_config_object_is_understood(model, tmp_path):
    inputs = example(model, 1)
    stock = GenerationConfig(max_new_tokens=4, num_beams=1)
    assert model.generate(**inputs, generation_config=stock).shape[1] == inputs["input_ids"].shape[1] + 4
    model.save_pretrained(tmp_path)
    loaded = VidLaDAForConditionalGeneration.from_pretrained(tmp_path, generation_config=stock)
    assert loaded.generation_config.max_new_tokens == 4


def test_a_damaged_generation_config_file_is_not_passed_over(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"max_new')
    with pytest.raises(OSError, match="generation_config.json"):
        VidLaDAForConditionalGeneration.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    loaded = VidLaDAForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.generation_config.to_dict() == VidLaDAGenerationConfig.from_model_config(model.config).to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_token": 8}, "Unknown generation argument `max_new_token`. Did you mean `max_new_tokens`"),
        ({"blok_length": 8}, "Did you mean `block_length`"),
        ({"max_length": 80}, "`max_length=80` counts the prompt.* give `max_new_tokens`"),
        ({"pixel_value_videos": None}, "Did you mean `pixel_values_videos`"),
        ({"max_new_tokens": 12, "block_length": 5}, r"\(5\) does not divide `max_new_tokens` \(12\). Take .* 4;"),
        ({"max_new_tokens": 12, "block_length": 4, "max_denoising_steps": 7}, r"\(7\) is not a multiple .* such as 6;"),
        ({"max_new_tokens": 12, "block_length": 4, "max_denoising_steps": 2}, r"\(2\) must be at least"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be a whole number of at least 1, got 0"),
        ({"max_new_tokens": 8.0}, "`max_new_tokens` must be a whole number"),
        ({"temperature": -1}, "`temperature` must be a number of at least 0, got -1"),
        ({"cfg_scale": "high"}, "`cfg_scale`"),
        ({"remasking": "confident"}, "`remasking` must be one of 'low_confidence', 'random', got 'confident'"),
        ({"cache_strategy": "marz"}, "Unknown `cache_strategy` 'marz'; known are 'none'"),
        ({"unmasking": "quotas"}, "Unknown `unmasking` 'quotas'; known are 'quota', 'threshold'"),
        ({"unmasking": "threshold", "unmask_threshold": 0}, "`unmask_threshold` must be a number above 0, got 0"),
        ({"unmasking": "factor", "unmask_factor": "1"}, "`unmask_factor` must be a number above 0, got '1'"),
        ({"cache_strategy": 3}, "`cache_strategy` must be a name"),
        ({"generation_config": {"cache_strategy": NoCache()}}, "pass an object to `generate` itself"),
        (
            {"unmasking": "threshold", "remasking": "random"},
            "ThresholdUnmasking compares probabilities, and `remasking='random'`",
        ),
        ({"num_beams": 4}, "`num_beams=4` belongs to autoregressive decoding"),
        ({"max_new_tokens": 10**9}, r"takes \d+ tokens and the answer up to 1000000000 .* model has 16384 positions"),
        ({"suffix": "\ud800", "tokenizer": object()}, "The suffix '.ud800' holds half a character"),
        ({"gen_length": 8, "max_new_tokens": 4}, "given twice with different values"),
        ({"stop_strings": ["."]}, "need `tokenizer=`"),
        ({"stop_token_ids": [[]]}, "A stop is empty"),
        ({"suffix": "so"}, "needs `tokenizer=`"),
        ({"suffix": ["so", "so"]}, "`suffix` is one text for the whole batch, got a list of 2"),
        ({"suffix": torch.ones(2, 2)}, r"`suffix` is one sequence of ids for the whole batch, got the shape \(2, 2\)"),
        ({"temperature": float("nan")}, "`temperature` must be a number"),
        ({"suppress_tokens": [999]}, "`suppress_tokens` holds the id 999, outside the vocabulary of 64"),
        ({"canvas": [MASK, 99]}, "`canvas` holds the id 99, outside the vocabulary of 64"),
        ({"canvas": [[MASK, MASK]] * 2}, "`canvas` must have the shape"),
        ({"canvas": [MASK, MASK], "max_new_tokens": 4}, "`canvas` must have the shape"),
        ({"seed": 1, "generator": torch.Generator()}, "not both"),
        ({"generator": [torch.Generator()] * 3}, "3 generators for a batch of 1"),
    ],
)
def test_bad_arguments_are_refused_by_name_before_any_work(model, arguments, message):
    encoded = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: encoded.append(1))
    try:
        with pytest.raises(ValueError, match=message):
            if "generation_config" in arguments:
                arguments = {"generation_config": VidLaDAGenerationConfig(**arguments["generation_config"])}
            model.generate(**example(model, 1), **arguments)
    finally:
        hook.remove()
    assert not encoded


def test_prompts_need_a_shape(model):
    with pytest.raises(ValueError, match=r"`input_ids` must be given with shape \(batch, tokens\), got None"):
        model.generate()
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        model.generate(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="`attention_mask` must have the shape"):
        model.generate(torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 2))


# --- strategies plug in ----------------------------------------------------------------------------------------------


def test_a_users_own_cache_strategy_plugs_in(model):
    class Counting(NoCache):
        steps = 0

        def denoise(self, text_model, inputs_embeds, step):
            self.steps += 1
            return super().denoise(text_model, inputs_embeds, step)

    inputs, strategy = example(model, 2), Counting()
    assert torch.equal(answers(model, inputs, cache_strategy=strategy), answers(model, inputs))
    assert strategy.steps == 12 and strategy.layout is None


def test_a_cache_strategy_is_free_again_after_an_error(model):
    class Failing(NoCache):
        def denoise(self, text_model, inputs_embeds, step):
            raise RuntimeError("no")

    strategy = Failing()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="^no$"):
            answers(model, example(model, 1), cache_strategy=strategy)


def test_a_cache_strategy_is_free_again_when_the_streamer_refuses(model):
    """A TextStreamer takes no batches, and says so before the first step."""
    strategy, inputs = NoCache(), batch(example(model, 1), example(model, 1, seed=2))

    class Refusing(Recorder):
        def put(self, value):
            raise ValueError("only one")

    for _ in range(2):
        with pytest.raises(ValueError, match="only one"):
            answers(model, inputs, cache_strategy=strategy, streamer=Refusing())


def test_text_only_prompts_work(golden):
    ids = golden_tokenizer(golden)("Name the three colors.", return_tensors="pt").input_ids
    assert golden_model(golden).generate(ids, max_new_tokens=4).shape[1] <= ids.shape[1] + 4
