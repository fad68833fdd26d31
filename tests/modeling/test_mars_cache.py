import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlada_hf.modeling.cache_vidlada import DenoisingStep, NoCache
from vidlada_hf.modeling.generation_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.mars_cache_vidlada import MARSCache, MARSCacheConfig, RefreshPlan
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

few = settings(max_examples=15, deadline=None)
FIRST_STEPS = ["full", "chunked"]
EVERY_STEP = {"visual_intervals": (1, 1), "text_intervals": (1, 1), "anchors": 2}


def mars(**settings) -> MARSCache:
    return MARSCache(MARSCacheConfig(**({"anchors": 2} | settings)))


@st.composite
def pyramids(draw: st.DrawFn, groups: int) -> tuple[int | None, ...]:
    """Deepest last: each a multiple of the one behind it, or never."""
    intervals: list[int | None] = [draw(st.integers(1, 3))]
    for _ in range(groups - 1):
        factor = draw(st.sampled_from([1, 2, 3, None]))
        intervals.append(None if factor is None or intervals[-1] is None else intervals[-1] * factor)
    return tuple(reversed(intervals))


@st.composite
def configs(draw: st.DrawFn) -> MARSCacheConfig:
    groups = draw(st.integers(1, 4))
    return MARSCacheConfig(
        visual_intervals=draw(pyramids(groups)),
        text_intervals=draw(pyramids(groups)),
        neighborhood=draw(st.sampled_from([None, 0, 1, 2])),
        anchors=draw(st.integers(0, 2)),
        anchor_choice=draw(st.sampled_from(["attention", "random"])),
        proxy_queries=draw(st.sampled_from([1, 5, 128])),
        proxy_layers=draw(st.sampled_from([None, (0,), (1, 3)])),
        first_step=draw(st.sampled_from(FIRST_STEPS)),
    )


# --- equivalences ----------------------------------------------------------------------------------------------------


@few
@given(case=cases(), groups=st.integers(1, 4), neighborhood=st.sampled_from([None, 4, 9]))
def test_a_refresh_every_step_that_sees_all_frames_is_exact(case, groups, neighborhood):
    every = (1,) * groups
    ours = mars(visual_intervals=every, text_intervals=every, neighborhood=neighborhood)
    assert_same(run(ours, case), run(NoCache(), case), case)


@few
@given(tokens=st.integers(1, 4), frames=st.integers(3, 6), width=st.integers(0, 1), first=st.sampled_from(FIRST_STEPS))
def test_frame_blocks_whose_anchors_are_all_tokens_are_exact(tokens, frames, width, first):
    """The gathered blocks themselves, not the short cut that a covering neighborhood takes."""
    case = plain_case(frames, tokens)
    ours = mars(**EVERY_STEP | {"anchors": tokens}, neighborhood=width, first_step=first)
    assert_same(run(ours, case), run(NoCache(), case), case)
    assert ours.is_chunked == [True]


@few
@given(case=cases(most_frames=1), first=st.sampled_from(FIRST_STEPS))
def test_one_frame_or_none_is_exact(case, first):
    """No frame is far from another: chunk attention is full attention, whatever the neighborhood."""
    assert_same(run(mars(**EVERY_STEP, neighborhood=0, first_step=first), case), run(NoCache(), case), case)


@settings(max_examples=20, deadline=None)
@given(case=cases(equal=False), config=configs())
def test_each_example_of_a_batch_gets_what_it_gets_alone(case, config):
    assert_each_gets_what_it_gets_alone(lambda: MARSCache(config), case)


def visible(case: Case, strategy: MARSCache) -> torch.Tensor:
    """(columns, columns), bool: what each row of the one example sees by chunk attention, from the layout."""
    frames, neighborhood = case.layout().frame_index[0], strategy.config.neighborhood
    if neighborhood is None:
        return torch.ones(len(frames), len(frames), dtype=torch.bool)
    anchor = torch.zeros(len(frames), dtype=torch.bool)
    for tokens in strategy.anchors.get(0, []):
        anchor[tokens] = True  # no padding: a token's index is its position
    near = (frames[:, None] - frames).abs() <= neighborhood
    return (frames[:, None] < 0) | (frames < 0) | near | anchor


