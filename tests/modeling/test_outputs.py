"""What the models return, in transformers' terms."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

from ..tiny_models import IMAGE, IMAGE_SIZE, batch, example, tiny_model

ASKED = {"output_hidden_states": True, "output_attentions": True}


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    model = tiny_model()
    model.set_attn_implementation("eager")  # the one with attention weights
    return model


@pytest.fixture
def inputs(model: VidLaDAForConditionalGeneration) -> dict:
    return batch(example(model, 3), example(model, 2, seed=2))


def with_an_image() -> dict:
    ids = torch.tensor([[5, *([IMAGE] * 17), 6]])
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)}


@torch.no_grad()
def test_video_features_are_a_tensor_each_video_beside_the_towers_states(model, inputs):
    outputs = model.get_video_features(inputs["pixel_values_videos"], inputs["num_frames_per_video"])
    assert type(outputs) is BaseModelOutputWithPooling and list(outputs) == ["last_hidden_state", "pooler_output"]
    assert isinstance(outputs.pooler_output, list)
    assert [feature.shape for feature in outputs.pooler_output] == [(18, 32), (12, 32)]
    expected = model.model.vision_tower(inputs["pixel_values_videos"]).last_hidden_state
    torch.testing.assert_close(outputs.last_hidden_state, expected)


@pytest.mark.parametrize("size", [None, 1, 2])
@torch.no_grad()
def test_states_and_attentions_of_the_tower_are_given_where_asked_for(model, inputs, size):
    pixels, counts = inputs["pixel_values_videos"], inputs["num_frames_per_video"]
    outputs = model.get_video_features(pixels, counts, size, **ASKED)
    assert [state.shape for state in outputs.hidden_states] == [(5, 16, 24)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(5, 2, 16, 16)] * 2
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)
    whole = model.get_video_features(pixels, counts, 5, **ASKED)
    torch.testing.assert_close(outputs.to_tuple(), whole.to_tuple(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_config_may_ask_too(inputs):
    model = tiny_model()
    model.config.vision_config.output_hidden_states = True
    assert len(model.get_video_features(inputs["pixel_values_videos"][:2]).hidden_states) == 3
    assert model.get_video_features(inputs["pixel_values_videos"][:2], output_hidden_states=False).hidden_states is None


@torch.no_grad()
def test_image_features_are_a_tensor_each_image(model):
    outputs = model.get_image_features(torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE), **ASKED)
    assert [feature.shape for feature in outputs.pooler_output] == [(17, 32)] * 2
    assert outputs.last_hidden_state.shape == (2, 16, 24)
    assert (len(outputs.hidden_states), len(outputs.attentions)) == (3, 2)


@torch.no_grad()
def test_features_come_as_a_tuple_where_asked_for(model, inputs):
    pixels, counts = inputs["pixel_values_videos"], inputs["num_frames_per_video"]
    states, features = model.get_video_features(pixels, counts, return_dict=False)
    assert states.shape == (5, 16, 24) and len(features) == 2
    assert isinstance(model.get_image_features(pixels, return_dict=False), tuple)


@torch.no_grad()
def test_forward_returns_what_the_tower_made(model, inputs):
    outputs = model(**inputs)
    expected = model.get_video_features(inputs["pixel_values_videos"], inputs["num_frames_per_video"])
    torch.testing.assert_close(outputs.video_outputs.to_tuple(), expected.to_tuple())
    assert outputs.image_outputs is None
    without_head = model.model(**inputs)
    torch.testing.assert_close(without_head.video_outputs.to_tuple(), expected.to_tuple())
    image = with_an_image()
    outputs = model(**image)
    expected = model.get_image_features(image["pixel_values"])
    torch.testing.assert_close(outputs.image_outputs.to_tuple(), expected.to_tuple())
    assert outputs.video_outputs is None
    assert model(input_ids=torch.tensor([[5, 6]])).video_outputs is None


def test_training_returns_it_too(model, inputs):
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = 7
    outputs = model(**inputs, labels=labels)
    assert len(outputs.video_outputs.pooler_output) == 2 and outputs.loss.requires_grad


@torch.no_grad()
def test_a_tuple_holds_tuples(model, inputs):
    logits, videos = model(**inputs, return_dict=False)
    assert isinstance(logits, torch.Tensor) and isinstance(videos, tuple) and len(videos) == 2


@torch.no_grad()
def test_a_config_that_asks_for_tuples_is_served(inputs):
    model = tiny_model()
    expected = model.generate(**inputs, max_new_tokens=4)
    logits = model(**inputs).logits
    model.config.return_dict = False
    assert torch.equal(model(**inputs)[0], logits)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)


@torch.no_grad()
def test_all_that_takes_features_takes_what_was_returned(model):
    inputs = example(model, 3)
    expected = model.generate(**inputs, max_new_tokens=4)
    scores = model.score_choices(**inputs, choices=[[5], [6]], end_token_id=2)
    cached = model.generate(**inputs, video_cache=model.encode_video(**inputs), max_new_tokens=4)
    features = model.get_video_features(inputs.pop("pixel_values_videos"))
    for given in (features, features.to_tuple(), features.pooler_output):
        assert torch.equal(model.generate(**inputs, video_features=given, max_new_tokens=4), expected)
        torch.testing.assert_close(
            model.score_choices(**inputs, choices=[[5], [6]], end_token_id=2, video_features=given), scores
        )
        cache = model.encode_video(**inputs, video_features=given)
        assert torch.equal(model.generate(**inputs, video_cache=cache, max_new_tokens=4), cached)


def test_predictions_of_the_stock_trainer_leave_the_tower_out(model, inputs):
    kept = set(model(**inputs).keys()) - set(model.config.keys_to_ignore_at_inference)
    assert kept == {"logits"}
