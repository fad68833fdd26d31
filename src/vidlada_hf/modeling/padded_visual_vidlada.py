"""Frames and images in a row for each example, which survive tools that cut a batch along its first dimension.

accelerate does so with the batches of an iterable data set, and `DataParallel` with every batch. Flat frames, (frames
of all videos, 3, side, side), would be cut between examples. A row holds the frames of all videos of its example, one
behind the other, then padding; what is padding follows from the counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .configuration_vidlada import VidLaDAConfig


def flatten_frames(
    pixels: torch.Tensor, counts: torch.Tensor | Sequence[int] | None
) -> tuple[torch.Tensor, torch.Tensor | Sequence[int] | None]:
    """Frames of all videos, one behind the other, and how many each video has.

    Args:
        pixels: (frames of all videos, 3, side, side), which is returned as it is; or (batch, frames, 3, side, side).
        counts: of rows, (batch,) or (batch, videos), 0 where there is no video; without them each row is a video
            without padding.

    Raises:
        ValueError: counts of another number of rows, or more frames than a row has.
    """
    if pixels.dim() != 5:
        return pixels, counts
    rows, length = pixels.shape[:2]
    if counts is None:
        return pixels.flatten(0, 1), [length] * rows
    each = torch.as_tensor(counts).cpu()
    each = each[None] if rows == 1 and each.dim() == 1 else each[:, None] if each.dim() == 1 else each
    if len(each) != rows or int(each.sum(-1).max()) > length:
        raise ValueError(
            f"`pixel_values_videos` has {rows} rows of {length} frames, which `num_frames_per_video` "
            f"({each.squeeze().tolist()}) does not fit: it says how many frames each video of each row has."
        )
    return unpad(pixels, each.sum(-1).tolist()), each[each > 0]


def flatten_visual(visual: Mapping[str, Any], input_ids: torch.Tensor, config: VidLaDAConfig) -> dict[str, Any]:
    """Arguments of `forward` with `pixel_values_videos`, `num_frames_per_video` and `pixel_values` made flat.

    Images of rows, (batch, images, 3, side, side), are as many in each as the ids (batch, tokens) have places for.
    """
    flat, images = dict(visual), visual.get("pixel_values")
    if visual.get("pixel_values_videos") is not None:
        flat["pixel_values_videos"], flat["num_frames_per_video"] = flatten_frames(
            visual["pixel_values_videos"], visual.get("num_frames_per_video")
        )
        if visual["pixel_values_videos"].dim() == 5 and not len(flat["pixel_values_videos"]):  # rows without a video
            flat["pixel_values_videos"] = flat["num_frames_per_video"] = None
    if images is not None and images.dim() == 5:
        counts = count_images(input_ids, config)
        if len(counts) != len(images) or max(counts) > images.shape[1]:
            raise ValueError(
                f"`pixel_values` has {len(images)} rows of {images.shape[1]} images, and the examples of `input_ids` "
                f"have places for {counts}: give each example a row with its images."
            )
        flat["pixel_values"] = unpad(images, counts) if any(counts) else None
    return flat


def count_images(input_ids: torch.Tensor, config: VidLaDAConfig) -> list[int]:
    """How many images each example of ids (batch, tokens) has places for."""
    return ((input_ids == config.image_token_id).sum(-1) // (config.vision_grid**2 + 1)).tolist()


def unpad(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """(batch, length, ...) -> (sum of counts, ...), the first so many of each row."""
    if all(count == rows.shape[1] for count in counts):
        return rows.flatten(0, 1)
    return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])


def explain_cut(frames: int, videos: int, is_replica: bool) -> str:
    """Why there may be other frames than the counts of videos say, and the remedy.

    Args:
        is_replica: of `DataParallel`.
    """
    if is_replica or frames == videos:
        tool = "`DataParallel`" if is_replica else "accelerate, dispatching the batches of an iterable data set,"
        other = (
            "start one process a GPU (`torchrun`, `accelerate launch`)"
            if is_replica
            else "let each process read its own (`TrainingArguments(accelerator_config={'dispatch_batches': False})`)"
        )
        return (
            f"{tool} cuts a batch along its first dimension, and so flat frames between examples. Give each example "
            "a row of frames, as `DiffusionCollator` does (in a collator of your own "
            f"`torch.nn.utils.rnn.pad_sequence(frames_of_each_example, batch_first=True)`), or {other}."
        )
    return (
        "The batching of transformers' own pipelines cuts frames off: use batch_size=1 there, or the pipeline "
        "'video-text-to-text'."
    )


__all__ = ["count_images", "explain_cut", "flatten_frames", "flatten_visual"]
