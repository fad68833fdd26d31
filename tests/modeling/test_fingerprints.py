"""What a video cache belongs to: every change of the weights is noticed, and they are not read again without one."""

import copy

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from vidlada_hf.modeling import fingerprints_vidlada
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_checkpoint, fingerprint_model, fingerprint_visual

from ..tiny_models import tiny_model


@pytest.fixture
def text_model():
    return tiny_model().model.language_model


def projection(text_model):
    return text_model.layers[1].self_attn.q_proj


def step_of_an_optimizer(text_model):
    text_model.norm.weight.grad = torch.ones_like(text_model.norm.weight)
    torch.optim.SGD([text_model.norm.weight], lr=0.01).step()


def one_value(text_model):
    with torch.no_grad():
        projection(text_model).weight[3, 5] += 0.01  # not among the values that are looked at in every call


def through_data(text_model):
    weight = projection(text_model).weight
    weight.data *= 1.01  # as moving averages and `peft` write, which torch does not count


def another_state(text_model):
    text_model.load_state_dict(tiny_model(seed=1).model.language_model.state_dict())


def a_new_weight(text_model):
    projection(text_model).weight = torch.nn.Parameter(projection(text_model).weight + 1)


def another_dtype(text_model):
    text_model.to(torch.bfloat16)


def other_settings(text_model):
    text_model.config.rms_norm_eps = 1e-3


CHANGES = [
    one_value,
    step_of_an_optimizer,
    through_data,
    another_state,
    a_new_weight,
    another_dtype,
    other_settings,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_noticed(text_model, change):
    before = fingerprint_model(text_model)
    assert fingerprint_model(text_model) == before
    change(text_model)
    assert fingerprint_model(text_model) != before


def test_adapters_are_noticed_on_off_and_merged(text_model):
    peft = pytest.importorskip("peft")
    seen = [fingerprint_model(text_model)]
    options = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False, r=2)
    adapted = peft.get_peft_model(text_model, options)
    seen.append(fingerprint_model(text_model))
    with adapted.disable_adapter():
        seen.append(fingerprint_model(text_model))
    adapted.merge_adapter()
    seen.append(fingerprint_model(text_model))
    assert len(set(seen)) == 4
    adapted.unmerge_adapter()
    adapted.merge_and_unload()
    assert fingerprint_model(text_model) not in seen


def test_weights_are_read_once(text_model, monkeypatch):
    expected = fingerprint_model(copy.deepcopy(text_model))
    read = []
    monkeypatch.setattr(fingerprints_vidlada, "sum_bits", lambda weight: read.append(weight.shape) or 0)
    found = {fingerprint_model(text_model) for _ in range(3)}
    assert len(read) == sum(1 for _ in text_model.parameters())
    monkeypatch.undo()
    one_value(text_model)
    assert fingerprint_model(text_model) not in {expected, *found}


def test_the_same_weights_have_the_same_fingerprint_wherever_they_are(text_model, tmp_path):
    text_model.save_pretrained(tmp_path)
    loaded = type(text_model).from_pretrained(tmp_path)
    with torch.inference_mode():  # whose tensors have no count of changes
        copied = copy.deepcopy(text_model)
        assert fingerprint_model(loaded) == fingerprint_model(text_model) == fingerprint_model(copied)
    copied.layers[0].to("meta")  # as weights that are offloaded
    assert fingerprint_model(copied) != fingerprint_model(text_model)


def test_pixels_and_features_are_told_apart_by_what_they_hold():
    pixels, features = torch.randn(4, 3, 8, 8), [torch.randn(24, 16)]
    known = fingerprint_visual({"pixel_values_videos": pixels})
    assert known is not None and known.startswith("pixels")
    assert fingerprint_visual({"pixel_values_videos": pixels[None]}) == known  # a dimension more, of one video
    assert fingerprint_visual({"pixel_values_videos": pixels.flip(0)}) != known
    assert fingerprint_visual({"pixel_values_videos": pixels[:3]}) != known
    assert str(fingerprint_visual({"video_features": features})).startswith("features")
    assert fingerprint_visual({"video_features": None}) is None


def test_every_pixel_counts_where_it_stands():
    """Sides that a regular sample of a few thousand values would fall in step with."""
    black = torch.full((32, 3, 384, 384), -1.0)
    known, frame = fingerprint_visual({"pixel_values_videos": black}), torch.rand(3, 384, 384)
    seen = {known}
    for rows, columns in ((slice(None), slice(40, 340)), (slice(40, 340), slice(None)), (7, 9)):
        other = black.clone()
        other[:, :, rows, columns] = frame[:, rows, columns]
        for turned in (other, other.flip(-1), other.flip(-2)):
            seen.add(fingerprint_visual({"pixel_values_videos": turned}))
    assert len(seen) == 10
    other = black.clone()
    other[3], other[4] = frame, frame / 2
    moved = other.clone()
    moved[3], moved[4] = other[4], other[3]
    assert fingerprint_visual({"pixel_values_videos": other}) != fingerprint_visual({"pixel_values_videos": moved})


def test_features_are_the_same_in_one_tensor_and_in_many():
    features = [torch.randn(24, 16), torch.randn(24, 16)]
    forms = (features, torch.cat(features), torch.stack(features))
    assert len({fingerprint_visual({"video_features": given}) for given in forms}) == 1
    half = torch.cat(features).bfloat16()
    odd = torch.cat([half.new_zeros(1), half.flatten()])[1:].view_as(half)  # begins in the middle of eight bytes
    assert fingerprint_visual({"video_features": odd}) == fingerprint_visual({"video_features": half})


@pytest.mark.parametrize("name", ["vision_tower", "multi_modal_projector", "image_newline", "language_model"])
def test_each_part_that_made_a_cache_counts(name):
    model = tiny_model().model
    before = {video: fingerprint_checkpoint(model, video) for video in ("pixels 0", "features 0")}
    with torch.no_grad():
        next(getattr(model, name).parameters()).view(-1)[5] += 0.5
    assert fingerprint_checkpoint(model, "pixels 0") != before["pixels 0"]
    is_seen = fingerprint_checkpoint(model, "features 0") != before["features 0"]
    assert is_seen == (name == "language_model")


def test_a_weight_made_of_several_tensors_is_read_in_all_of_them(text_model):
    """As torchao's quantized ones are: numbers and scales."""
    layer, found = projection(text_model), []
    numbers = layer.weight.detach()
    for scale in (1.0, 2.0, 1.0):
        layer.weight = torch.nn.Parameter(TwoTensor(numbers, numbers * scale))
        found.append(fingerprint_model(text_model))
    assert found[0] == found[2] != found[1]
