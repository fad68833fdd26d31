"""One video of several questions, read once and encoded once."""

from collections.abc import Callable
from typing import Any

import torch

VISUAL_INPUTS = ("pixel_values", "pixel_values_videos", "num_frames_per_video")


class VideoOnce:
    """A video that several chats name: read by the processor once, and encoded by the model once.

    All of them read it with the same options, and it is the only visual in each.

    Args:
        source: see `read_video`.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._read: Any = None
        self._encoded: dict[str, Any] = {}

    def read_once(self, read: Callable[[Any], Any]) -> Any:
        """What `read(source)` returned the first time."""
        if self._read is None:
            self._read = read(self.source)
        return self._read

    def encode(self, model: Any, inputs: dict[str, Any], visual: dict[str, Any], share_video: bool) -> dict[str, Any]:
        """Arguments of `generate` for chats about it: of the video what is encoded, in place of its pixels.

        Args:
            inputs: `input_ids` and `attention_mask`, (batch, tokens), on the model's device.
            visual: the other inputs of one chat, anywhere.
            share_video: its keys and values are kept, for which it does not see the questions; else its features.
        """
        if not self._encoded:
            visual = {name: value.to(model.device) for name, value in visual.items()}
            if share_video:
                one = {name: value[:1] for name, value in inputs.items()}
                self._encoded["video_cache"] = model.encode_video(**one, **visual)
            else:
                counts = visual["num_frames_per_video"]
                with torch.no_grad():
                    outputs = model.get_video_features(visual["pixel_values_videos"], counts, return_dict=True)
                self._encoded["video_features"] = outputs.pooler_output
                self._encoded["num_frames_per_video"] = counts
        if share_video:
            return {**inputs, **self._encoded}
        batch = len(inputs["input_ids"])
        features, counts = self._encoded["video_features"], self._encoded["num_frames_per_video"]
        return {**inputs, "video_features": features * batch, "num_frames_per_video": counts.repeat(batch)}


__all__ = ["VISUAL_INPUTS", "VideoOnce"]
