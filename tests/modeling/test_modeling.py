import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vidlada_hf.modeling.modeling_vidlada import (
    VidLaDAForConditionalGeneration,
    VidLaDAModel,
)
from vidlada_hf.modeling.vision_vidlada import add_newlines, pool_patches

from ..golden_model import (
    PLACEHOLDER,
    assert_recorded,
    find_case,
    golden_ids,
    golden_inputs,
    golden_model,
    load_tensors,
    pixels,
)
from ..tiny_models import PAD, VIDEO, batch, example, tiny_model

TOWER, HIDDEN, NOISE = 2e-4, 2e-3, 2e-4  # tolerances of the golden README; float32 noise of the tiny model


# --- the same numbers as the official code ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fa", "fb", "fc"])
def test_pooled_features_are_the_recorded_ones(golden, name):
    model = golden_model(golden).model
    with torch.no_grad():
        pooled = model._encode(pixels(golden, name), pool=True, vision_batch_size=None).pooler_output
    assert_recorded(pooled.flatten(1, 2), golden, "vision", f"{name}.pooled_bilinear", TOWER)


def test_tower_and_projector_are_the_recorded_ones(golden):
    model = golden_model(golden).model
    with torch.no_grad():
        features = model.vision_tower(pixels(golden, "fa")).last_hidden_state
        projected = model.multi_modal_projector(features)
    assert_recorded(features, golden, "vision", "fa.tower_out", TOWER)
    assert_recorded(projected[0], golden, "vision", "fa.frame0.projector_out", TOWER)
    for mode in ("average", "max"):
        pooled = pool_patches(projected[:1], 2, mode).flatten(0, 2)
        assert_recorded(pooled, golden, "vision", f"fa.frame0.pooled_{mode}", TOWER)


@pytest.mark.parametrize("name", ["one_token", "grid", "frame", "no_token"])
def test_merged_embeddings_are_the_recorded_ones(golden, name):
    case = find_case(golden, "merge", f"video_fa.{name}")
    inputs = golden_inputs(golden, case)
    inputs.pop("attention_mask")
    model = golden_model(golden).model
    with torch.no_grad():
        merged = model.merge_features(**inputs)[0]
        assert len(merged) == case["total"]
        if name == "no_token":  # recorded as the one_token case without its newline
            end = case["input_ids"].index(PLACEHOLDER) + case["visual_tokens"]
            merged = torch.cat([merged[:end], model.image_newline.weight.view(1, -1), merged[end:]])
    assert_recorded(merged, golden, "merge", case["tensor"] or "video_fa.one_token.inputs_embeds", TOWER)


def test_two_videos_in_one_prompt_are_the_recorded_ones(golden):
    case = find_case(golden, "merge", "two_videos")
    inputs = golden_inputs(golden, case)
    inputs.pop("attention_mask")
    with torch.no_grad():
        merged = golden_model(golden).model.merge_features(**inputs)[0]
    assert_recorded(merged, golden, "merge", case["tensor"], TOWER)


@pytest.mark.parametrize("name", ["video_one_token", "video_grid"])
def test_logits_of_a_video_prompt_are_the_recorded_ones(golden, name):
    case = find_case(golden, "forward", name)
    inputs = golden_inputs(golden, case | {"input_ids": case["prompt_input_ids"] + case["appended_ids"]})
    positions = torch.tensor(case["positions"])
    with torch.no_grad():
        outputs = golden_model(golden)(**inputs, logits_to_keep=positions, output_hidden_states=True)
    assert inputs["input_ids"].shape[1] == case["total"]
    assert_recorded(outputs.logits[0], golden, "forward", f"{name}.logits", HIDDEN)
    for depth, hidden_states in enumerate(outputs.hidden_states):
        tensor = f"{name}.hidden_states.{depth}"
        if tensor in load_tensors(golden, "forward"):
            assert_recorded(hidden_states[0, positions], golden, "forward", tensor, HIDDEN)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_of_a_text_prompt_are_the_recorded_ones(golden, attention):
    case = find_case(golden, "forward", "text")
    model = golden_model(golden)
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([case["token_ids"]])).logits[0]
    model.set_attn_implementation(before)
    assert_recorded(logits, golden, "forward", "text.logits", HIDDEN)


