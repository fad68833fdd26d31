"""Conversations to a training batch: inputs, and labels that say what is learned.

The objective itself masks the labeled tokens (see `modeling/objective_vidlada`). Here is decided which tokens carry a
label, and which turns attend to each other.
"""

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...modeling.objective_vidlada import IGNORED
from ..schema import Count, check_arguments


class RecordError(ValueError):
    """A conversation cannot be used. The message names its origin and the remedy."""

    def __init__(self, message: str) -> None:
        # A worker's error reaches the main process as a new one whose message is the worker's whole traceback. The
        # worker's own message stands at its end.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class TooLongError(RecordError):
    """A conversation takes more tokens than allowed."""


@dataclass(frozen=True)
class LabelOptions:
    """Which tokens are learned, and which attend to which.

    Args:
        headers: also label what the official data code labels: begin of text, the header and end-of-turn tokens of
            every turn, and the whole header of an answer. Off: only the answers, each with its end of turn.
        padding: label the padding as end of text and let it be attended to, which is how the official model learns
            where an answer ends. It is then on the right. Off: padding is on the left, masked, not learned.
        conversation_mask: a turn attends to itself and earlier turns only. Off: every token attends to every other, as
            in the official recipe.
        canvas: with `padding`, lengths of canvases: each batch is padded to prompt and canvas of one of them, drawn
            from those that its longest answer fits in and that `max_length` leaves room for, so that the model learns
            the canvases that it will be given. The draw follows from the batch's tokens, so that a resumed run pads as
            one that was never stopped.
        max_length: the longest sequence allowed, in tokens; None for no limit.
        text_only: whether conversations without a video or an image are allowed. Off: a record whose video was lost is
            refused instead of teaching the model to answer without looking.
    """

    headers: bool = False
    padding: bool = False
    conversation_mask: bool = False
    canvas: tuple[Count, ...] = ()
    max_length: Count | None = None
    text_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "canvas", tuple(self.canvas))
        if any(length < 1 for length in self.canvas):
            raise ValueError(f"`canvas` must be lengths of at least 1 token, got {list(self.canvas)}.")
        if self.canvas and (self.headers or not self.padding):
            raise ValueError("`canvas` says how far answers are padded: it needs `padding=True` and `headers=False`.")


PRESETS = {"answers": LabelOptions(), "official": LabelOptions(headers=True, padding=True)}


def resolve_labels(options: LabelOptions | str | Mapping[str, Any]) -> LabelOptions:
    """Options by the name of a preset, by their fields, or as they are.

    Raises:
        ValueError: an unknown preset or field, or a field of another type; the message names the known ones.
    """
    if isinstance(options, LabelOptions):
        return options
    if isinstance(options, str):
        if options not in PRESETS:
            raise ValueError(f"Unknown preset {options!r}; known are {', '.join(map(repr, PRESETS))}.")
        return PRESETS[options]
    check_arguments(options, LabelOptions, "`labels`")
    return LabelOptions(**options)


