"""The golden checkpoint and its inputs, as our model takes them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

PLACEHOLDER, IMAGE, VIDEO = -200, 512, 513  # recorded placeholder; ours, the first ids outside the vocabulary


def load_json(golden: Path, name: str):
    """A recorded file of cases."""
    return json.loads((golden / "cases" / f"{name}.json").read_text())


@cache
def load_tensors(golden: Path, name: str) -> dict[str, torch.Tensor]:
    """The recorded tensors of a file of cases."""
    return load_file(golden / "cases" / f"{name}.safetensors")


@cache
def golden_tokenizer(golden: Path) -> PreTrainedTokenizerFast:
    """The recorded tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(golden / "tokenizer")


@cache
def golden_model(golden: Path) -> VidLaDAForConditionalGeneration:
    """The official checkpoint, loaded as it is."""
    vision_config = json.loads((golden / "siglip-tiny" / "config.json").read_text())
    return VidLaDAForConditionalGeneration.from_pretrained(golden / "checkpoint", vision_config=vision_config).eval()


def pixels(golden: Path, name: str) -> torch.Tensor:
    """Recorded frames "fa", "fb", "fc" or a slice such as "fa[0:1]", as the official code makes them.

    (frames, 3, 384, 384), float32.

    Of "fc" only the raw frame and sums over the resized one are recorded: it is resized again by the library that the
    official code uses, and checked against the sums.
    """
    recorded = load_tensors(golden, "preprocess")
    key, _, bounds = name.partition("[")
    if key == "fc":
        image = Image.fromarray(recorded["fc.frames_u8_nhwc"][0].numpy()).resize((384, 384), Image.Resampling.BICUBIC)
        resized = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        assert torch.equal(resized.long().sum((2, 3)), recorded["fc.resized_u8_channel_sums"])
    else:
        resized = recorded[f"{key}.resized_u8_nchw"]
    frames = recorded["lut"][resized.long()]
    start, stop = (int(i) for i in bounds.rstrip("]").split(":")) if bounds else (0, len(frames))
    return frames[start:stop]


def golden_inputs(golden: Path, case: dict) -> dict:
    """Our inputs for a recorded case: its placeholder becomes as many ids as its visual features take rows.

    Sets the newline position of the shared model to the case's.
    """
    model = golden_model(golden)
    model.config.newline_position = case.get("config_overrides", {}).get("mm_newline_position", "grid")
    names = case["frames"] if isinstance(case["frames"], list) else [case["frames"]] if case["frames"] else []
    videos = [pixels(golden, name) for name in names]
    one_token = model.config.newline_position == "one_token"
    rows = iter([len(video) * model.model.tokens_per_frame + one_token for video in videos])
    ids, mask = [], []
    attended = case.get("attention_mask") or [1] * len(case["input_ids"])
    for token, keep in zip(case["input_ids"], attended, strict=True):
        times = next(rows) if token == PLACEHOLDER else 1
        ids += [VIDEO if token == PLACEHOLDER else token] * times
        mask += [keep] * times
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([mask])}
    if videos:
        inputs["pixel_values_videos"] = torch.cat(videos)
        inputs["video_num_frames"] = torch.tensor([len(video) for video in videos])
    return inputs
