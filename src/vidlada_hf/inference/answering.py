"""Answers about many videos: read ahead by threads, generated in batches of like length, one bad file left out."""

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.nn.utils.rnn import pad_sequence

from ..hub.loading import load_network, load_settings, resolve_device
from ..hub.locate import find_checkpoint
from ..modeling.arguments_vidlada import check_positions
from ..modeling.configuration_vidlada import VidLaDAConfig
from ..processing.begun_answers_vidlada import refuse_long_text
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.read_ahead_vidlada import map_ahead
from ..processing.sampling_vidlada import check_sampling
from ..processing.video_once_vidlada import VideoOnce
from .ask import ask_about, prepare
from .batching import batch_by_length
from .video_list import Request


@dataclass(frozen=True)
class Outcome:
    """What became of a request: an answer, or the error that kept it from having one."""

    request: Request
    answer: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A request whose video is read.

    Args:
        request: the request.
        source: its video, which requests that follow each other share.
        inputs: `input_ids` and `attention_mask`, (1, tokens).
        visual: the other inputs of the model.
        error: what kept the video from being read; the rest is empty then.
    """

    request: Request
    source: VideoOnce
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    visual: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.inputs["input_ids"].shape[1] if self.inputs else 0


class VideoAnswerer:
    """Answers questions about any number of videos; the weights are loaded once.

    Args:
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        processor_kwargs: options of the processor, such as {"num_frames": 32}.
        batch_size: requests that are answered at a time. Up to three times as many videos are in memory.
        workers: threads that read videos.
        device, dtype: of the weights, see `load_network`.
        settings: fields of `VidLaDAGenerationConfig`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an impossible setting, before the weights are loaded.
    """

    def __init__(
        self,
        model: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        batch_size: int = 8,
        workers: int = 2,
        device: str | None = None,
        dtype: str = "auto",
        **settings: Any,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        name = find_checkpoint(model)
        self.config = load_settings(name, settings)
        self.positions = VidLaDAConfig.from_pretrained(name).text_config.max_position_embeddings
        if self.config.max_new_tokens >= self.positions:
            raise ValueError(
                f"`max_new_tokens` ({self.config.max_new_tokens}) leaves no room for a prompt: the model has "
                f"{self.positions} positions. Ask for a shorter answer."
            )
        self.batch_size, self.workers = batch_size, workers
        self.processor_kwargs = processor_kwargs or {}
        check_sampling(*map(self.processor_kwargs.get, ("num_frames", "fps", "max_frames")))
        self.processor = VidLaDAProcessor.from_pretrained(name)
        self.network = load_network(name, resolve_device(device), dtype)
        self._own = threading.local()

    def answer(self, requests: Iterable[Request]) -> Iterator[list[Outcome]]:
        """Yields what became of some requests, until all had their turn; those of like length come together.

        A video that cannot be read, or a request that the model cannot take, is an error of its own. The video of
        requests that follow each other is read and encoded once.
        """
        videos = (list(group) for _, group in groupby(requests, key=lambda request: request.video))
        size = self.batch_size
        with closing(map_ahead(self._prepare, videos, self.workers, ahead=size)) as read:
            for batch in batch_by_length(chain.from_iterable(read), lambda one: one.length, size, window=2 * size):
                unread = [Outcome(one.request, error=one.error) for one in batch if one.error is not None]
                yield unread + self._answer([one for one in batch if one.error is None])

    def _prepare(self, requests: Sequence[Request]) -> list[Prepared]:
        """Requests about one video, with their inputs. Runs in threads."""
        source, prepared = VideoOnce(requests[0].video), []
        if not hasattr(self._own, "processor"):  # a tokenizer has a state, and serves one thread
            self._own.processor = copy.deepcopy(self.processor)
        processor, positions = self._own.processor, self.positions
        for request in requests:
            try:
                chat = ask_about(source, request.question)
                refuse_long_text(processor, chat, positions, add_generation_prompt=True)
                inputs, visual = prepare(processor, chat, self.processor_kwargs)
                check_positions(inputs["attention_mask"], self.config.max_new_tokens, positions)
                prepared.append(Prepared(request, source, inputs, visual))
            except (ValueError, OSError) as error:
                prepared.append(Prepared(request, source, error=str(error)))
        return prepared

    def _answer(self, batch: Sequence[Prepared]) -> list[Outcome]:
        """Answers a batch. Where that fails its halves are tried, so that one request does not stand for others."""
        if not batch:
            return []
        problem = ""
        try:
            texts = self._generate(batch)
        except (ValueError, RuntimeError) as error:
            if not (isinstance(error, ValueError) or should_reduce_batch_size(error)):
                raise
            problem = str(error)  # the error itself would hold on to the tensors of what failed
        if not problem:
            return [Outcome(one.request, answer=text) for one, text in zip(batch, texts, strict=True)]
        if len(batch) == 1:
            return [Outcome(batch[0].request, error=problem)]
        half = len(batch) // 2
        return self._answer(batch[:half]) + self._answer(batch[half:])

    def _generate(self, batch: Sequence[Prepared]) -> list[str]:
        network, tokenizer = self.network, self.processor.tokenizer
        one_each = [one.source.encode(network, one.inputs, one.visual, share_video=False) for one in batch]
        padded: dict[str, Any] = {
            name: pad_sequence(
                [one[name][0] for one in one_each], batch_first=True, padding_value=value, padding_side="left"
            ).to(network.device)
            for name, value in (("input_ids", tokenizer.pad_token_id), ("attention_mask", 0))
        }
        output: Any = network.generate(
            **padded,
            video_features=[features for one in one_each for features in one["video_features"]],
            num_frames_per_video=torch.cat([one["num_frames_per_video"] for one in one_each]),
            generation_config=self.config,
            tokenizer=tokenizer,
        )
        answers = output[:, padded["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]


__all__ = ["Outcome", "VideoAnswerer"]