@settings(max_examples=25, deadline=None)
@given(case=cases(batch=1, inactive=False, equal=False), config=configs())
def test_it_recomputes_what_its_intervals_say_from_the_boundaries_that_were_left(case, config):
    """Against a simulation that knows nothing of groups: for each layer, which tokens, and what these see.

    Left out: the search in a chunked first step, whose anchors differ from layer to layer.
    """
    if config.first_step == "chunked" and config.anchor_choice == "attention" and config.proxy_layers != (0,):
        config = MARSCacheConfig(**(vars(config) | {"first_step": "full"}))
    strategy, frames = MARSCache(config), case.layout().frame_index[0]
    ours = run(strategy, case)
    groups = len(config.visual_intervals)
    begins = [group * 4 // groups for group in range(groups)] + [4]
    blocks = {step.block: step.span for step in case.steps()}

    def recomputed(step: DenoisingStep) -> torch.Tensor:
        tokens = torch.zeros(4, len(frames), dtype=torch.bool)
        for group in range(groups):
            layers = slice(begins[group], begins[group + 1])
            for kind, intervals in ((frames >= 0, config.visual_intervals), (frames < 0, config.text_intervals)):
                if step.index == 0 or (intervals[group] and step.index % intervals[group] == 0):
                    tokens[layers] |= kind
        tokens[:, step.span] = True
        if step.step_in_block == 0 and step.block > 0:
            tokens[:, blocks[step.block - 1]] = True
        return tokens

    def seen(step: DenoisingStep) -> torch.Tensor:
        if step.index == 0 and config.first_step == "full":
            return torch.tensor(True)
        return visible(case, strategy)

    assert_same(ours, simulate(case, recomputed, seen), case)


def test_intervals_and_anchors_make_a_difference():
    """Without it the tests above would show nothing."""
    case = plain_case(frames=6, tokens=4, steps=6)
    base = {"visual_intervals": (4, 2), "text_intervals": (2, 1), "anchors": 1}
    reference = run(mars(**base), case)
    for change in (
        {"visual_intervals": (4, 4)},
        {"visual_intervals": (None, None)},
        {"text_intervals": (2, 2)},
        {"neighborhood": None},
        {"neighborhood": 0},
        {"anchors": 0},
        {"anchor_choice": "random"},
        {"first_step": "chunked"},
        {"proxy_layers": (0,)},
    ):
        other = run(mars(**(base | change)), case)
        assert max((a - b).abs().max() for a, b in zip(reference, other, strict=True)) > 1e-3, change


# --- anchors ---------------------------------------------------------------------------------------------------------


@few
@given(case=cases(most_frames=6), first=st.sampled_from(FIRST_STEPS))
def test_anchors_are_found_once_and_belong_to_their_frames(case, first):
    found = []

    class Recording(MARSCache):
        def run(self, text_model, inputs_embeds, plan):
            result = super().run(text_model, inputs_embeds, plan)
            found.append({i: anchors.tolist() for i, anchors in self.anchors.items()})
            return result

    strategy = Recording(MARSCacheConfig(**EVERY_STEP, first_step=first))
    run(strategy, case)
    for earlier, later in zip(found, found[1:], strict=False):
        assert all(later[i] == anchors for i, anchors in earlier.items())
    for i, anchors in strategy.anchors.items():
        for tokens, chosen in zip(strategy.videos[i].frames, anchors, strict=True):
            assert len(chosen) == 2 and set(chosen.tolist()) <= set(tokens.tolist())


@torch.no_grad()
def test_the_proxy_map_is_the_full_attention_of_the_middle_layer():
    """The anchors found are the tokens of highest attention mass from farther frames, by eager attention weights."""
    case, text = plain_case(frames=6, tokens=4), text_model()
    strategy = MARSCache(MARSCacheConfig(**EVERY_STEP))
    run(strategy, case)
    layout, step = case.layout(), case.steps()[0]
    text.set_attn_implementation("eager")
    try:
        attention = text(
            inputs_embeds=case.embeddings(step), position_ids=layout.position_ids, output_attentions=True
        ).attentions[2][0]
    finally:
        text.set_attn_implementation("sdpa")
    frames = layout.frame_index[0]
    far = (frames[:, None] >= 0) & ((frames[:, None] - frames).abs() > 1)
    mass = (attention.mean(0) * far).sum(0)
    expected = [set((frames == n).nonzero()[:, 0][mass[frames == n].topk(2).indices].tolist()) for n in range(6)]
    assert [set(anchors.tolist()) for anchors in strategy.anchors[0]] == expected


def test_random_anchors_follow_their_seed():
    case = plain_case(frames=5, tokens=4)

    def drawn(seed: int) -> list[list[int]]:
        strategy = mars(anchor_choice="random", anchor_seed=seed)
        run(strategy, case)
        return [anchors.tolist() for anchors in strategy.anchors[0]]

    assert drawn(0) == drawn(0) != drawn(1)


# --- schedules -------------------------------------------------------------------------------------------------------

TABLES = [
    (
        {"visual_intervals": (8, 4, 4, 2), "text_intervals": (4, 2, 2, 1)},
        # step 0  1  2  3  4  5  6  7  8
        {
            "visual": [[1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0, 1],
                       [1, 0, 1, 0, 1, 0, 1, 0, 1]],
            "text": [[1, 0, 0, 0, 1, 0, 0, 0, 1], [1, 0, 1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0, 1, 0, 1],
                     [1, 1, 1, 1, 1, 1, 1, 1, 1]],
        },
    ),
    (
        {"visual_intervals": (None, 6), "text_intervals": (6, 3)},
        {
            "visual": [[1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1, 0, 0]],
            "text": [[1, 0, 0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0, 1, 0, 0]],
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("intervals", "table"), TABLES)
def test_a_schedule_is_the_table_worked_out_by_hand_and_what_happens(intervals, table):
    case = plain_case(frames=4, tokens=3, block=2, blocks=1, steps=9)
    strategy = mars(**intervals)
    planned = strategy.schedule(VidLaDAGenerationConfig(max_new_tokens=9, block_length=9).planned_steps())
    assert {kind: plan.T.int().tolist() for kind, plan in planned.items()} == table

    computed = []  # for each step and layer, which positions

    class Recording(MARSCache):
        def store(self, layer, key, value, tokens):
            if layer == 0:
                computed.append({})
            computed[-1][layer] = set(tokens.indices.tolist())
            return super().store(layer, key, value, tokens)

    run(Recording(strategy.config), case)
    frames = case.layout().frame_index[0]
    visual = set((frames >= 0).nonzero()[:, 0].tolist())
    block = set(range(case.layout().canvas.start, case.layout().canvas.stop))
    text = set(range(len(frames))) - visual - block
    groups = len(strategy.config.visual_intervals)
    for index, layers in enumerate(computed):
        for layer, tokens in layers.items():
            group = next(g for g in range(groups) if layer < (g + 1) * 4 // groups)
            assert block <= tokens
            assert (tokens & visual) == (visual if table["visual"][group][index] else set())
            assert (tokens & text) == (text if table["text"][group][index] else set())


def test_what_was_refreshed_can_be_read_afterwards():
    strategy = mars(visual_intervals=(4, 2), text_intervals=(2, 1))
    run(strategy, plain_case(blocks=1, steps=4))
    assert [due[0] for due in strategy.refreshed] == [
        RefreshPlan(0, 0, full=True),
        RefreshPlan(2, 1),
        RefreshPlan(1, 0),
        RefreshPlan(2, 1),
    ]


def test_tokens_committed_last_in_a_block_are_not_left_as_masks():
    """The block before is computed once more when the next is entered, and deep refreshes start from what it left."""
    case = plain_case(blocks=2, steps=3)
    never = {"visual_intervals": (None,), "text_intervals": (None,)}
    computed, steps = [], case.steps()

    class Recording(MARSCache):
        def run(self, text_model, inputs_embeds, plan):
            computed.append(set(plan.groups[0].indices.tolist()))
            return super().run(text_model, inputs_embeds, plan)

    run(Recording(mars(**never).config), case)
    first, second = (set(range(steps[i].span.start, steps[i].span.stop)) for i in (0, 3))
    assert computed[1:] == [first, first, first | second, second, second]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual_intervals": (64, 24, 16, 16)}, r"`visual_intervals` .* group 0 \(64\) is not a multiple .* \(24\)"),
        ({"text_intervals": (8, 4, None, 2)}, r"group 1 \(4\) is not a multiple of the one of the deeper .* \(None\)"),
        ({"visual_intervals": (8, 4, 2, 0)}, "`visual_intervals` must be a whole number of steps .* got 0"),
        ({"visual_intervals": (8, 4)}, "`visual_intervals` has 2 groups of layers and `text_intervals` 4"),
        ({"visual_intervals": ()}, "`visual_intervals` must hold an interval for each group"),
        ({"visual_intervals": 8}, "`visual_intervals` must hold an interval for each group .* got 8"),
        ({"neighborhood": -1}, "`neighborhood` must be a whole number of at least 0 frames, .* got -1"),
        ({"neighborhood": 1.0}, "`neighborhood` must be a whole number"),
        ({"anchors": -1}, "`anchors` must be a whole number of at least 0"),
        ({"anchor_choice": "best"}, "`anchor_choice` must be one of 'attention', 'random', got 'best'"),
        ({"first_step": "half"}, "`first_step` must be one of 'full', 'chunked', got 'half'"),
        ({"proxy_queries": 0}, "`proxy_queries` must be a whole number of at least 1"),
        ({"proxy_layers": (-1,)}, "`proxy_layers` must be a whole number of at least 0 each, got -1"),
        ({"proxy_layers": ()}, r"`proxy_layers` must be a list of at least one layer, .* got \(\)"),
        ({"proxy_layers": 0}, "`proxy_layers` must be a list of at least one layer, .* got 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        MARSCacheConfig(**changes)


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual_intervals": [8] * 5, "text_intervals": [8] * 5}, "5 groups of layers .* more than the 4 layers"),
        ({"anchors": 7}, r"`anchors` \(7\) must not exceed the 6 tokens of a frame \(example 0 of the batch\)"),
        ({"proxy_layers": [1, 4]}, "`proxy_layers` names layer 4; the text model has layers 0 to 3"),
        ({"neighborhood": -1}, "`neighborhood` must be"),
        ({"visual_intervals": [6, 4, 2, 2]}, "not a multiple"),
        ({"visual_interval": [8]}, "Did you mean `visual_intervals`"),
    ],
)
def test_what_a_model_or_video_cannot_have_is_refused_before_any_work(model, settings, message):
    encoded = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: encoded.append(1))
    try:
        with pytest.raises(ValueError, match=message):
            model.generate(**example(model, 3), max_new_tokens=4, cache_strategy="mars", cache_config=settings)
    finally:
        hook.remove()
    assert not encoded


@pytest.mark.parametrize("settings", [{}, {"neighborhood": None, "anchor_choice": "random"}])
def test_anchors_that_are_never_used_may_be_more_than_a_frame_has(model, settings):
    """A video within one neighborhood, and no chunk attention at all."""
    inputs = example(model, 3 if settings else 2) | {"max_new_tokens": 4, "cache_strategy": "mars"}
    many, few = ({"anchors": count} | settings for count in (7, 1))
    assert torch.equal(model.generate(**inputs, cache_config=many), model.generate(**inputs, cache_config=few))


def test_it_takes_its_own_settings_only():
    with pytest.raises(ValueError, match="MARSCache takes a MARSCacheConfig, got {'anchors': 2}"):
        MARSCache({"anchors": 2})


# --- in `generate` ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newlines", ["grid", "frame", "one_token", "no_token"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_layout_of_newlines_and_every_attention_is_served(newlines, attention):
    model = tiny_model(newline_position=newlines)
    model.set_attn_implementation(attention)
    inputs = batch(example(model, 4), example(model, 2, after=7, seed=2))
    exact = {"visual_intervals": [1], "text_intervals": [1], "neighborhood": 3}
    for guidance in (0.0, 0.7):
        arguments = inputs | {"max_new_tokens": 8, "block_length": 4, "cfg_scale": guidance}
        expected = model.generate(**arguments)
        assert torch.equal(model.generate(**arguments, cache_strategy="mars", cache_config=exact), expected)
        model.generate(**arguments, cache_strategy="mars", cache_config={"anchors": 2})


def test_several_videos_in_a_prompt_and_one_beside_text_only(model):
    one, other = example(model, 3), example(model, 2, seed=2)
    both = {
        "input_ids": torch.cat([one["input_ids"], other["input_ids"]], dim=1),
        "pixel_values_videos": torch.cat([one["pixel_values_videos"], other["pixel_values_videos"]]),
        "num_frames_per_video": torch.tensor([3, 2]),
    }
    text = example(model, 0, before=9, seed=3)
    arguments = {"max_new_tokens": 8, "block_length": 4, "cache_strategy": "mars"}
    together = model.generate(**batch(both, text), **arguments)[:, -8:]
    for row, alone in zip(together, (both, text), strict=True):
        assert torch.equal(row, model.generate(**alone, **arguments)[0, -8:])


def test_settings_come_from_the_generation_config(model, tmp_path):
    inputs, settings = example(model, 4), {"anchors": 1, "visual_intervals": [4, 2], "text_intervals": [2, 1]}
    arguments = {"max_new_tokens": 8, "block_length": 4}
    expected = model.generate(**inputs, **arguments, cache_strategy=MARSCache(MARSCacheConfig(**settings)))
    VidLaDAGenerationConfig(**arguments, cache_strategy="mars", cache_config=settings).save_pretrained(tmp_path)
    stored = VidLaDAGenerationConfig.from_pretrained(tmp_path)
    assert stored.cache_config == settings
    assert torch.equal(model.generate(**inputs, generation_config=stored), expected)


def test_the_block_is_all_that_most_steps_compute():
    case, counts = Case((Prompt(2, (4,) * 6, 3),), 4, (((True,),) * 4,) * 2), []

    class Recording(MARSCache):
        def compute(self, text_model, hidden_states, tokens, layers=None):
            counts.append(len(tokens.indices))
            return super().compute(text_model, hidden_states, tokens, layers)

    strategy = Recording()
    run(strategy, case)
    everything = 2 + 24 + 3 + 8
    assert counts == [everything] * 4 + [4] * 3 + [8] * 4 + [4] * 3
    assert sorted(strategy.config.visual_intervals) == sorted(MARSCacheConfig().visual_intervals)
