"""What `forward` does with labels: it masks, and computes the loss that `objective_vidlada` defines.

In an evaluation (eval mode, no gradients) an example's masks follow from what it holds: the same weights have the same
loss on the same data, whatever the batches. Whoever computes a loss from logits is told that it is another objective.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import torch_compilable_check

from .devices_vidlada import execution_device, move_to
from .labeled_prompts_vidlada import attended_tokens
from .objective_vidlada import IGNORED, TimeSampling, check_labels, check_masks, complete_masks, diffusion_loss
from .outputs_vidlada import VidLaDAMultimodalOutput
from .padded_visual_vidlada import count_images, flatten_visual
from .text_model_vidlada import require_one

SAMPLED = 16  # values of a frame that seed the masks of its example
NO_LOGITS = (
    "With `labels` VidLaDA returns no `logits`: it saw part of the answer, so a loss computed from them and the labels "
    "(shifted, smoothed, distilled, ...) would be another objective. Use `loss`, the masked one, or `masked_logits`, "
    "one row for each masked token."
)


@dataclass
class VidLaDALossOutput(VidLaDAMultimodalOutput):
    """What `VidLaDAForConditionalGeneration` returns with `labels`. It has no `logits`: see the error of that name.

    Args:
        loss (`torch.FloatTensor`, a scalar): the masked objective.
        predictions (`torch.LongTensor` of shape `(batch, tokens)`): only in an evaluation (eval mode, no gradients, no
            masks of the caller's): the most probable id at each labeled position where the whole answer is masked, -100
            elsewhere.
        masked_logits (`torch.FloatTensor` of shape `(masked tokens, vocabulary)`): otherwise, in the row-major order of
            `masked`.
        hidden_states, attentions: one a layer, where asked for, of the input with its masks.
        image_outputs, video_outputs: as of `VidLaDAOutput`.
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    masked_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None

    @property
    def logits(self) -> torch.Tensor:
        raise AttributeError(NO_LOGITS)

    def __getitem__(self, key: Any) -> Any:
        if key == "logits":
            raise KeyError(NO_LOGITS)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict, but refuses "logits" as `outputs["logits"]` does."""
        return self[key] if key == "logits" else super().get(key, default)


@dataclass(frozen=True)
class GivenMasks:
    """The arguments of `forward` that say what is masked, and how it is weighed."""

    masked: torch.Tensor | None
    probabilities: torch.Tensor | None
    example_weights: torch.Tensor | None
    time_sampling: TimeSampling
    generator: torch.Generator | Sequence[torch.Generator] | None

    @property
    def are_open(self) -> bool:
        """Whether nothing says which tokens are masked."""
        return self.masked is None and self.probabilities is None and self.generator is None

    def beside(self, labels: torch.Tensor) -> "GivenMasks":
        """The same on the device of the labels."""
        return replace(
            self,
            masked=move_to(labels, self.masked),
            probabilities=move_to(labels, self.probabilities),
            example_weights=move_to(labels, self.example_weights),
        )


class VidLaDALossMixin:
    """The loss of a `VidLaDAForConditionalGeneration`."""

    # The loss is a mean over examples: `Trainer` averages it over accumulated batches instead of passing a token count.
    accepts_loss_kwargs = False

    def _masked_loss(
        self: Any,
        labels: torch.Tensor,
        inputs: dict[str, Any],
        given: GivenMasks,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> VidLaDALossOutput:
        """What `forward` returns with labels (batch, tokens).

        Args:
            inputs: `input_ids` and arguments of `encode_visual`; or `inputs_embeds`.
            kwargs: other arguments of `VidLaDAModel.forward`.
        """
        if num_items_in_batch is not None:
            raise ValueError(
                "VidLaDA's loss is a mean over examples, which `num_items_in_batch` cannot scale: leave it out, and "
                "average over accumulated batches, as `Trainer` does for a model with `accepts_loss_kwargs = False`."
            )
        labels = labels.long()
        inputs["input_ids"] = move_to(labels, inputs["input_ids"])
        kwargs |= {name: move_to(labels, kwargs[name]) for name in ("attention_mask", "position_ids")}
        given = given.beside(labels)
        check_is_not_packed(labels, kwargs["position_ids"], kwargs["attention_mask"])
        check_length(labels, kwargs["attention_mask"], self.config.text_config.max_position_embeddings)
        embeddings, towers = self._embed_labeled(labels, inputs, given)
        is_evaluation = not self.training and not torch.is_grad_enabled() and given.are_open
        generator = given.generator
        if is_evaluation:
            generator = self._fixed_generators(labels, inputs, kwargs["attention_mask"])
        masked, probabilities = complete_masks(
            labels, given.masked, given.probabilities, given.time_sampling, generator
        )
        # At every position, as where the ids held the masks: hooks of the embeddings (noise) take it for their input.
        mask_ids = torch.full_like(labels, self.config.mask_token_id)
        mask = self.get_input_embeddings()(mask_ids.to(execution_device(self.get_input_embeddings(), labels)))

        def run(masked: torch.Tensor) -> tuple[torch.Tensor, Any]:
            inputs_embeds = torch.where(masked[..., None].to(mask.device), mask, embeddings.to(mask.device))
            outputs = self.model(inputs_embeds=inputs_embeds, return_dict=True, **kwargs)
            states = outputs.last_hidden_state
            return self.lm_head(states[masked.to(states.device)]), outputs

        logits, outputs = run(masked)
        loss = diffusion_loss(logits, labels, masked, probabilities, given.example_weights)
        states = (outputs.hidden_states, outputs.attentions, *towers)
        if not is_evaluation:
            return VidLaDALossOutput(loss, None, logits, *states)
        # Not from those logits: they saw part of the answer, at most places the very token that is asked for.
        predictions = torch.full_like(labels, IGNORED)
        predictions[labels != IGNORED] = run(labels != IGNORED)[0].argmax(-1).to(labels.device)
        return VidLaDALossOutput(loss, predictions, None, *states)

    def _embed_labeled(
        self: Any, labels: torch.Tensor, inputs: dict[str, Any], given: GivenMasks
    ) -> tuple[torch.Tensor, tuple[Any, Any]]:
        """Embeddings (batch, tokens, hidden) of inputs that fit labels and masks, and what the tower made of images and
        videos."""
        visual = dict(inputs)
        ids, embeddings = visual.pop("input_ids"), visual.pop("inputs_embeds")
        require_one(ids, embeddings)
        tokens = ids if embeddings is None else embeddings
        placeholders = (self.config.video_token_id, self.config.image_token_id)
        check_labels(labels, tokens, self.config.text_config.vocab_size, placeholders)
        check_masks(labels, given.masked, given.probabilities, given.example_weights)
        if embeddings is not None:
            return embeddings, (None, None)
        towers = self.model.encode_visual(ids, **visual)
        return self.model.embed(ids, *towers), towers

    def _fixed_generators(
        self: Any, labels: torch.Tensor, inputs: dict[str, Any], attention_mask: torch.Tensor | None
    ) -> list[torch.Generator]:
        ids = inputs["input_ids"]
        if ids is None:
            return fixed_generators(labels, None, attention_mask)
        visual = flatten_visual(inputs, ids, self.config)
        frames = (ids == self.config.video_token_id).sum(-1) // self.model.tokens_per_frame
        counted = (
            (visual["pixel_values_videos"], frames.tolist()),
            (visual["pixel_values"], count_images(ids, self.config)),
        )
        pixels = [(each, counts) for each, counts in counted if each is not None]
        return fixed_generators(labels, ids, attention_mask, pixels)


def fixed_generators(
    labels: torch.Tensor,
    inputs: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    pixels: Sequence[tuple[torch.Tensor, Sequence[int]]] = (),
) -> list[torch.Generator]:
    """A generator for each example, seeded by what the example holds: not by its batch, its place or its padding.

    Args:
        labels, inputs: (batch, tokens), int64; `inputs` may be None.
        attention_mask: see `attended_tokens`.
        pixels: frames or images (count, 3, side, side), and how many of them each example has. Some of their values
            tell apart videos that are asked the same.
    """
    kept, labels = attended_tokens(labels, attention_mask).cpu(), labels.cpu()
    held = [[own[rows].numpy().tobytes()] for own, rows in zip(labels, kept, strict=True)]
    if inputs is not None:
        for parts, own, rows in zip(held, inputs.cpu(), kept, strict=True):
            parts.append(own[rows].numpy().tobytes())
    for frames, counts in pixels:
        values = frames.flatten(1)
        sample = values[:, :: max(1, values.shape[1] // SAMPLED)].float().cpu()
        for parts, own in zip(held, sample.split(list(counts)), strict=True):
            parts.append(own.numpy().tobytes())
    seeds = [hashlib.blake2b(b"|".join(parts), digest_size=8).digest() for parts in held]
    return [torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1) for seed in seeds]


def check_is_masked(is_masked: torch.Tensor | bool) -> None:
    """Whether ids that a model is trained on without labels hold a mask at all.

    Raises:
        ValueError: they do not. A loss computed from such logits teaches to copy an answer that the model sees.
    """
    torch_compilable_check(
        is_masked,
        "In training, `input_ids` came without `labels` and without a single mask token. A loss computed outside of "
        "the model (label smoothing, `compute_loss_func`, TRL's SFTTrainer, a shifted cross entropy, ...) would teach "
        "it to copy an answer that it sees: another objective than masked diffusion. Pass `labels` to the model's "
        "forward and take its `loss`, as transformers' `Trainer` does without such options. For inference call "
        "`model.eval()` or use `torch.no_grad()`; for a loss of your own mask part of the answer "
        "(`config.mask_token_id`), and draw again where no token is; for a head of your own pass "
        "`output_hidden_states=True` or call `model.model`.",
    )


def check_length(labels: torch.Tensor, attention_mask: torch.Tensor | None, limit: int) -> None:
    """Refuses examples that take more than the model's `limit` of positions."""
    if labels.shape[1] <= limit:
        return
    lengths = attended_tokens(labels, attention_mask).sum(-1)
    if (lengths > limit).any():
        raise ValueError(
            f"Example {int(lengths.argmax())} takes {int(lengths.max())} tokens, and the model has {limit} positions: "
            "sample fewer frames, shorten the text, or leave it out. "
            "(`model.config.text_config.max_position_embeddings` says how many.)"
        )


def check_is_not_packed(
    labels: torch.Tensor, position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> None:
    """Whether each row holds one conversation, or a mask that parts them.

    Raises:
        ValueError: positions (batch or 1, tokens) begin anew in a row. Causal models take such packing for several
            examples; here all tokens of a row see each other.
    """
    if position_ids is None or (attention_mask is not None and attention_mask.dim() == 4):
        return
    attended = attended_tokens(labels, attention_mask)
    restarts = (position_ids[:, 1:] <= position_ids[:, :-1]) & attended[:, 1:] & attended[:, :-1]
    if restarts.any():
        raise ValueError(
            "`position_ids` begin anew in a row: several conversations are packed into it, and would see each other. "
            "Set `packing=False` and `padding_free=False`, or give an `attention_mask` (batch, 1, tokens, tokens), "
            "True where a token sees another."
        )


__all__ = ["GivenMasks", "VidLaDALossMixin", "VidLaDALossOutput", "check_is_masked", "fixed_generators"]