# --- what must not change the result ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


@torch.no_grad()
def test_a_left_padded_batch_gives_each_example_its_own_logits(model):
    examples = [example(model, 3, before=2), example(model, 1, after=9, seed=2), example(model, 0, seed=3)]
    together = model(**batch(*examples)).logits
    for i, one in enumerate(examples):
        alone = model(**one).logits[0]
        torch.testing.assert_close(together[i, -len(alone) :], alone, atol=NOISE, rtol=0)


@torch.no_grad()
def test_ones_in_the_attention_mask_change_nothing(model):
    inputs = example(model, 2)
    masked = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
    torch.testing.assert_close(masked, model(**inputs).logits, atol=NOISE, rtol=0)


def test_no_dense_mask_is_built_when_nothing_is_padded(model, monkeypatch):
    seen = []
    attend = type(model.model.language_model.layers[0].self_attn).attend

    def spy(self, query, key, value, attention_mask, **kwargs):
        seen.append(attention_mask)
        return attend(self, query, key, value, attention_mask, **kwargs)

    monkeypatch.setattr(type(model.model.language_model.layers[0].self_attn), "attend", spy)
    inputs = example(model, 2)
    with torch.no_grad():
        model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
        model(**inputs)
    assert seen and all(mask is None for mask in seen)


@pytest.mark.parametrize("attention", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
@torch.no_grad()
def test_attention_implementations_agree(model, attention):
    if attention == "flex_attention":
        torch._dynamo.reset()
    inputs = batch(example(model, 2, before=5), example(model, 1, seed=2))
    expected = model(**inputs).logits
    other = tiny_model()
    other.set_attn_implementation(attention)
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(other(**inputs).logits[attended], expected[attended], atol=NOISE, rtol=1e-5)


def test_flash_attention_is_declared(model):
    assert model._supports_flash_attn and model._supports_sdpa and model._supports_flex_attn


@pytest.mark.parametrize("position", ["grid", "frame", "one_token", "no_token"])
@torch.no_grad()
def test_features_computed_before_replace_pixels(position):
    model = tiny_model(newline_position=position)
    inputs = batch(example(model, 3), example(model, 2, seed=2))
    expected = model(**inputs).logits
    features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs.pop("num_frames_per_video"))
    pooled = features.pooler_output
    assert [len(f) for f in pooled] == [n * model.model.tokens_per_frame + (position == "one_token") for n in (3, 2)]
    for given in (features, features.to_tuple(), pooled, torch.cat(pooled)):
        torch.testing.assert_close(model(**inputs, video_features=given).logits, expected, atol=NOISE, rtol=0)


@pytest.mark.parametrize("vision_batch_size", [1, 3, None])
@torch.no_grad()
def test_encoding_in_chunks_is_encoding_at_once(model, vision_batch_size):
    frames = torch.randn(7, 3, 56, 56)
    (whole,) = model.get_video_features(frames, vision_batch_size=7).pooler_output
    seen = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    (chunked,) = model.get_video_features(frames, vision_batch_size=vision_batch_size).pooler_output
    hook.remove()
    assert max(seen) == (vision_batch_size or 7)
    torch.testing.assert_close(chunked, whole, atol=NOISE, rtol=0)


@torch.no_grad()
def test_videos_of_one_length_may_come_stacked(model):
    frames = torch.randn(2, 3, 3, 56, 56)
    stacked, flat = model.get_video_features(frames), model.get_video_features(frames.flatten(0, 1), [3, 3])
    torch.testing.assert_close(stacked.pooler_output, flat.pooler_output)


@torch.no_grad()
def test_ids_and_embeddings_give_the_same(model):
    inputs = example(model, 2)
    embeddings = model.model.merge_features(**inputs)
    torch.testing.assert_close(model(inputs_embeds=embeddings).logits, model(**inputs).logits)


