"""transformers' common tests of models and their configurations, run on tiny ones."""

import unittest
from typing import Any
from unittest import mock

import torch
from transformers import PreTrainedModel

from tests.tiny_models import tiny_config
from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration, VidLaDAModel
from vidlada_hf.modeling.text_model_vidlada import VidLaDAPreTrainedModel

from .package import exclude, upstream

common = upstream("test_modeling_common")
configuration = upstream("test_configuration_common")
parallel = upstream("test_tensor_parallel_mixin")
parallel.TP_DISTRIBUTED_TEST_MODEL_TYPES = None  # a list of models, to save transformers' own time

MASK, IMAGE, VIDEO, IMAGE_TOKENS = 1, 3, 4, 5
VOCABULARY = 99

# Of these tests the inputs are text alone: they draw ids from the whole vocabulary, or replace ids by embeddings, which
# say nothing of placeholders.
TEXT_ALONE = ("test_inputs_embeds", "test_model_rope_scaling")

EXCLUDED = {
    "test_causal_lm_loss_honors_shift_labels": "a masked token is predicted at its own position: nothing is shifted",
    "test_tp_backward": "each forward draws its masks anew, so that two losses of the same labels differ",
    "test_tp_generation": "it compares `scores`, which autoregressive decoding returns; tests/test_tensor_parallel.py "
    "compares answers",
}


class Tester:
    """What the common tests ask about the model: sizes, configurations and inputs, of an image and text each."""

    conditional_generation_class = VidLaDAForConditionalGeneration
    is_training = True
    batch_size, seq_length = 7, IMAGE_TOKENS + 9
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent: unittest.TestCase, text_alone: bool) -> None:
        self.parent, self.text_alone = parent, text_alone

    def get_config(self) -> VidLaDAConfig:
        """A configuration for images of 2 x 2 patches."""
        text = {
            "vocab_size": VOCABULARY,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": 512,
        }
        beyond = VOCABULARY if self.text_alone else 0  # placeholders that no test draws
        ids = {"image_token_id": IMAGE + beyond, "video_token_id": VIDEO + beyond, "mask_token_id": MASK}
        config = tiny_config(**ids, text_config=text)
        config.vision_config.image_size = 28
        return config

    def prepare_config_and_inputs_for_common(self) -> tuple[VidLaDAConfig, dict[str, Any]]:
        """A configuration, and arguments of `forward`."""
        ids = common.ids_tensor([self.batch_size, self.seq_length], VOCABULARY).clamp(5)
        ids[:, -1] = MASK  # as where a model is trained
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if not self.text_alone:
            ids[:, 1 : 1 + IMAGE_TOKENS] = IMAGE
            inputs["pixel_values"] = common.floats_tensor([self.batch_size, 3, 28, 28])
        return self.get_config(), inputs


class ConfigTester(configuration.ConfigTester):
    def create_and_test_config_to_json_file(self) -> None:
        """Excluded: a file says which code reads it (`auto_map`), and a configuration that was never saved does not."""


@exclude(EXCLUDED)
class ModelTest(common.ModelTesterMixin, parallel.TensorParallelTesterMixin, unittest.TestCase):
    all_model_classes = (VidLaDAModel, VidLaDAForConditionalGeneration)
    _is_composite = True
    additional_model_inputs = ("pixel_values",)
    model_tester: Any = None

    def setUp(self) -> None:
        self.model_tester = Tester(self, self._testMethodName.startswith(TEXT_ALONE))
        self.config_tester = ConfigTester(self, config_class=VidLaDAConfig, has_text_modality=False)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if "labels" in inputs:  # nothing is learned on visual tokens
            inputs["labels"][inputs["input_ids"] == IMAGE] = -100
        return inputs

    def _video_features_prepare_config_and_inputs(self) -> tuple[VidLaDAConfig, dict[str, Any]]:
        config, inputs = super()._video_features_prepare_config_and_inputs()
        counts = torch.ones(len(inputs["pixel_values_videos"]), dtype=torch.long)  # frames are flat
        return config, inputs | {"num_frames_per_video": counts}

    def _get_tp_config(self, tie_word_embeddings: bool | None = None) -> VidLaDAConfig:
        config = super()._get_tp_config(tie_word_embeddings)
        config.image_token_id, config.video_token_id = VOCABULARY, VOCABULARY + 1  # which no test draws
        return config

    def test_reverse_loading_mapping(self) -> None:
        # Models are saved in this package's names unless asked otherwise, and none without a head was ever official.
        with mock.patch.object(VidLaDAPreTrainedModel, "save_pretrained", PreTrainedModel.save_pretrained):
            super().test_reverse_loading_mapping(skip_base_model=True)


class TextConfigTest(unittest.TestCase):
    def test_config(self) -> None:
        ConfigTester(self, config_class=VidLaDATextConfig).run_common_tests()
