import json

import pytest
import torch

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.official_checkpoint_vidlada import (
    SIGLIP2_WITHOUT_LAST_LAYER,
    local_tensor_shapes,
    placeholder_ids,
    tower_config,
    translate_config,
)

from ..golden_model import golden_ids, golden_model, load_json, tower_settings


def test_every_field_is_mapped(golden):
    official = json.loads((golden / "checkpoint" / "config.json").read_text())
    config = golden_model(golden).config
    for field in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "attention_bias",
        "attention_dropout", "bos_token_id",
    ):  # fmt: skip
        assert getattr(config.text_config, field) == official[field], field
    assert config.text_config.rope_parameters["rope_theta"] == official["rope_theta"]
    assert config.vision_config.hidden_size == official["mm_hidden_size"]
    assert config.pooling_mode == official["mm_spatial_pool_mode"]
    ids = golden_ids(golden)
    assert config.mask_token_id == ids["mask"]
    assert config.suppress_tokens == load_json(golden, "tables")["suppressed_token_ids"]["mapped"]
    assert config.text_config.eos_token_id == [ids["end_of_text_and_pad"], ids["eot"]]
    assert config.text_config.pad_token_id == ids["end_of_text_and_pad"]
    assert golden_model(golden).dtype == torch.float32


def test_generation_config_stops_at_the_end_of_a_turn(golden):
    ids = golden_ids(golden)
    assert golden_model(golden).generation_config.eos_token_id == [ids["end_of_text_and_pad"], ids["eot"]]


def test_parameter_names_are_exactly_the_recorded_ones(golden):
    recorded = {name: tuple(shape) for name, shape in load_json(golden, "parameter_names")}
    assert local_tensor_shapes(golden / "checkpoint") == recorded
    assert len(golden_model(golden).state_dict()) == len(recorded)


def test_tower_sizes_come_from_the_tensors_then_from_siglip2(golden):
    recorded = tower_settings(golden)
    given = {name: recorded[name] for name in ("num_attention_heads", "num_hidden_layers")}
    tower = tower_config(local_tensor_shapes(golden / "checkpoint"), given)
    for field in ("hidden_size", "intermediate_size", "patch_size"):
        assert tower[field] == recorded[field]
    assert tower["num_hidden_layers"] == recorded["num_hidden_layers"] - 1  # the last one is dropped
    side = recorded["image_size"] // recorded["patch_size"]
    assert tower["image_size"] // tower["patch_size"] == side
    assert tower_config(None, None) == SIGLIP2_WITHOUT_LAST_LAYER


def test_heads_that_no_shape_tells_are_asked_for(golden):
    with pytest.raises(ValueError, match="attention heads.*--vision-config"):
        VidLaDAConfig.from_pretrained(golden / "checkpoint")


def test_a_tower_without_a_tensor_that_tells_its_size_is_refused(golden):
    shapes = local_tensor_shapes(golden / "checkpoint")
    shapes.pop("model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight")
    with pytest.raises(ValueError, match="lacks the tensor .*patch_embedding.weight"):
        tower_config(shapes, {"num_attention_heads": 4})


@pytest.mark.parametrize(
    "field", [{"mm_resampler_type": "spatial_pool"}, {"mm_projector_type": "linear"}, {"add_faster_video": True}]
)
def test_settings_that_change_the_network_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        translate_config({"vocab_size": 512, **field})


def test_placeholders_follow_the_last_token_and_never_hide_text():
    assert placeholder_ids({"a": 0, "b": 9}, vocab_size=64) == (10, 11)
    assert placeholder_ids({"a": 0, "<image>": 3, "<video>": 4}, vocab_size=64) == (3, 4)
    assert placeholder_ids(None, vocab_size=64) == (64, 65)