@torch.no_grad()
def test_the_last_row_moves_the_first(model):
    """Attention is bidirectional: in a causal model the first logits could not change."""
    inputs = example(model, 1)
    first = model(**inputs).logits[:, 0]
    inputs["input_ids"][:, -1] = (inputs["input_ids"][:, -1] + 1) % 50 + 3
    assert (model(**inputs).logits[:, 0] - first).abs().max() > 1e-3


@torch.no_grad()
def test_the_head_runs_only_on_the_rows_asked_for(model):
    inputs = example(model, 2)
    whole, sizes = model(**inputs).logits, []
    hook = model.lm_head.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    torch.testing.assert_close(model(**inputs, logits_to_keep=3).logits, whole[:, -3:])
    rows = torch.tensor([0, 5, 2])
    torch.testing.assert_close(model(**inputs, logits_to_keep=rows).logits, whole[:, rows])
    hook.remove()
    assert sizes == [3, 3]


@torch.no_grad()
def test_bfloat16_stays_finite_and_close(model):
    inputs = example(model, 2)
    low = tiny_model().to(torch.bfloat16)
    logits = low(**inputs).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    agreement = (logits.argmax(-1) == model(**inputs).logits.argmax(-1)).float().mean()
    assert agreement > 0.8


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(**example(model, 2), output_hidden_states=True).logits.square().mean().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], atol=1e-6, rtol=1e-4)


def test_every_parameter_that_asks_for_a_gradient_gets_one():
    model = tiny_model().train()
    model(**example(model, 2), output_hidden_states=True).logits.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@torch.no_grad()
def test_images_take_all_patches_and_one_newline(model):
    image = torch.randn(2, 3, 56, 56)
    first, second = model.get_image_features(image).pooler_output
    assert first.shape == second.shape == (17, 32)
    torch.testing.assert_close(first[-1], model.model.image_newline.weight)
    words = torch.tensor([5, 6])
    ids = torch.cat([words, torch.full((17,), 60), words, torch.full((17,), 60), words])[None]
    logits = model(input_ids=ids, pixel_values=image).logits
    assert (logits - model(input_ids=ids, pixel_values=image.flip(0)).logits).abs().max() > 1e-3


def test_image_features_are_the_recorded_ones(golden):
    """One base view, the golden case `image_fc`."""
    model = golden_model(golden)
    case = find_case(golden, "merge", "image_fc")
    ids = []
    for token in case["input_ids"]:
        ids += [model.config.image_token_id] * case["visual_tokens"] if token == PLACEHOLDER else [token]
    with torch.no_grad():
        merged = model.model.merge_features(torch.tensor([ids]), pixel_values=pixels(golden, "fc"))
    assert_recorded(merged[0], golden, "merge", case["tensor"], TOWER)


