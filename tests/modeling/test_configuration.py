import pytest

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

from ..tiny_models import tiny_config


def test_defaults_are_the_8b_model():
    config = VidLaDAConfig()
    text, vision = config.text_config, config.vision_config
    assert (text.vocab_size, text.hidden_size, text.intermediate_size) == (126464, 4096, 12288)
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads, text.head_dim) == (
        32,
        32,
        32,
        128,
    )
    assert (text.rms_norm_eps, text.rope_parameters["rope_theta"], text.is_causal) == (1e-5, 500000.0, False)
    assert (vision.hidden_size, vision.intermediate_size, vision.num_attention_heads) == (1152, 4304, 16)
    assert (vision.num_hidden_layers, vision.image_size, vision.patch_size) == (26, 384, 14)
    assert config.vision_grid == 27


@pytest.mark.parametrize(
    "vision",
    [{}, {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16}],
)
def test_round_trip_keeps_every_field(tmp_path, vision):
    """Also fields that equal a stock default of SiglipVisionConfig and differ from ours."""
    config = VidLaDAConfig(
        vision_config=vision, newline_position="frame", pooling_mode="max", text_config={"hidden_size": 64}
    )
    config.save_pretrained(tmp_path)
    assert VidLaDAConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"pooling_mode": "median"}, "pooling_mode"),
        ({"newline_position": "everywhere"}, "newline_position"),
        ({"pooling_stride": 0}, "pooling_stride"),
        ({"pooling_stride": 5}, "pooling_stride"),
        ({"pooling_stride": "2"}, "pooling_stride"),
        ({"projector_hidden_act": "geluu"}, "projector_hidden_act"),
        ({"mask_token_id": 64}, "mask_token_id"),
        ({"mask_token_id": -1}, "mask_token_id"),
        ({"video_token_id": 60}, "video_token_id"),
        ({"text_config": {"hidden_size": 30}}, "hidden_size"),
        ({"text_config": {"num_key_value_heads": 3}}, "num_key_value_heads"),
        ({"text_config": {"num_hidden_layers": 0}}, "num_hidden_layers"),
        ({"text_config": {"is_causal": True}}, "is_causal"),
        ({"text_config": {"num_key_value_heads": 0}}, "num_key_value_heads"),
        ({"text_config": {"rms_norm_eps": -1.0}}, "rms_norm_eps"),
        ({"text_config": {"attention_dropout": 3.0}}, "attention_dropout"),
        ({"suppress_tokens": [64]}, "suppress_tokens"),
    ],
)
def test_impossible_values_name_the_field(fields, name):
    with pytest.raises(Exception, match=name):
        tiny_config(**fields)


def test_tying_asked_for_in_the_text_config_is_done():
    model = VidLaDAForConditionalGeneration(tiny_config(text_config={"tie_word_embeddings": True}))
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_text_config_takes_rope_scaling():
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert VidLaDATextConfig(rope_parameters=rope).rope_parameters == rope
