"""Choices by score: log-probabilities as a plain forward pass gives them."""

import pytest
import torch

from vidlada_hf import VidLaDAForConditionalGeneration
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.scoring_vidlada import deal, draw_shared_masks

from ..tiny_models import EOT, MASK, batch, example, tiny_model

WORDS = [[5], [9], [11]]
SENTENCES = [[5], [9, 7], [11, 4, 6], [8, 8]]


class Numbers:
    """A tokenizer: a text is numbers between blanks."""

    def __call__(self, text, add_special_tokens, split_special_tokens):
        return type("Encoding", (), {"input_ids": [int(word) for word in text.split()]})


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    model = tiny_model().double()
    model.generation_config.eos_token_id = [EOT]
    return model


def doubled(inputs: dict) -> dict:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


@torch.no_grad()
def log_probabilities(model, inputs: dict, canvas: list[int]) -> torch.Tensor:
    """(canvas, vocabulary), by a forward pass over one prompt and the canvas behind it."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([canvas])], dim=1)
    logits = model(**{**inputs, "input_ids": ids}).logits[0, -len(canvas) :].float()
    logits[:, model.config.suppress_tokens] = -torch.inf
    return logits.double().log_softmax(-1)


def bound(model, inputs: dict, choice: list[int], seed: int = 0, draws: int = 32, longest: int = 3) -> float:
    """Of one choice, mask by mask."""
    answer, total = [*choice, EOT], 0.0
    rates, masks = draw_shared_masks(longest + 1, draws, seed)
    for rate, mask in zip(rates.tolist(), masks.tolist(), strict=True):
        canvas = [MASK if hidden else token for token, hidden in zip(answer, mask, strict=False)]
        found = log_probabilities(model, inputs, canvas)
        hidden = [i for i in range(len(answer)) if mask[i]]
        total += sum(found[i, answer[i]].item() for i in hidden) / rate
    return total / draws


def test_one_token_is_scored_at_the_first_of_two_masks_in_one_pass(model):
    inputs, passes = doubled(example(model, 3)), []
    expected = log_probabilities(model, inputs, [MASK, MASK])[0, [5, 9, 11]]
    hook = model.lm_head.register_forward_hook(lambda *_: passes.append(1))
    try:
        scores = model.score_choices(**inputs, choices=WORDS)
    finally:
        hook.remove()
    torch.testing.assert_close(scores, expected[None], atol=1e-5, rtol=1e-5)
    assert scores.dtype == torch.float64 and len(passes) == 1


def test_longer_ones_are_scored_by_the_bound_over_shared_draws(model):
    inputs = doubled(example(model, 3))
    scores = model.score_choices(**inputs, choices=SENTENCES)
    expected = torch.tensor([[bound(model, inputs, choice) for choice in SENTENCES]], dtype=torch.float64)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    per_token = model.score_choices(**inputs, choices=SENTENCES, normalize="token")
    torch.testing.assert_close(per_token * torch.tensor([2, 3, 4, 3]), scores)
    assert not torch.equal(model.score_choices(**inputs, choices=SENTENCES, seed=1), scores)
    few = model.score_choices(**inputs, choices=SENTENCES, num_draws=4, seed=2)
    torch.testing.assert_close(few[0, 1].item(), bound(model, inputs, [9, 7], 2, 4), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("choices", [WORDS, SENTENCES])
def test_each_prompt_of_a_batch_is_scored_as_alone(model, choices):
    chats = [doubled(example(model, frames, after=after, seed=after)) for frames, after in ((3, 4), (2, 7), (0, 5))]
    together = model.score_choices(**doubled(batch(*chats)), choices=choices, num_draws=4)
    alone = torch.cat([model.score_choices(**chat, choices=choices, num_draws=4) for chat in chats])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_each_prompt_may_have_its_own_choices_as_text_or_ids(model):
    chats = [doubled(example(model, 2, seed=seed)) for seed in (1, 2)]
    texts = [["5", "9 7"], ["11 4 6", "8"]]
    together = model.score_choices(**doubled(batch(*chats)), choices=texts, tokenizer=Numbers(), num_draws=4)
    for row, chat, own in zip(together, chats, ([[5], [9, 7]], [[11, 4, 6], [8]]), strict=True):
        expected = [bound(model, chat, choice, draws=4, longest=max(map(len, own))) for choice in own]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("choices", [WORDS, SENTENCES])
def test_a_video_cache_and_every_strategy_may_be_taken(model, choices):
    chat = doubled(example(model, 3))
    cache = model.encode_video(**chat)
    exact = model.score_choices(chat["input_ids"], choices, video_cache=cache, num_draws=4)
    for name, config in (
        ("dual", {"refresh_interval": 1}),
        ("interval", {"prompt_interval": 1, "generation_interval": 1}),
    ):
        arguments = {"cache_strategy": name, "cache_config": config, "num_draws": 4}
        assert torch.allclose(model.score_choices(**chat, choices=choices, video_cache=cache, **arguments), exact)
    for name in CACHE_STRATEGIES:
        assert model.score_choices(**chat, choices=choices, cache_strategy=name, num_draws=4).isfinite().all()
    with pytest.raises(ValueError, match="of another video"):
        other = {**chat, "pixel_values_videos": chat["pixel_values_videos"] + 1}
        model.score_choices(**other, choices=choices, video_cache=cache)


@pytest.mark.parametrize("choices", [WORDS, SENTENCES])
def test_a_batch_may_share_its_video(model, choices):
    first = doubled(example(model, 3))
    chats = [first, {**first, "input_ids": torch.cat([first["input_ids"], torch.tensor([[8, 9]])], dim=1)}]
    cache = model.encode_video(**first)
    expected = [model.score_choices(chat["input_ids"], choices, video_cache=cache, num_draws=4) for chat in chats]
    inputs = doubled(batch(*chats))
    shared = model.score_choices(**inputs, choices=choices, share_video=True, num_draws=4)
    torch.testing.assert_close(shared, torch.cat(expected), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="`cfg_scale` .0.5. .* `share_video` shares"):
        model.score_choices(**inputs, choices=choices, share_video=True, cfg_scale=0.5)


def test_a_stored_generation_config_does_not_matter(model):
    inputs = doubled(example(model, 1))
    expected = model.score_choices(**inputs, choices=WORDS)
    stored = model.generation_config
    model.generation_config = type(stored)(
        max_new_tokens=64, max_denoising_steps=64, temperature=1.0, cfg_scale=1.0, eos_token_id=[EOT]
    )
    try:
        assert torch.equal(model.score_choices(**inputs, choices=WORDS), expected)
    finally:
        model.generation_config = stored


def test_the_likelier_of_two_is_what_it_would_say(model):
    """The best of all tokens by score is the one that greedy generation commits first where only one is wanted."""
    inputs = doubled(example(model, 2))
    scores = model.score_choices(**inputs, choices=[[token] for token in range(3, 60)])
    best = log_probabilities(model, inputs, [MASK, MASK])[0, 3:60].argmax()
    assert scores.argmax() == best


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": []}, "`choices` must be a list"),
        ({"choices": "yes"}, "`choices` must be a list"),
        ({"choices": [[5], []]}, "A choice is empty"),
        ({"choices": ["5"]}, "needs `tokenizer=`"),
        ({"choices": [[99]]}, "`choices` holds the id 99"),
        ({"choices": [[[5], [6]], [[5]]]}, "one list for all 1 prompts, or a list for each"),
        ({"choices": [[[5], []]]}, "A choice is empty"),
        ({"choices": ["", "5"], "tokenizer": Numbers()}, "A choice is empty"),
        ({"choices": [" ", "5"], "tokenizer": Numbers()}, "The choice ' ' is empty: the tokenizer has no tokens"),
        ({"choices": SENTENCES, "seed": None}, "`seed` must be a whole number"),
        ({"choices": WORDS, "seed": 1.5}, "`seed` must be a whole number"),
        ({"choices": SENTENCES, "seed": 2**70}, "`seed` must be a whole number"),
        ({"choices": WORDS, "normalise": "token"}, "Did you mean `normalize`"),
        ({"choices": WORDS, "normalize": "length"}, "`normalize` must be one of"),
        ({"choices": SENTENCES, "num_draws": 0}, "`num_draws`"),
        ({"choices": WORDS, "cache_strateg": "dual"}, "Did you mean `cache_strategy`"),
        ({"choices": WORDS, "temperature": 0.5}, "`temperature` is about generating"),
        ({"choices": WORDS, "max_new_tokens": 4}, "`max_new_tokens` is about generating"),
        ({"choices": WORDS, "streamer": None}, "Unknown argument of `score_choices`: `streamer`"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.score_choices(**doubled(example(model, 1)), **arguments)


def test_without_an_end_of_the_turn_it_is_asked_for():
    model = tiny_model()
    with pytest.raises(ValueError, match="`end_token_id` must say"):
        model.score_choices(**example(model, 1), choices=SENTENCES)
    assert model.score_choices(**example(model, 1), choices=SENTENCES, end_token_id=EOT, num_draws=2).shape == (1, 4)


def test_videos_are_dealt_to_prompts_by_their_placeholders():
    assert deal([6, 12, 6], [18, 0, 6], "video") == [slice(0, 2), slice(2, 2), slice(2, 3)]
    with pytest.raises(ValueError, match="A prompt has 7 video tokens"):
        deal([6, 12], [7], "video")


def test_prompts_are_needed(model):
    with pytest.raises(ValueError, match="`input_ids` must be given"):
        model.score_choices(None, choices=WORDS)


def test_lists_of_any_length_are_scored_as_alone(model):
    """One token or several is decided for each prompt, and so are its draws."""
    chats = [doubled(example(model, 2, after=3 + seed, seed=seed)) for seed in range(4)]
    lists = [[[5], [9]], [[5], [9, 7], [4]], [[11]], [[11, 4, 6], [8, 8]]]
    together = model.score_choices(**doubled(batch(*chats)), choices=lists, num_draws=4)
    assert together.shape == (4, 3)
    for row, chat, own in zip(together, chats, lists, strict=True):
        alone = model.score_choices(**chat, choices=own, num_draws=4)[0]
        torch.testing.assert_close(row[: len(own)], alone, atol=1e-5, rtol=1e-5)
        assert row[len(own) :].isneginf().all()


@pytest.mark.parametrize("counted", [True, False])
def test_features_may_be_one_tensor(model, counted):
    chats = [doubled(example(model, frames, seed=frames)) for frames in (3, 2)]
    inputs = doubled(batch(*chats))
    expected = model.score_choices(**inputs, choices=SENTENCES, num_draws=2)
    counts = inputs["num_frames_per_video"]
    flat = torch.cat(model.get_video_features(inputs.pop("pixel_values_videos"), counts).pooler_output)
    if not counted:
        inputs.pop("num_frames_per_video")
    found = model.score_choices(**inputs, video_features=flat, choices=SENTENCES, num_draws=2)
    torch.testing.assert_close(found, expected)