# --- layout of rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("grid", [0, 1, 9, 2, 3, 9, 4, 5, 9, 6, 7, 9]),
        ("frame", [0, 1, 2, 3, 9, 4, 5, 6, 7, 9]),
        ("one_token", [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        ("no_token", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_newlines_stand_where_the_position_says(position, expected):
    frames = torch.arange(8.0).view(2, 2, 2, 1)
    assert add_newlines(frames, torch.tensor([9.0]), position)[:, 0].tolist() == expected


@pytest.mark.parametrize("position", ["grid", "frame", "one_token", "no_token"])
@torch.no_grad()
def test_frame_index_counts_frames_in_each_example(position):
    model = tiny_model(newline_position=position)
    two = example(model, 2)
    one = example(model, 1, seed=2)
    twice = {  # an example that holds two videos
        "input_ids": torch.cat([two["input_ids"], one["input_ids"]], dim=1),
        "pixel_values_videos": torch.cat([two["pixel_values_videos"], one["pixel_values_videos"]]),
        "num_frames_per_video": torch.tensor([2, 1]),
    }
    inputs = batch(one, twice)
    index = model.model.frame_index(inputs["input_ids"], inputs["num_frames_per_video"])
    rows, extra = model.model.tokens_per_frame, int(position == "one_token")
    assert (index[inputs["input_ids"] != VIDEO] == -1).all()
    assert index[0][index[0] >= 0].tolist() == [0] * (rows + extra)
    assert index[1][index[1] >= 0].tolist() == [0] * rows + [1] * (rows + extra) + [2] * (rows + extra)


# --- loading and saving ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_save_and_load_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    again, info = VidLaDAForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs = example(model, 2)
    torch.testing.assert_close(again.eval()(**inputs).logits, model(**inputs).logits)
    base = VidLaDAModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(model.lm_head(base(**inputs).last_hidden_state), model(**inputs).logits)


@torch.no_grad()
def test_an_official_checkpoint_is_saved_in_our_names(golden, tmp_path):
    model = golden_model(golden)
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    again = VidLaDAForConditionalGeneration.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[5, 6, golden_ids(golden)["mask"]]])
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_an_official_checkpoint_can_be_saved_in_its_own_names_again(golden, tmp_path):
    golden_model(golden).save_pretrained(tmp_path, save_original_format=True)
    official = load_file(golden / "checkpoint" / "model.safetensors")
    again = load_file(tmp_path / "model.safetensors")
    assert again.keys() == official.keys()
    assert all(torch.equal(again[name], official[name]) for name in official)


@torch.no_grad()
def test_device_map_places_and_runs(model, tmp_path):
    pytest.importorskip("accelerate")
    model.save_pretrained(tmp_path)
    placed = VidLaDAForConditionalGeneration.from_pretrained(tmp_path, device_map="cpu").eval()
    inputs = example(model, 1)
    torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
def test_generate_runs_with_weights_on_disk(model, tmp_path):
    """What does not fit into memory stays on disk and is fetched module by module."""
    pytest.importorskip("accelerate")
    model.save_pretrained(tmp_path / "model")
    offloaded = VidLaDAForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map={"model": "disk", "lm_head": "cpu"}, offload_folder=str(tmp_path / "offload")
    ).eval()
    inputs = example(model, 2)
    expected = model.generate(**inputs, max_new_tokens=4)
    assert torch.equal(offloaded.generate(**inputs, max_new_tokens=4), expected)


def test_tensor_parallel_plan_names_modules_that_exist(model):
    plan = model._tp_plan
    names = {name.replace(".0.", ".*.") for name, _ in model.named_modules()}
    assert plan and set(plan) <= names
    assert {"lm_head", "model.language_model.layers.*.self_attn.q_proj"} <= set(plan)


@torch.no_grad()
def test_resized_embeddings_keep_the_old_tokens():
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    model.resize_token_embeddings(70)
    assert model.config.text_config.vocab_size == 70 and model.lm_head.out_features == 70
    torch.testing.assert_close(model(input_ids=ids).logits[..., :64], before)
    assert isinstance(model.get_input_embeddings(), nn.Embedding)


def test_placeholders_may_lie_outside_the_vocabulary(golden):
    config = golden_model(golden).config
    size = config.text_config.vocab_size
    assert (config.image_token_id, config.video_token_id) == (size, size + 1)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_placeholders_without_a_video_are_refused(model):
    ids = example(model, 2)["input_ids"]
    with pytest.raises(ValueError, match="12 video placeholders, but there are 0 video features: pass the pixels"):
        model(input_ids=ids)


def test_a_video_without_placeholders_is_refused(model):
    with pytest.raises(ValueError, match="0 video placeholders, but there are 12"):
        model(input_ids=torch.tensor([[5, 6]]), pixel_values_videos=torch.zeros(2, 3, 56, 56))


def test_counts_that_do_not_add_up_are_refused(model):
    for counts in ([1, 2], [2, 0]):
        with pytest.raises(ValueError, match="num_frames_per_video"):
            model.get_video_features(torch.zeros(2, 3, 56, 56), counts)


def test_pixels_and_features_together_are_refused(model):
    inputs = example(model, 1)
    with pytest.raises(ValueError, match="not both"):
        model(**inputs, video_features=torch.zeros(6, 32))


def test_ids_and_embeddings_together_are_refused(model):
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=torch.tensor([[PAD]]), inputs_embeds=torch.zeros(1, 1, 32))
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="need `input_ids`"):
        model(inputs_embeds=torch.zeros(1, 1, 32), pixel_values_videos=torch.zeros(1, 3, 56, 56))
