"""The cases recorded from the official code, its tiny checkpoint, and its inputs as our model takes them."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

from .golden import GOLDEN

PLACEHOLDER = -200  # the recorded id of an image or a video


# --- recorded cases --------------------------------------------------------------------------------------------------


@cache
def load_json(golden: Path, name: str) -> Any:
    """A recorded file of cases. Texts that are written as token ids are decoded."""

    def decode(item: dict) -> Any:
        return golden_tokenizer(golden).decode(item["text_as_ids"]) if "text_as_ids" in item else item

    return json.loads((golden / "cases" / f"{name}.json").read_text(), object_hook=decode)


def case_names(name: str, **fields: Any) -> list[str]:
    """The cases of a file of `GOLDEN`, to parametrize a test with: all that have these fields."""
    return [case["name"] for case in load_json(GOLDEN, name) if all(case.get(k) == v for k, v in fields.items())]


def find_case(golden: Path, file: str, name: str, **fields: Any) -> dict:
    """One recorded case.

    Raises:
        KeyError: there is none of that name (and with these fields).
    """
    for case in load_json(golden, file):
        if case.get("name") == name and all(case.get(k) == v for k, v in fields.items()):
            return case
    raise KeyError(f"{golden} has no case {name!r} in {file}.json.")


@cache
def load_tensors(golden: Path, name: str) -> dict[str, torch.Tensor]:
    """The recorded tensors of a file of cases."""
    return load_file(golden / "cases" / f"{name}.safetensors")


def recorded_difference(actual: torch.Tensor, golden: Path, file: str, name: str) -> torch.Tensor:
    """`actual` minus the recorded tensor, at the rows (vectors of the last axis) that were recorded."""
    tensors = load_tensors(golden, file)
    rows = tensors.get(f"{name}.rows")
    if rows is not None:
        actual = actual.flatten(0, -2)[rows]
    assert actual.shape == tensors[name].shape, (name, actual.shape, tensors[name].shape)
    return actual - tensors[name]


def assert_recorded(actual: torch.Tensor, golden: Path, file: str, name: str, atol: float) -> None:
    """`actual` is the recorded tensor, up to `atol`."""
    largest = recorded_difference(actual, golden, file, name).abs().max().item()
    assert largest <= atol, f"{name} differs by {largest:.1e} from the recorded one, more than {atol:.1e}."


# --- the model -------------------------------------------------------------------------------------------------------


@cache
def golden_tokenizer(golden: Path) -> PreTrainedTokenizerFast:
    """The recorded tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(golden / "tokenizer")


@cache
def golden_ids(golden: Path) -> dict[str, int]:
    """The ids of special tokens: mask, end_of_text_and_pad, start_header, eot ..."""
    return load_json(golden, "id_map")["names"]


@cache
def tower_settings(golden: Path) -> dict[str, Any]:
    """The configuration of the vision tower: image_size, patch_size, num_attention_heads ..."""
    return json.loads((golden / "siglip-tiny" / "config.json").read_text())


@cache
def golden_model(golden: Path) -> VidLaDAForConditionalGeneration:
    """The official checkpoint, loaded as it is."""
    vision_config = tower_settings(golden)
    return VidLaDAForConditionalGeneration.from_pretrained(golden / "checkpoint", vision_config=vision_config).eval()


def golden_processor(golden: Path, **options: Any) -> VidLaDAProcessor:
    """A processor with the recorded tokenizer and the sizes of the recorded tower; `options` of `VidLaDAProcessor`."""
    tower = tower_settings(golden)
    size = {"height": tower["image_size"], "width": tower["image_size"]}
    return VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=golden_tokenizer(golden),
        video_processor=VidLaDAVideoProcessor(size=size),
        patch_size=tower["patch_size"],
        **options,
    )


# --- its inputs ------------------------------------------------------------------------------------------------------


@cache
def resized_frames(golden: Path, name: str) -> torch.Tensor:
    """Recorded frames "fa", "fb" or "fc" after the resize, uint8 (frames, 3, size, size).

    Where only sums and a crop of them are recorded, they are resized again by the library that the official code
    uses, and compared with what is recorded.
    """
    recorded = load_tensors(golden, "preprocess")
    if f"{name}.resized_u8_nchw" in recorded:
        return recorded[f"{name}.resized_u8_nchw"]
    size = (tower_settings(golden)["image_size"],) * 2
    images = [Image.fromarray(frame.numpy()) for frame in recorded[f"{name}.frames_u8_nhwc"]]
    resized = np.stack([np.array(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
    frames = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()
    assert torch.equal(frames.long().sum((2, 3)), recorded[f"{name}.resized_u8_channel_sums"])
    for (rows, columns), crop in recorded_crops(golden, name):
        assert torch.equal(frames[:, :, rows, columns], crop)
    return frames


def recorded_crops(golden: Path, name: str) -> Iterator[tuple[tuple[slice, slice], torch.Tensor]]:
    """Crops of resized frames: rows and columns, and the uint8 pixels (frames, 3, rows, columns)."""
    for key, crop in load_tensors(golden, "preprocess").items():
        if found := re.fullmatch(rf"{name}\.resized_u8_rows(\d+)_(\d+)_cols(\d+)_(\d+)", key):
            top, bottom, left, right = map(int, found.groups())
            yield (slice(top, bottom), slice(left, right)), crop


def pixels(golden: Path, name: str) -> torch.Tensor:
    """Recorded frames "fa", "fb", "fc" or a slice such as "fa[0:1]", as the official code makes them.

    (frames, 3, size, size), float32.
    """
    key, _, bounds = name.partition("[")
    frames = load_tensors(golden, "preprocess")["lut"][resized_frames(golden, key).long()]
    start, stop = (int(i) for i in bounds.rstrip("]").split(":")) if bounds else (0, len(frames))
    return frames[start:stop]


def golden_inputs(golden: Path, case: dict) -> dict:
    """Our inputs for a recorded case: its placeholder becomes as many ids as it has visual features.

    Sets the newline position of the shared model to the case's.
    """
    model = golden_model(golden)
    video_id = model.config.video_token_id
    model.config.newline_position = case.get("config_overrides", {}).get("mm_newline_position", "grid")
    names = case["frames"] if isinstance(case["frames"], list) else [case["frames"]] if case["frames"] else []
    videos = [pixels(golden, name) for name in names]
    one_token = model.config.newline_position == "one_token"
    counts = iter([len(video) * model.model.tokens_per_frame + one_token for video in videos])
    ids, mask = [], []
    attended = case.get("attention_mask") or [1] * len(case["input_ids"])
    for token, keep in zip(case["input_ids"], attended, strict=True):
        times = next(counts) if token == PLACEHOLDER else 1
        ids += [video_id if token == PLACEHOLDER else token] * times
        mask += [keep] * times
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([mask])}
    if videos:
        inputs["pixel_values_videos"] = torch.cat(videos)
        inputs["num_frames_per_video"] = torch.tensor([len(video) for video in videos])
    return inputs