class DiffusionCollator:
    """Makes a batch of conversations.

    Args:
        processor: a `VidLaDAProcessor`.
        options: a `LabelOptions`, its fields, or the name of a preset: "answers" or "official".
        **processor_kwargs: passed to the processor: `num_frames`, `fps`, ...

    A call takes a list of `{"messages": [...]}` whose last message is an answer, each optionally with the "origin" that
    errors name it by, and "processor_kwargs" of its own; or what `encode` made of these. It returns what the model's
    forward takes: `input_ids` (batch, tokens), `labels` (batch, tokens) with -100 where nothing is learned,
    `attention_mask` where something is masked ((batch, tokens), or (batch, 1, tokens, tokens) with
    `conversation_mask`), and the visual inputs, a row for each example, which tools may cut between examples:
    `pixel_values_videos` (batch, frames, 3, side, side) with `num_frames_per_video` (batch, videos), and `pixel_values`
    (batch, images, 3, side, side), padded with zeros.

    Raises:
        ValueError: an unknown preset.
        RecordError: a conversation without an answer, with an empty one or without a video.
        TooLongError: one of more tokens than `max_length`.
    """

    def __init__(
        self, processor: Any, options: LabelOptions | str | Mapping[str, Any] = "answers", **processor_kwargs: Any
    ) -> None:
        self.processor, self.options, self.processor_kwargs = processor, resolve_labels(options), processor_kwargs
        tokenizer = processor.tokenizer
        self.start_header, self.end_header, self.end_of_turn, self.begin = tokenizer.convert_tokens_to_ids(
            ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", tokenizer.bos_token]
        )
        self.assistant = tokenizer("assistant", add_special_tokens=False).input_ids

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        encoded = [
            example if "labels" in example else self.encode({"origin": f"Example {i} of the batch"} | example)
            for i, example in enumerate(examples)
        ]
        batch = self._pad(encoded)
        for name in ("pixel_values_videos", "num_frames_per_video", "pixel_values"):
            if any(name in example for example in encoded):
                batch[name] = pad_rows([example.get(name) for example in encoded])
        return batch

    def encode(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """One example: `input_ids`, `labels` and `turns` (tokens,), its visual inputs, and its "origin"."""
        messages, origin = example["messages"], example.get("origin", "The example")
        check_answers(messages, origin)
        inputs = dict(
            self.processor.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=False,
                processor_kwargs=self.processor_kwargs | dict(example.get("processor_kwargs") or {}),
            )
        )
        ids = inputs["input_ids"][0]
        if not self.options.text_only and not {"pixel_values_videos", "pixel_values"} & set(inputs):
            raise RecordError(
                f"{origin} has no video and no image: add one to its first message, or allow that with "
                "`text_only=True`."
            )
        if self.options.max_length is not None and len(ids) > self.options.max_length:
            raise TooLongError(
                f"{origin} takes {len(ids)} tokens, more than `max_length` "
                f"({self.options.max_length}). Sample fewer frames, shorten the text, or leave it out."
            )
        labels, turns = self.label(ids)
        return inputs | {"input_ids": ids, "labels": labels, "turns": turns, "origin": origin}

    def label(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and turn numbers, (tokens,) each, of one rendered conversation (tokens,).

        A new turn begins with the first message that follows an answer and is none.
        """
        labels, turns = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        if self.options.headers:
            for special in (self.begin, self.start_header, self.end_header, self.end_of_turn):
                labels[ids == special] = special
        turn, was_answer = 0, False
        for start, body, end in self.segments(ids.tolist()):
            is_answer = ids[start + 1 : body - 1].tolist() == self.assistant
            turn += was_answer and not is_answer
            was_answer = is_answer
            turns[start:] = turn
            if is_answer:
                first = start if self.options.headers else body
                labels[first:end] = ids[first:end]
        return labels, turns

    def segments(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """Where each message stands: (its header, its text, one past its end of turn)."""
        segments = []
        for start in (i for i, token in enumerate(ids) if token == self.start_header):
            body = ids.index(self.end_header, start) + 1
            segments.append((start, body, ids.index(self.end_of_turn, body) + 1))
        return segments

    def _pad(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Joins the examples, padded on the left, or on the right where padding is learned."""
        side = "right" if self.options.padding else "left"
        pad = self.processor.tokenizer.pad_token_id
        fillers = {"input_ids": pad, "labels": pad if self.options.padding else IGNORED, "turns": -1}
        joined = {
            name: torch.nn.utils.rnn.pad_sequence(
                [example[name] for example in examples], batch_first=True, padding_value=filler, padding_side=side
            )
            for name, filler in fillers.items()
        }
        if self.options.canvas:
            wanted = self._draw_length(examples, joined["input_ids"].shape[1])
            for name, filler in fillers.items():
                more = wanted - joined[name].shape[1]
                joined[name] = torch.nn.functional.pad(joined[name], (0, max(0, more)), value=filler)
        turns = joined.pop("turns")
        if self.options.conversation_mask:
            joined["attention_mask"] = conversation_mask(turns, attend_padding=self.options.padding)
        elif (turns < 0).any() and not self.options.padding:
            joined["attention_mask"] = (turns >= 0).long()
        return joined

    def _draw_length(self, examples: list[dict[str, torch.Tensor]], least: int) -> int:
        """Tokens of the longest prompt and of a canvas that holds the longest answer; `least` where none does."""
        prompts = [int((example["labels"] != IGNORED).nonzero()[0]) for example in examples]
        answer = max(len(example["labels"]) - prompt for example, prompt in zip(examples, prompts, strict=True))
        room = (self.options.max_length or sys.maxsize) - max(prompts)
        fitting = [length for length in self.options.canvas if answer <= length <= room]
        tokens = torch.cat([example["input_ids"] for example in examples]).numpy().tobytes()
        return max(prompts) + fitting[zlib.crc32(tokens) % len(fitting)] if fitting else least


def pad_rows(rows: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Tensors (length, ...) -> (batch, longest, ...), padded with zeros; None for nothing, at least one is not."""
    like = next(row for row in rows if row is not None)
    filled = [like[:0] if row is None else row for row in rows]
    return torch.nn.utils.rnn.pad_sequence(filled, batch_first=True)


def conversation_mask(turns: torch.Tensor, attend_padding: bool = False) -> torch.Tensor:
    """Which tokens attend to which: turn j is visible to turn i if j <= i.

    Args:
        turns: (batch, tokens), -1 for padding.
        attend_padding: padding belongs to the last turn, instead of being invisible.

    Returns:
        (batch, 1, tokens, tokens), bool.
    """
    if attend_padding:
        turns = torch.where(turns < 0, turns.amax(-1, keepdim=True), turns)
    visible = (turns[:, None, :] <= turns[:, :, None]) & (turns >= 0)[:, None, :]
    return visible[:, None]


def check_answers(messages: Sequence[dict[str, Any]], origin: str) -> None:
    """Raises a RecordError unless the conversation ends with an answer and none of its answers is empty."""
    if not messages or messages[-1]["role"] != "assistant":
        raise RecordError(f"{origin} does not end with an answer: its last message must be assistant's.")
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
        # Such as a zero-width space is no space, and prints nothing.
        if message["role"] == "assistant" and not any(c.isprintable() and not c.isspace() for c in text):
            raise RecordError(f"{origin} has an empty answer: give it text, or leave it out.")


__all__ = [
    "PRESETS",
    "DiffusionCollator",
    "LabelOptions",
    "RecordError",
    "TooLongError",
    "conversation_mask",
    "resolve_labels",
]
