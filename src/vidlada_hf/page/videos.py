"""The model behind the page, and the last few videos that it was asked about, each read and encoded once."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..hub.loading import load_network, load_settings, resolve_device
from ..hub.locate import find_checkpoint
from ..inference.ask import ask_about, prepare
from ..modeling.arguments_vidlada import check_positions
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..processing.begun_answers_vidlada import refuse_long_text
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.video_once_vidlada import VideoOnce
from .stepping import Draft, denoise_stepwise
from .uploads import check_upload, folder_hidden

KEPT_VIDEOS = 4  # whose features, or keys and values, stay on the device


@dataclass(frozen=True)
class Prompt:
    """A question about a video, ready for `PageModel.denoise`.

    Args:
        inputs: arguments of `generate`.
        frames: uint8 RGB (frames, height, width, 3), what the tower sees.
        times: of the frames, in seconds; empty where the video has no clock.
    """

    inputs: dict[str, Any]
    frames: np.ndarray
    times: list[float]


class PageModel:
    """A checkpoint that is asked about uploaded videos, by one visitor at a time.

    Args:
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        device, dtype: of the weights, see `load_network`.
        max_seconds: the longest video that is taken.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint or device.
    """

    def __init__(
        self, model: str | None = None, device: str | None = None, dtype: str = "auto", max_seconds: float = 600
    ) -> None:
        self.name, self.max_seconds = find_checkpoint(model), max_seconds
        device = resolve_device(device)
        self.settings = load_settings(self.name, {})
        self.processor = VidLaDAProcessor.from_pretrained(self.name)
        self.network = load_network(self.name, device, dtype)
        self._open = lru_cache(maxsize=KEPT_VIDEOS)(self._open_video)

    def _open_video(self, path: str, num_frames: int, share_video: bool) -> VideoOnce:
        check_upload(path, self.max_seconds)
        return VideoOnce(path)

    def prompt(self, path: str, question: str, num_frames: int, share_video: bool, max_new_tokens: int) -> Prompt:
        """Reads and encodes the video, if it is none of the last ones, and puts the question behind it.

        Args:
            share_video: keep its keys and values, for which it does not see the question; else its features.

        Raises:
            ValueError: a video that is too long or cannot be read, or a question that is too long.
        """
        positions = self.network.config.text_config.max_position_embeddings
        video = self._open(path, num_frames, share_video)
        chat = ask_about(video, question)
        refuse_long_text(self.processor, chat, positions, add_generation_prompt=True)
        with folder_hidden(path):
            inputs, visual = prepare(self.processor, chat, {"num_frames": num_frames, "return_metadata": True})
        (metadata,) = inputs.pop("video_metadata")
        check_positions(inputs["attention_mask"], max_new_tokens, positions)
        inputs = {name: value.to(self.network.device) for name, value in inputs.items()}
        inputs = video.encode(self.network, inputs, visual, share_video)
        times = metadata.timestamps if metadata.fps else []
        return Prompt(inputs, self._frames(visual["pixel_values_videos"]), times)

    def denoise(self, prompt: Prompt, settings: VidLaDAGenerationConfig) -> Generator[Draft, None, None]:
        """The answer, step by step (see `denoise_stepwise`)."""
        tokenizer = self.processor.tokenizer
        return denoise_stepwise(
            partial(self.network.generate, **prompt.inputs, generation_config=settings, tokenizer=tokenizer)
        )

    def _frames(self, pixel_values: Any) -> np.ndarray:
        """Pixel values (frames, 3, height, width) as pictures again."""
        means, deviations = self.processor.video_processor.image_mean, self.processor.video_processor.image_std
        pictures = pixel_values.float().cpu().permute(0, 2, 3, 1).numpy() * np.array(deviations) + np.array(means)
        return (pictures.clip(0, 1) * 255).round().astype(np.uint8)


__all__ = ["PageModel", "Prompt"]
