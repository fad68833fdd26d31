"""How likely given answers are: choices by score instead of by generation.

A choice of one token is judged by the log-softmax at the first of two masks (the token and the end of the turn): one
forward pass serves all choices, as the official evaluation's two masks in two steps do. For longer ones that is not
defined, since the model predicts masked tokens given the others. They are judged by the bound on the log-likelihood
that the model is trained on (LLaDA, arXiv 2502.09992, equation 4): masks are drawn at a random rate, and the
log-probabilities of what is masked are divided by the rate and summed; the mean over draws that all choices share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments_vidlada import (
    check_choice,
    check_ids,
    check_seed,
    check_whole,
    prepare_prompts,
    refuse_unknown,
    text_ids,
)
from .cache_vidlada import DenoisingStep
from .denoising_run_vidlada import refuse_broken
from .devices_vidlada import exact_dtype
from .generation_config_vidlada import VidLaDAGenerationConfig
from .objective_vidlada import draw_mask_probabilities
from .outputs_vidlada import pooled_features
from .padded_visual_vidlada import flatten_visual
from .video_cache_vidlada import VISUAL_INPUTS, ChatBeginning, choose_shared

# What else of `generate` makes sense where nothing is generated.
OTHERS = (
    "vision_batch_size",
    "video_cache",
    "share_video",
    "cache_strategy",
    "cache_config",
    "cfg_scale",
    "cuda_graphs",
    "compile",
)


class VidLaDAScoringMixin:
    """`score_choices` for a masked diffusion language model that has `generate`."""

    config: Any
    model: Any
    scoring_arguments = frozenset(
        {*VISUAL_INPUTS, *OTHERS, "tokenizer", "normalize", "num_draws", "seed", "end_token_id"}
    )

    @torch.no_grad()
    def score_choices(
        self: Any,
        input_ids: torch.Tensor,
        choices: Sequence[Any],
        attention_mask: torch.Tensor | None = None,
        *,
        tokenizer: Any = None,
        normalize: str | None = None,
        num_draws: int = 32,
        seed: int = 0,
        end_token_id: int | None = None,
        **arguments: Any,
    ) -> torch.Tensor:
        """The log-likelihood of each given answer, in nats.

        Args:
            input_ids, attention_mask: (batch, tokens), prompts as for `generate`.
            choices: texts or lists of ids, the same for all prompts; or a list of these for each prompt.
            tokenizer: for texts, in which control tokens are text.
            normalize: None sums over a choice's tokens and the end of the turn; "token" divides by their number. Of
                choices of a prompt that are all one token both give the log-probability of that token.
            num_draws, seed: of the masks, where some choice of a prompt has several tokens.
            end_token_id: that ends a turn; None: the first of the generation config's `eos_token_id`.
            arguments: as for `generate`: `pixel_values_videos` and the like, `vision_batch_size`, `video_cache`,
                `share_video`, `cache_strategy`, `cache_config`, `cfg_scale`, `cuda_graphs`, `compile`. A strategy sees
                each draw as a step.

        Returns:
            (batch, choices), float64 (float32 on a device that has no float64): -inf behind a prompt's last choice,
            where another has more. A prompt's scores do not depend on the others of its batch.

        Raises:
            ValueError: no choices, an empty one, or not a list for each prompt; texts without a tokenizer; an argument
                that is unknown, or about generating.
        """
        check_arguments(arguments)
        if normalize is not None:
            check_choice("normalize", normalize, ("token",))
        check_whole("num_draws", num_draws, 1)
        check_seed("seed", seed)
        prepare_prompts(input_ids, attention_mask, torch.device("cpu"))  # refuses another shape
        ids = encode_choices(choices, len(input_ids), tokenizer)
        check_ids("choices", [i for row in ids for choice in row for i in choice], self.config.text_config.vocab_size)
        end = self._end_token(end_token_id)
        prompts = Prompts.encode(self.model, input_ids, attention_mask, arguments)
        scores = torch.full((len(ids), max(map(len, ids))), -torch.inf, dtype=exact_dtype(input_ids.device))
        at_once = [all(len(choice) == 1 for choice in row) for row in ids]
        if any(at_once):
            self._score_tokens(prompts, ids, [i for i, short in enumerate(at_once) if short], scores)
        rows = [i for i, short in enumerate(at_once) if not short]
        draws = {i: draw_shared_masks(max(map(len, ids[i])) + 1, num_draws, seed) for i in rows}
        self._score_texts(prompts, ids, draws, end, normalize == "token", scores)
        return refuse_nan(scores).to(input_ids.device)

    def _score_texts(
        self: Any,
        prompts: "Prompts",
        ids: list[list[list[int]]],
        draws: dict[int, tuple[torch.Tensor, torch.Tensor]],
        end: int,
        per_token: bool,
        scores: torch.Tensor,
    ) -> None:
        """Writes the scores, (batch, choices), of the rows that have draws (see `draw_shared_masks`)."""
        for length in sorted({len(choice) for i in draws for choice in ids[i]}):  # a canvas has one length
            rows = [(i, j) for i in draws for j, choice in enumerate(ids[i]) if len(choice) == length]
            answers = torch.tensor([[*ids[i][j], end] for i, j in rows])
            rates, masked = draws[rows[0][0]][0], torch.stack([draws[i][1][:, : length + 1] for i, _ in rows])
            bound = self._bound(prompts.take([i for i, _ in rows]), answers, rates, masked)
            examples, columns = torch.tensor(rows).unbind(1)
            scores[examples, columns] = (bound / (length + 1 if per_token else 1)).to(scores)

    def _score_tokens(
        self: Any, prompts: "Prompts", ids: list[list[list[int]]], rows: list[int], scores: torch.Tensor
    ) -> None:
        """Writes the scores, (batch, choices), of the rows whose choices are all one token."""
        masks = torch.full((len(rows), 1, 2), self.config.mask_token_id)
        (logits,) = self._canvas_logits(prompts.take(rows), masks)
        found = logits[:, 0].to(exact_dtype(logits.device)).log_softmax(-1)
        for row, values in zip(rows, found, strict=True):
            wanted = [token for (token,) in ids[row]]
            scores[row, : len(wanted)] = values[wanted].to(scores)

    def _end_token(self: Any, end: int | None) -> int:
        if end is None:
            ends = self.generation_config.eos_token_id
            end = ends[0] if isinstance(ends, list | tuple) and ends else ends
        if not isinstance(end, int):
            raise ValueError(f"`end_token_id` must say what ends a turn: the model's `eos_token_id` is {end!r}.")
        return end

    def _bound(
        self: Any, prompts: "Prompts", answers: torch.Tensor, rates: torch.Tensor, masked: torch.Tensor
    ) -> torch.Tensor:
        """(prompts,), on the CPU: the mean over draws of the bound on each answer's log-likelihood.

        Args:
            answers: (prompts, tokens), int64.
            rates, masked: (draws,) and (prompts, draws, tokens), see `draw_shared_masks`.
        """
        canvases = torch.where(masked, self.config.mask_token_id, answers[:, None])
        total: Any = 0.0
        for draw, logits in enumerate(self._canvas_logits(prompts, canvases)):
            found = logits.to(exact_dtype(logits.device)).log_softmax(-1)
            found = found.gather(-1, answers.to(logits.device)[..., None])[..., 0].cpu()
            total += torch.where(masked[:, draw], found, 0).sum(-1) / rates[draw].to(found.dtype)
        return total / len(rates)

    def _canvas_logits(self: Any, prompts: "Prompts", canvases: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the logits of each canvas in turn, (prompts, canvas, vocabulary), float32; nothing is committed.

        Args:
            canvases: (prompts, canvases, canvas), int64.
        """
        length, arguments = canvases.shape[2], dict(prompts.arguments)
        batch_size = arguments.pop("vision_batch_size", 16)
        settings = {"max_new_tokens": length, "block_length": length, "max_denoising_steps": None, "cfg_scale": 0.0}
        settings |= arguments
        request = self._check_request(
            prompts.input_ids,
            prompts.attention_mask,
            settings.pop("video_cache", None),
            None,
            settings.pop("cache_strategy", None),
            "quota",  # nothing is committed: a stored rule need not fit the strategy
            None,
            None,
            {**settings, "canvas": canvases[:, 0]},
        )
        with self._denoising(request, prompts.visual(), batch_size, may_stop=False) as (run, graphs):
            for index, ids in enumerate(canvases.unbind(1)):
                run.canvas.ids.copy_(ids)
                yield self._block_logits(run, DenoisingStep(index, 0, index, run.layout.canvas), graphs)


