"""Which tensors a checkpoint may lack, and which it may not hold."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration, VidLaDAModel
from vidlada_hf.modeling.text_model_vidlada import VidLaDAPreTrainedModel

from ..tiny_models import example, tiny_config, tiny_model


class Reward(VidLaDAPreTrainedModel):
    """A head beside the usual one's place."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = VidLaDAModel(config)
        self.score = nn.Linear(config.text_config.hidden_size, 1)
        self.post_init()


class Judge(VidLaDAForConditionalGeneration):
    """A head beside the usual one."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.judge = nn.Linear(config.text_config.hidden_size, 3)
        self.post_init()


class Probed(VidLaDAModel):
    """A head in the model without a head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.probe = nn.Linear(config.text_config.hidden_size, 2)
        self.post_init()


NEW_HEADS = {Reward: "score.", Judge: "judge.", Probed: "probe."}


def drop(folder: Path, name: str) -> None:
    """Takes a tensor out of a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path)
    return tmp_path


def test_a_tensor_of_its_own_is_required(checkpoint):
    drop(checkpoint, "model.image_newline.weight")
    with pytest.raises(ValueError, match=f"{checkpoint} lacks 1 tensors .*: model.image_newline.weight. Download"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


def test_the_usual_head_is_required_of_the_usual_class(checkpoint):
    drop(checkpoint, "lm_head.weight")
    with pytest.raises(ValueError, match="lacks 1 tensors .*: lm_head.weight"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


def test_who_asks_is_told_instead(checkpoint):
    drop(checkpoint, "lm_head.weight")
    model, info = VidLaDAForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert isinstance(model, VidLaDAForConditionalGeneration) and info["missing_keys"] == {"lm_head.weight"}


@pytest.mark.parametrize("cls", NEW_HEADS)
def test_a_new_head_is_initialized(checkpoint, cls):
    model = cls.from_pretrained(checkpoint)
    _, info = cls.from_pretrained(checkpoint, output_loading_info=True)
    assert info["missing_keys"] == {f"{NEW_HEADS[cls]}{part}" for part in ("weight", "bias")}
    expected = tiny_model().model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.base_model.state_dict().items()
               if not name.startswith("probe."))  # fmt: skip


@pytest.mark.parametrize("cls", NEW_HEADS)
def test_a_new_head_excuses_no_other_tensor(checkpoint, cls):
    drop(checkpoint, "model.language_model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*language_model.layers.1.mlp.up_proj.weight"):
        cls.from_pretrained(checkpoint)


@pytest.mark.parametrize("cls", NEW_HEADS)
def test_a_head_of_ones_own_is_required_of_ones_own_class(tmp_path, cls):
    cls(tiny_config()).save_pretrained(tmp_path)
    assert type(cls.from_pretrained(tmp_path)) is cls
    drop(tmp_path, f"{NEW_HEADS[cls]}bias")
    with pytest.raises(ValueError, match=rf"lacks 1 tensors .*: {NEW_HEADS[cls]}bias"):
        cls.from_pretrained(tmp_path)


@torch.no_grad()
def test_the_folder_of_the_model_without_a_head_loads_into_one_with(tmp_path):
    model = tiny_model()
    model.model.save_pretrained(tmp_path)
    again, info = VidLaDAForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {"lm_head.weight"} and not info["unexpected_keys"]
    inputs = example(model, 2)
    for loaded in (again, VidLaDAForConditionalGeneration.from_pretrained(tmp_path)):
        hidden = loaded.eval().model(**inputs).last_hidden_state
        torch.testing.assert_close(hidden, model.model(**inputs).last_hidden_state)
    drop(tmp_path, "image_newline.weight")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*: model.image_newline.weight"):
        VidLaDAForConditionalGeneration.from_pretrained(tmp_path)


def test_an_unknown_writer_is_required_to_hold_the_model_without_a_head(checkpoint):
    config = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").write_text(config.replace("VidLaDAForConditionalGeneration", "SomebodysClassifier"))
    drop(checkpoint, "lm_head.weight")
    VidLaDAForConditionalGeneration.from_pretrained(checkpoint)
    drop(checkpoint, "model.multi_modal_projector.linear_1.bias")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*: model.multi_modal_projector.linear_1.bias"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


def test_a_config_without_a_class_is_the_usual_ones(checkpoint):
    drop(checkpoint, "lm_head.weight")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*: lm_head.weight"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint, config=tiny_config())


@pytest.mark.parametrize(
    ("part", "layers"), [("text_config", 3), ("vision_config", 1)], ids=["a text layer fewer", "a tower's layer fewer"]
)
def test_a_config_with_fewer_layers_than_the_checkpoint_is_refused(checkpoint, part, layers):
    edit_config(checkpoint, lambda config: config[part].update(num_hidden_layers=layers))
    for cls in (VidLaDAForConditionalGeneration, VidLaDAModel, *NEW_HEADS):
        with pytest.raises(
            ValueError, match=rf"holds \d+ tensors that its config.json has no place for: .*layers.{layers}"
        ):
            cls.from_pretrained(checkpoint)
    _, info = VidLaDAForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert info["unexpected_keys"]


@pytest.mark.parametrize(
    ("part", "field", "value", "tensor", "shapes"),
    [
        ("text_config", "vocab_size", 300, "lm_head.weight", "(64, 32) instead of (300, 32)"),
        ("text_config", "num_key_value_heads", 1, "layers.0.self_attn.k_proj.weight", "(32, 32) instead of (8, 32)"),
        ("text_config", "intermediate_size", 64, "layers.0.mlp.down_proj.weight", "(32, 48) instead of (32, 64)"),
        ("vision_config", "patch_size", 7, "patch_embedding.weight", "(24, 3, 14, 14) instead of (24, 3, 7, 7)"),
    ],
)
def test_a_config_of_other_shapes_is_refused(checkpoint, part, field, value, tensor, shapes):
    edit_config(checkpoint, lambda config: config[part].update({field: value}))
    message = (
        f"{checkpoint} holds .* tensors of other shapes than its config.json says: .*{tensor}: {re.escape(shapes)}"
    )
    for options in ({}, {"output_loading_info": True}):
        with pytest.raises(ValueError, match=f"{message}.*copy the right config.json"):
            VidLaDAForConditionalGeneration.from_pretrained(checkpoint, **options)
    model = VidLaDAForConditionalGeneration.from_pretrained(checkpoint, ignore_mismatched_sizes=True)
    assert getattr(getattr(model.config, part), field) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {"num_attention_heads": 3}}, r"`text_config.hidden_size` \(32\) must be a multiple"),
        ({"text_config": {"hidden_size": "32"}}, "'hidden_size' expected int, got str"),
        ({"mask_token_id": 9999}, r"`mask_token_id` \(9999\) must lie in the vocabulary"),
        ({"vision_config": {"patch_size": 0}}, "`vision_config.patch_size` must be at least 1, got 0"),
    ],
)
def test_an_impossible_config_is_refused(checkpoint, change, message):
    fields = json.loads((checkpoint / "config.json").read_text())
    for name, value in change.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    (checkpoint / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"a"'])
def test_a_config_that_is_no_object_is_named(checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"{checkpoint}/config.json holds no JSON object"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_part_of_a_config_that_is_no_object_is_refused(checkpoint, part):
    edit_config(checkpoint, lambda config: config.update({part: []}))
    with pytest.raises(ValueError, match=f"`{part}` of config.json must be an object"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


def test_another_classes_head_may_be_left_out(checkpoint):
    assert VidLaDAModel.from_pretrained(checkpoint).language_model.layers
    tensors = load_file(checkpoint / "model.safetensors")
    save_file(tensors | {"score.weight": torch.ones(1, 32)}, checkpoint / "model.safetensors", {"format": "pt"})
    VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
def test_a_config_of_another_model_is_refused(checkpoint, part):
    edit_config(checkpoint, lambda config: (config[part] if part else config).update(model_type="llava"))
    where = f"`{part}` of config.json" if part else "config.json"
    with pytest.raises(ValueError, match=f"`model_type` in {where} is 'llava'"):
        VidLaDAForConditionalGeneration.from_pretrained(checkpoint)


def test_a_config_class_of_ones_own_reads_our_folders(checkpoint):
    class MyConfig(VidLaDAConfig):
        model_type = "mine"

    assert MyConfig.from_pretrained(checkpoint).text_config.num_hidden_layers == 4


def edit_config(checkpoint, change):
    """Changes the fields of a config.json."""
    config = json.loads((checkpoint / "config.json").read_text())
    change(config)
    (checkpoint / "config.json").write_text(json.dumps(config))
