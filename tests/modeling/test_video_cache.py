"""One video, many questions: what a video cache gives is what a mask gives that hides the question from the video."""

import pytest
import torch

from vidlada_hf import DenoisingCache, VidLaDAForConditionalGeneration
from vidlada_hf.modeling import cuda_graphs_vidlada
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.mars_cache_vidlada import MARSCache
from vidlada_hf.modeling.video_cache_vidlada import VideoCache

from ..tiny_models import IMAGE, VIDEO, batch, example, tiny_model
from .test_cuda_graphs import Recording, recordings  # noqa: F401  # a fixture

SETTINGS = {"max_new_tokens": 12, "block_length": 6}
# Everything outside the shared part is computed in every step: exact up to what the video does not see.
EXACT = {
    "none": None,
    "prefix": {"refresh_interval": 1},
    "dual": {"refresh_interval": 1},
    "interval": {"prompt_interval": 1, "generation_interval": 1},
    "mars": {"visual_intervals": [1, 1], "text_intervals": [1, 1]},
}


class HiddenQuestion(DenoisingCache):
    """Computes everything in each step; tokens up to the last visual one see only each other."""

    def denoise(self, text_model, inputs_embeds, step):
        layout, (examples, tokens) = self.layout, inputs_embeds.shape[:2]
        real = torch.ones(examples, tokens, dtype=torch.bool)
        if layout.attention_mask is not None:
            real = layout.attention_mask
        last = torch.where(layout.frame_index >= 0, torch.arange(tokens), -1).amax(1)
        early = torch.arange(tokens) <= last[:, None]
        mask = real[:, None, None, :] & (~early[:, None, :, None] | early[:, None, None, :])
        return text_model(
            inputs_embeds=inputs_embeds, attention_mask=mask, position_ids=layout.position_ids
        ).last_hidden_state[:, step.span]


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def mild_model() -> VidLaDAForConditionalGeneration:
    """Attention less sharp, which does not blow up the rounding of float32."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.weight.div_(3)
    return model


def questions(model, count: int = 3, equal: bool = False, frames: int = 4) -> list[dict]:
    """Chats that begin with the same words and video, and go on differently."""
    first, chats = example(model, frames, before=3, after=4), []
    begin = int((first["input_ids"] == VIDEO).nonzero()[-1, 1]) + 1
    for i in range(count):
        words = torch.randint(3, 60, (1, 4 if equal else 3 + 2 * i), generator=torch.Generator().manual_seed(i))
        chats.append({**first, "input_ids": torch.cat([first["input_ids"][:, :begin], words], dim=1)})
    return chats


def ids_of(chats: list[dict]) -> dict:
    """A batch of questions without pixels."""
    inputs = batch(*({"input_ids": chat["input_ids"]} for chat in chats))
    return inputs if not inputs["attention_mask"].all() else {"input_ids": inputs["input_ids"]}


def pixels_of(chats: list[dict]) -> dict:
    """The same with the video once for each."""
    inputs = batch(*chats)
    return inputs if not inputs["attention_mask"].all() else {k: v for k, v in inputs.items() if k != "attention_mask"}


def assert_same_steps(ours, expected) -> None:
    assert torch.equal(ours.sequences, expected.sequences)
    for mine, theirs in zip(ours.trace, expected.trace, strict=True):
        assert torch.equal(mine.committed, theirs.committed) and mine.step.index == theirs.step.index
        torch.testing.assert_close(mine.confidence, theirs.confidence, atol=1e-5, rtol=1e-5)


# --- the same as a mask ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", ["single", "equal", "padded"])
def test_it_is_attention_under_a_mask_that_hides_the_question(mild_model, name, kind, attention):
    model = mild_model
    chats = questions(model, 1 if kind == "single" else 3, equal=kind == "equal")
    model.set_attn_implementation({"text_config": attention})
    try:
        cache = model.encode_video(**chats[0])
        settings = {**SETTINGS, "return_dict_in_generate": True}
        expected = model.generate(**pixels_of(chats), cache_strategy=HiddenQuestion(), **settings)
        ours = model.generate(
            **ids_of(chats), video_cache=cache, cache_strategy=name, cache_config=EXACT[name], **settings
        )
    finally:
        model.set_attn_implementation({"text_config": "sdpa"})
    assert_same_steps(ours, expected)


def test_the_question_makes_a_difference_to_the_video_otherwise(model):
    (chat,) = questions(model, 1)
    exact, hidden = (
        model.generate(**chat, cache_strategy=s, return_dict_in_generate=True, **SETTINGS)
        for s in ("none", HiddenQuestion())
    )
    assert not torch.allclose(exact.trace[0].confidence, hidden.trace[0].confidence, atol=1e-4)


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_each_question_gets_what_it_gets_alone(model, name):
    chats = questions(model, 4)
    cache = model.encode_video(**chats[0])
    settings = {**SETTINGS, "cache_strategy": name, "video_cache": cache, "eos_token_id": list(range(3, 8))}
    together = model.generate(**ids_of(chats), **settings)
    longest = max(chat["input_ids"].shape[1] for chat in chats)
    for row, chat in zip(together, chats, strict=True):
        alone = model.generate(input_ids=chat["input_ids"], **settings)[0]
        begin = longest - chat["input_ids"].shape[1]
        assert row[begin : begin + len(alone)].tolist() == alone.tolist()


@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_captured_steps_give_the_same(model, name, recordings):  # noqa: F811
    chats = questions(model, 3)
    cache = model.encode_video(**chats[0])
    settings = {**SETTINGS, "cache_strategy": name, "video_cache": cache}
    expected = model.generate(**ids_of(chats), cuda_graphs=False, **settings)
    assert torch.equal(model.generate(**ids_of(chats), **settings), expected)
    assert name == "none" or any(recording.replays for recording in Recording.made)
    assert cuda_graphs_vidlada.CudaGraph is Recording


def test_two_videos_and_an_image_may_stand_before_the_question(model):
    first, second = example(model, 3), example(model, 2, seed=4)
    image = torch.full((1, 17), IMAGE)
    ids = torch.cat([first["input_ids"], second["input_ids"], image, torch.tensor([[7, 8, 9]])], dim=1)
    visual = {
        "pixel_values_videos": torch.cat([first["pixel_values_videos"], second["pixel_values_videos"]]),
        "num_frames_per_video": torch.tensor([3, 2]),
        "pixel_values": torch.randn(1, 3, 56, 56),
    }
    cache = model.encode_video(ids, **visual)
    assert len(cache) == ids.shape[1] - 3
    answer = model.generate(ids, **visual, video_cache=cache, **SETTINGS)
    assert torch.equal(answer, model.generate(ids, video_cache=cache, **SETTINGS))
    other = torch.cat([ids[:, :-3], torch.tensor([[9, 8]])], dim=1)
    assert model.generate(other, video_cache=cache, **SETTINGS).shape[1] == other.shape[1] + 12


def test_stops_suffix_infilling_and_streams_are_as_ever(model):
    (chat,) = questions(model, 1)
    cache = model.encode_video(**chat)
    settings = {
        "canvas": [1, 5, 1, 1, 9, 1],
        "suffix": [7, 8],
        "eos_token_id": [3, 4, 10, 11, 12],
        "return_dict_in_generate": True,
    }
    expected = model.generate(**chat, cache_strategy=HiddenQuestion(), **settings)
    assert_same_steps(model.generate(chat["input_ids"], video_cache=cache, **settings), expected)


def test_processors_and_criteria_see_the_whole_sequences(model):
    (chat,) = questions(model, 1)
    cache, seen = model.encode_video(**chat), []

    def watch(ids, scores):
        seen.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool) if scores is None else scores

    model.generate(
        chat["input_ids"], video_cache=cache, logits_processor=[watch], stopping_criteria=[watch], max_new_tokens=2
    )
    assert set(seen) == {chat["input_ids"].shape[1] + 2}


# --- made on the way -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "mars"])
def test_a_batch_shares_the_video_that_it_is_about(model, name):
    chats, towers = questions(model, 3), []
    settings = {**SETTINGS, "cache_strategy": name}
    expected = model.generate(**ids_of(chats), video_cache=model.encode_video(**chats[0]), **settings)
    once = {**pixels_of(chats), **{k: v for k, v in chats[0].items() if k != "input_ids"}}
    features = model.get_video_features(chats[0]["pixel_values_videos"])
    hook = model.model.vision_tower.register_forward_hook(lambda _, args, output: towers.append(len(args[0])))
    try:
        for inputs in (pixels_of(chats), once):
            assert torch.equal(model.generate(**inputs, share_video=True, **settings), expected)
    finally:
        hook.remove()
    assert towers == [4, 4]  # the frames of one video
    pooled = features.pooler_output
    for given in (features, pooled, pooled * 3, pooled[0][None]):
        shared = model.generate(**ids_of(chats), video_features=given, share_video=True, **settings)
        assert torch.equal(shared, expected)


def test_a_batch_of_several_videos_and_images_may_share_them(model):
    first, second = example(model, 3), example(model, 2, seed=4)
    ids = torch.cat([first["input_ids"], second["input_ids"], torch.full((1, 17), IMAGE)], dim=1)
    batch_ids = torch.cat([torch.cat([ids, torch.tensor([[word, 9]])], dim=1) for word in (7, 8)])
    visual = {
        "pixel_values_videos": torch.cat([first["pixel_values_videos"], second["pixel_values_videos"]]),
        "num_frames_per_video": torch.tensor([3, 2]),
        "pixel_values": torch.randn(1, 3, 56, 56),
    }
    expected = model.generate(batch_ids, video_cache=model.encode_video(batch_ids[:1], **visual), **SETTINGS)
    twice = {key: torch.cat([value, value]) for key, value in visual.items()}
    for given in (visual, twice):
        assert torch.equal(model.generate(batch_ids, **given, share_video=True, **SETTINGS), expected)


def test_copies_of_the_video_are_compared_with_a_cache(model):
    chats = questions(model, 3)
    cache = model.encode_video(**chats[0])
    expected = model.generate(**ids_of(chats), video_cache=cache, **SETTINGS)
    inputs = pixels_of(chats)
    assert torch.equal(model.generate(**inputs, video_cache=cache, **SETTINGS), expected)
    inputs["pixel_values_videos"][-1] += 1
    with pytest.raises(ValueError, match="made of another video"):
        model.generate(**inputs, video_cache=cache)


def test_a_batch_that_cannot_share_is_refused_by_name(model):
    chats = questions(model, 2)
    inputs = pixels_of(chats)
    with pytest.raises(ValueError, match="give one of the two"):
        model.generate(**inputs, share_video=True, video_cache=model.encode_video(**chats[0]))
    with pytest.raises(ValueError, match="`share_video` must be True or False"):
        model.generate(**inputs, share_video="yes")
    with pytest.raises(ValueError, match="`video_cache` is what `encode_video` returns, got bool"):
        model.generate(**inputs, video_cache=True)
    with pytest.raises(ValueError, match="`cfg_scale` .0.5. .* `share_video` shares"):
        model.generate(**inputs, share_video=True, cfg_scale=0.5)
    with pytest.raises(ValueError, match="needs a chat with a video or an image"):
        model.generate(torch.tensor([[3, 4]]), share_video=True)
    inputs["pixel_values_videos"][-1] += 1
    with pytest.raises(ValueError, match="Prompt 1 shows another video than the first"):
        model.generate(**inputs, share_video=True)
    other = example(model, 3, before=3, after=4)
    with pytest.raises(
        ValueError, match="Prompt 1 does not begin as the first prompt does: its video has other frames"
    ):
        model.generate(**batch(chats[0], other), share_video=True)


def test_text_before_the_video_is_refused_by_name(model):
    plain, other = example(model, 3, before=3), example(model, 3, before=3)
    begin = torch.tensor([[7, 8]])
    other["input_ids"] = torch.cat([other["input_ids"][:, :3], begin, other["input_ids"][:, 3:]], dim=1)
    with pytest.raises(ValueError, match="another text stands before its video.* write the video first"):
        model.generate(**other, video_cache=model.encode_video(**plain))
    with pytest.raises(
        ValueError, match="Prompt 1 does not begin as the first prompt does: another text stands before"
    ):
        model.generate(**batch(plain, other), share_video=True)
    with pytest.raises(ValueError, match="Prompt 0 does not begin as the video cache does: it has no video"):
        model.generate(torch.tensor([[3, 4]]), video_cache=model.encode_video(**plain))


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dual", "mars"])
def test_sixteen_questions_keep_one_video(model, name):
    chats = questions(model, 16, frames=8)
    cache, kept = model.encode_video(**chats[0]), []
    strategy = type("Counted", (CACHE_STRATEGIES[name][0],), {})()

    def count(_):
        kept.append(sum(tensor.nbytes for tensor in (*strategy.keys.values(), *strategy.values.values())))

    model.generate(**ids_of(chats), video_cache=cache, cache_strategy=strategy, step_callback=count, **SETTINGS)
    a_token = 2 * 4 * 32 * 4  # keys and values, layers, hidden, bytes
    own = sum(chat["input_ids"].shape[1] - len(cache) + 12 for chat in chats)
    assert max(kept) == (own + 1) * a_token and cache.nbytes == len(cache) * a_token


def test_mars_refreshes_text_only_and_says_so(model):
    (chat,) = questions(model, 1)
    cache, mars, plans = model.encode_video(**chat), MARSCache(), []
    model.generate(
        chat["input_ids"],
        video_cache=cache,
        cache_strategy=mars,
        step_callback=lambda output: plans.append(mars.schedule([output.step])),
        **SETTINGS,
    )
    assert len(plans) == 12 and not any(plan["visual"].any() for plan in plans) and plans[8]["text"].any()


# --- kept for later --------------------------------------------------------------------------------------------------


def test_it_is_saved_loaded_and_moved(model, tmp_path):
    (chat,) = questions(model, 1)
    cache = model.encode_video(**chat)
    cache.save(tmp_path / "video.safetensors")
    loaded = VideoCache.load(tmp_path / "video.safetensors").to("cpu")
    assert (loaded.video, loaded.checkpoint, loaded.nbytes) == (cache.video, cache.checkpoint, cache.nbytes)
    answers = [model.generate(**chat, video_cache=each, **SETTINGS) for each in (cache, loaded)]
    assert torch.equal(*answers)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="other.safetensors is no video cache"):
        VideoCache.load(tmp_path / "other.safetensors")


def test_features_are_as_good_as_pixels(model):
    (chat,) = questions(model, 1)
    features = model.get_video_features(chat["pixel_values_videos"])
    cache = model.encode_video(chat["input_ids"], video_features=features)
    expected = model.generate(**chat, video_cache=model.encode_video(**chat), **SETTINGS)
    assert torch.equal(model.generate(**chat, video_cache=cache, **SETTINGS), expected)
    shared = model.generate(chat["input_ids"], video_features=features, share_video=True, **SETTINGS)
    assert torch.equal(shared, expected)
    assert torch.equal(
        model.generate(chat["input_ids"], video_features=features, video_cache=cache, **SETTINGS), expected
    )
    others = [feature + 1 for feature in features.pooler_output]
    with pytest.raises(ValueError, match="of another video"):
        model.generate(chat["input_ids"], video_features=others, video_cache=cache, **SETTINGS)


def test_what_does_not_fit_is_refused_by_name(model):
    (chat,) = questions(model, 1)
    cache = model.encode_video(**chat)
    other = {**chat, "pixel_values_videos": chat["pixel_values_videos"] + 1}
    with pytest.raises(ValueError, match="made of another video"):
        model.generate(**other, video_cache=cache)
    with pytest.raises(ValueError, match="made with another checkpoint"):
        tiny_model(seed=3).generate(**chat, video_cache=cache)
    with pytest.raises(ValueError, match="holds torch.float32, the model torch.bfloat16"):
        tiny_model().bfloat16().generate(**chat, video_cache=cache)
    with pytest.raises(ValueError, match="`cfg_scale` .0.5. also runs the prompt without its video"):
        model.generate(**chat, video_cache=cache, cfg_scale=0.5)
    changed = chat["input_ids"].clone()
    changed[0, 1] += 1
    for ids in (changed, chat["input_ids"][:, 1:], example(model, 3)["input_ids"]):
        with pytest.raises(ValueError, match="Prompt 0 does not begin as the video cache does"):
            model.generate(ids, video_cache=cache)
    with pytest.raises(ValueError, match="batch of 2"):
        model.encode_video(chat["input_ids"].repeat(2, 1))
    with pytest.raises(ValueError, match="needs a chat with a video"):
        model.encode_video(torch.tensor([[3, 4]]))
    with pytest.raises(ValueError, match="Did you mean `pixel_values_videos`"):
        model.encode_video(chat["input_ids"], pixel_value_videos=None)


@pytest.mark.parametrize("name", ["vision_tower", "multi_modal_projector", "image_newline"])
def test_a_cache_belongs_to_all_that_made_it(name):
    model = tiny_model()
    (chat,) = questions(model, 1)
    features = model.get_video_features(chat["pixel_values_videos"])
    cache = model.encode_video(**chat)
    of_features = model.encode_video(chat["input_ids"], video_features=features)
    expected = model.generate(chat["input_ids"], video_cache=cache, **SETTINGS)
    with torch.no_grad():
        next(getattr(model.model, name).parameters()).add_(0.5)
    with pytest.raises(ValueError, match="made with another checkpoint"):
        model.generate(chat["input_ids"], video_cache=cache, **SETTINGS)
    assert torch.equal(model.generate(chat["input_ids"], video_cache=of_features, **SETTINGS), expected)


def test_a_setting_of_the_features_is_part_of_the_checkpoint():
    model = tiny_model()
    (chat,) = questions(model, 1)
    cache = model.encode_video(**chat)
    model.config.newline_position = "frame"
    with pytest.raises(ValueError, match="made with another checkpoint"):
        model.generate(chat["input_ids"], video_cache=cache, **SETTINGS)


@pytest.mark.parametrize("absent", ["offloaded", "removed"])
def test_a_cache_serves_a_model_without_its_tower(absent):
    model = tiny_model()
    (chat,) = questions(model, 1)
    cache = model.encode_video(**chat)
    expected = model.generate(chat["input_ids"], video_cache=cache, **SETTINGS)
    if absent == "removed":
        model.model.vision_tower = None
    else:
        model.model.vision_tower.to("meta")
    assert torch.equal(model.generate(chat["input_ids"], video_cache=cache, **SETTINGS), expected)


def test_features_in_one_tensor_are_shared_and_compared(model):
    chats = questions(model, 2)
    flat = torch.cat(model.get_video_features(chats[0]["pixel_values_videos"]).pooler_output)
    cache = model.encode_video(chats[0]["input_ids"], video_features=flat)
    expected = model.generate(**ids_of(chats), video_cache=cache, **SETTINGS)
    for given in (flat, torch.cat([flat, flat]), [flat]):
        assert torch.equal(
            model.generate(**ids_of(chats), video_features=given, share_video=True, **SETTINGS), expected
        )
        assert torch.equal(
            model.generate(**ids_of(chats), video_features=given, video_cache=cache, **SETTINGS), expected
        )


def test_a_path_that_cannot_be_written_or_read_is_named(model, tmp_path):
    cache, missing = model.encode_video(**questions(model, 1)[0]), tmp_path / "no" / "cache.safetensors"
    for path, error in ((missing, FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error, match=str(path)):
            cache.save(path)
        with pytest.raises(error, match=str(path)):
            VideoCache.load(path)