@dataclass(frozen=True)
class Prompts:
    """Prompts with their videos encoded, so that each may be asked about several choices.

    Args:
        input_ids, attention_mask: (batch, tokens).
        features, num_frames: of each prompt, the features of its videos, (tokens, hidden) each, and their frames.
        images: of each prompt, (images, 3, side, side); None: there are none.
        arguments: other arguments of `generate`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    features: list[list[torch.Tensor]]
    num_frames: list[list[int]]
    images: list[torch.Tensor] | None
    arguments: dict[str, Any]

    @classmethod
    def encode(
        cls, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, arguments: dict[str, Any]
    ) -> "Prompts":
        """Runs the vision tower, where that was not done: `arguments` are those of `generate`."""
        arguments = flatten_visual(arguments, input_ids, model.config)
        rest = dict(arguments)
        pixels, features = rest.pop("pixel_values_videos", None), rest.pop("video_features", None)
        counts, images = rest.pop("num_frames_per_video", None), rest.pop("pixel_values", None)
        tokens = (input_ids == model.config.video_token_id).sum(-1).tolist()
        shared: Any = choose_shared(rest.get("video_cache"), rest.pop("share_video", False))
        if shared is not None:  # it holds all that is visual, and is compared with it here
            shared = ChatBeginning.of(model.config, input_ids, attention_mask) if shared is True else shared
            shared.cut_off(input_ids, attention_mask)  # refuses what does not begin so
            visual = {name: arguments.get(name) for name in VISUAL_INPUTS}
            rest["video_cache"] = shared.ready(model, visual, len(input_ids), rest.get("vision_batch_size", 16))
            pixels = features = counts = images = None
            tokens = [0] * len(tokens)
        if pixels is not None:
            features = model.get_video_features(pixels, counts, rest.get("vision_batch_size", 16), return_dict=True)
        features = pooled_features(features)
        if isinstance(features, torch.Tensor) and features.dim() == 2:  # of all videos in one tensor
            features = features.split(video_lengths(model, tokens, counts))
        features = [] if features is None else list(features)
        frames = (
            [len(each) // model.tokens_per_frame for each in features] if counts is None else [int(n) for n in counts]
        )
        shares = deal([len(each) for each in features], tokens, "video")
        split_images = None
        if images is not None:
            tokens = (input_ids == model.config.image_token_id).sum(-1).tolist()
            size = sum(tokens) // max(len(images), 1)
            split_images = [images[share] for share in deal([size] * len(images), tokens, "image")]
        return cls(
            input_ids,
            attention_mask,
            [features[share] for share in shares],
            [frames[share] for share in shares],
            split_images,
            rest,
        )

    def take(self, prompts: list[int]) -> "Prompts":
        """These prompts, in this order, repeats allowed."""
        return Prompts(
            self.input_ids[prompts],
            None if self.attention_mask is None else self.attention_mask[prompts],
            [self.features[i] for i in prompts],
            [self.num_frames[i] for i in prompts],
            None if self.images is None else [self.images[i] for i in prompts],
            self.arguments,
        )

    def visual(self) -> dict[str, Any]:
        """Visual arguments of `generate`."""
        features = [feature for own in self.features for feature in own]
        frames = [count for own in self.num_frames for count in own]
        device = self.input_ids.device
        return {
            "video_features": features or None,
            "num_frames_per_video": torch.tensor(frames, device=device) if frames else None,
            "pixel_values": None if self.images is None else torch.cat(self.images),
        }


def check_arguments(arguments: dict[str, Any]) -> None:
    """Refuses what `generate` does not know, and what is about generating."""
    fields = [name for name in VidLaDAGenerationConfig.FIELDS if name not in OTHERS]
    for name in arguments:
        if name in fields:
            raise ValueError(f"`{name}` is about generating, and choices are only scored: leave it out.")
    refuse_unknown(arguments, sorted(VidLaDAScoringMixin.scoring_arguments), "argument of `score_choices`:")


def video_lengths(model: Any, tokens: list[int], counts: Any) -> list[int]:
    """How many features each video has: as its frames say, or, where these are not given, as its prompt has places."""
    if counts is None:
        return [count for count in tokens if count]
    newline = model.config.newline_position == "one_token"
    return [int(count) * model.tokens_per_frame + newline for count in counts]


def deal(sizes: list[int], tokens: list[int], what: str) -> list[slice]:
    """Which of the videos or images, of these many tokens each, belong to each prompt, by its placeholders."""
    shares, begin = [], 0
    for wanted in tokens:
        end = begin
        while end < len(sizes) and sum(sizes[begin:end]) < wanted:
            end += 1
        if sum(sizes[begin:end]) != wanted:
            raise ValueError(
                f"A prompt has {wanted} {what} tokens, and its {what}s {sum(sizes[begin:end])}: give each as the "
                "processor prepares it."
            )
        shares.append(slice(begin, end))
        begin = end
    return shares


def encode_choices(choices: Sequence[Any], batch: int, tokenizer: Any) -> list[list[list[int]]]:
    """Ids of each choice of each prompt."""
    if not isinstance(choices, list | tuple) or not choices:
        raise ValueError(f"`choices` must be a list of texts or of ids, got {choices!r}.")
    each = [is_choice(choice) for choice in choices]
    rows = [choices] * batch if all(each) else choices
    is_list = all(each) or all(isinstance(row, list | tuple) and row and all(map(is_choice, row)) for row in choices)
    if not is_list or len(rows) != batch:
        raise ValueError(f"`choices` must be one list for all {batch} prompts, or a list for each, got {choices!r}.")
    return [[encode_choice(choice, tokenizer) for choice in row] for row in rows]


def is_choice(choice: Any) -> bool:
    """Whether something is one choice: a text, or a sequence of ids."""
    return isinstance(choice, str) or (isinstance(choice, list | tuple) and all(isinstance(i, int) for i in choice))


def encode_choice(choice: Any, tokenizer: Any) -> list[int]:
    """The ids of one choice."""
    if isinstance(choice, str):  # control tokens in it are text
        text, choice = choice, text_ids(choice, tokenizer, "The choice", split_special_tokens=True)
        if text and not choice:
            raise ValueError(f"The choice {text!r} is empty: the tokenizer has no tokens for it. Give another text.")
    if not choice:
        raise ValueError("A choice is empty: give at least one token.")
    return [int(i) for i in choice]


def refuse_nan(scores: torch.Tensor) -> torch.Tensor:
    """The scores, (batch, choices); raises a ValueError for an example that has none."""
    refuse_broken(scores.isnan().any(-1))
    return scores


def draw_shared_masks(length: int, draws: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rate of each draw, (draws,), spread evenly; and what it masks, (draws, length), bool, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    rates = draw_mask_probabilities(draws, torch.device("cpu"), generator, "stratified")
    return rates, torch.rand(draws, length, generator=generator) < rates[:, None]


__all__ = ["VidLaDAScoringMixin"]
