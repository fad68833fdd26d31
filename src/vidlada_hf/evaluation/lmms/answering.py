"""Chats and their settings in, texts or scores out: a network and a processor that lmms-eval's model drives."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ...hub.loading import load_network
from ...hub.locate import find_checkpoint
from ...modeling.arguments_vidlada import text_ids
from ...modeling.fingerprints_vidlada import fingerprint_model
from ...processing.processing_vidlada import VidLaDAProcessor
from ...processing.read_ahead_vidlada import map_ahead
from ...processing.video_once_vidlada import VISUAL_INPUTS, VideoOnce
from .batches import Batch
from .model_args import ModelArgs


class Answerer:
    """A checkpoint that answers chats.

    Args:
        args: see `ModelArgs`; another may be set later, with the same `pretrained` and `dtype`.
        device: where the network is.

    Attributes:
        identity: of the weights, 16 hexadecimal digits.
    """

    def __init__(self, args: ModelArgs, device: torch.device) -> None:
        self.args, self.device = args, device
        self.name = find_checkpoint(args.pretrained)
        self.processor = VidLaDAProcessor.from_pretrained(self.name)
        self.network = load_network(self.name, str(device), args.dtype)
        self.identity = fingerprint_model(self.network)
        self._threads = threading.local()

    def generate(self, batches: Sequence[Batch], size: int) -> Iterator[list[str]]:
        """The texts of each batch's answers, in turn; the videos of the next ones are read meanwhile.

        Args:
            size: how many are answered at a time.
        """
        for batch, inputs in self._encode_all(batches, size):
            settings = {"allow_uneven": True, **batch.prompts[0].settings}
            texts: list[str] = []
            for each in inputs:
                output = self._generate(each, settings)
                texts += [self.processor.decode(ids, skip_special_tokens=True).strip() for ids in output]
            yield texts

    def score(self, batch: Batch, choices: Sequence[str]) -> tuple[list[float], list[bool]]:
        """Scores given answers to one prompt.

        Returns:
            Their log-likelihoods in nats (see `score_choices`), and whether each is what is generated on the canvas
            that it is judged on: its tokens and the end of the turn, a token a step.
        """
        ((_, (inputs,)),) = self._encode_all([batch], 1)
        tokenizer = self.processor.tokenizer
        scores = self.network.score_choices(**inputs, choices=list(choices), tokenizer=tokenizer)
        ids = [text_ids(choice, tokenizer, "The choice", split_special_tokens=True) for choice in choices]
        greedy: dict[int, list[int]] = {}
        for length in sorted({len(each) for each in ids}):
            canvas = {"max_new_tokens": length + 1, "block_length": length + 1, "max_denoising_steps": length + 1}
            greedy[length] = self._generate(inputs, {"temperature": 0.0, **canvas})[0].tolist()
        return scores[0].tolist(), [greedy[len(each)][: len(each)] == each for each in ids]

    @torch.no_grad()
    def _generate(self, inputs: dict[str, Any], settings: dict[str, Any]) -> torch.Tensor:
        """Ids of the answers, (batch, tokens)."""
        output = self.network.generate(**inputs, **settings, tokenizer=self.processor.tokenizer)
        return output[:, inputs["input_ids"].shape[1] :]

    def _encode_all(self, batches: Sequence[Batch], size: int) -> Iterator[tuple[Batch, Iterator[dict[str, Any]]]]:
        """Each batch with the arguments of `generate` for its parts. A video that its prompts share is encoded once."""

        def read(batch: Batch) -> Any:
            return self._read_shared(batch) if batch.shares_video else self._read_each(batch)

        for batch, done in zip(
            batches, map_ahead(read, batches, self.args.workers, ahead=self.args.workers), strict=True
        ):
            yield batch, self._encode_shared(batch, size, *done) if batch.shares_video else iter([self._send(done)])

    def _encode_shared(
        self, batch: Batch, size: int, source: VideoOnce, prompts: list[dict[str, Any]], visual: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        for part in batch.parts(size):
            padded = self.processor.tokenizer.pad(prompts[part], padding=True, return_tensors="pt")
            ids = {name: padded[name].to(self.device) for name in ("input_ids", "attention_mask")}
            visual = {name: self._cast(value) for name, value in visual.items()}
            yield source.encode(self.network, ids, visual, self.args.share_video)

    def _read_each(self, batch: Batch) -> dict[str, Any]:
        return self._apply([prompt.messages for prompt in batch.prompts])

    def _read_shared(self, batch: Batch) -> tuple[VideoOnce, list[dict[str, Any]], dict[str, Any]]:
        """The video that all prompts are about, the ids of each prompt, and the video's pixels."""
        source, prompts, visual = VideoOnce(batch.prompts[0].video), [], {}
        for prompt in batch.prompts:
            inputs = self._apply([replace_video(prompt.messages, source)])
            visual = {name: inputs.pop(name) for name in VISUAL_INPUTS if name in inputs}
            prompts.append({name: inputs[name][0].tolist() for name in ("input_ids", "attention_mask")})
        return source, prompts, visual

    def _apply(self, chats: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """Inputs of chats. Each thread has a processor of its own: a fast tokenizer is no thing to share."""
        if not hasattr(self._threads, "processor"):
            self._threads.processor = VidLaDAProcessor.from_pretrained(self.name)
        return dict(
            self._threads.processor.apply_chat_template(
                chats,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
                processor_kwargs={**self.args.inputs, "padding": True},
            )
        )

    def _send(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: self._cast(value) for name, value in inputs.items()}

    def _cast(self, value: torch.Tensor) -> torch.Tensor:
        dtype = self.network.dtype if value.is_floating_point() else value.dtype
        return value.to(self.device, dtype)


def replace_video(messages: list[dict[str, Any]], source: Any) -> list[dict[str, Any]]:
    """The messages with another source in the place of their video."""
    return [
        {
            **message,
            "content": [{**part, "video": source} if part["type"] == "video" else part for part in message["content"]],
        }
        for message in messages
    ]


__all__ = ["Answerer", "replace_video"]
