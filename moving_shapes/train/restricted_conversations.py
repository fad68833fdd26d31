"""The objective itself on moving shapes, with a softmax that leaves out held-out combinations of color and shape.

One turn, full attention, masks at a random rate that weighs the loss. Only the softmax of color and shape words
excludes words that training never combines with the shape or color (see `combinations`): with all words in it, hundreds
of steps teach that a circle is never red.
"""

from functools import cached_property
from typing import Any

import torch

from vidlada_hf.modeling.objective_vidlada import IGNORED, diffusion_loss
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.collator import resolve_labels

from .combinations import excluded_words, exclusion_codes

SOURCE = "moving_shapes.train.conversations:ShapeConversations"


class RestrictedConversationTask(ConversationTask):
    """Conversations about moving shapes, with a restricted softmax.

    Args:
        model, processor, seed: as of `Task`.
        options: fields of `ConversationOptions`. The source of `data` must be `SOURCE`: of other answers it is not
            known which shape their words are about.
    """

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        contents = super().check(options, seed)
        if options["data"]["source"] != SOURCE:
            raise ValueError(f"{cls.__name__} needs the source {SOURCE!r}, got {options['data']['source']!r}.")
        if resolve_labels(options.get("labels", "answers")).headers:
            raise ValueError(f"{cls.__name__} learns answers alone: leave `headers` (and 'official') out of `labels`.")
        return contents

    @cached_property
    def excluded_words(self) -> torch.Tensor:
        """bool (codes, vocabulary), of `combinations.excluded_words`."""
        return excluded_words(self.processor.tokenizer.get_vocab())

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """A batch of conversations, with `exclusion_codes` (batch, tokens), int64, 0 outside of answers."""
        batch = super().collate(examples)
        codes = torch.zeros_like(batch["labels"])
        for row, labels, item in zip(codes, batch["labels"], examples, strict=True):
            of_answer = exclusion_codes(item["example"].details, item["example"].scene)
            first = int((labels != IGNORED).nonzero()[0])
            row[first : first + len(of_answer)] = torch.from_numpy(of_answer)
        return batch | {"exclusion_codes": codes}

    def forward(self, *, exclusion_codes: torch.Tensor, **batch: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's own loss, with the masks that the trainer has drawn and the restricted softmax."""
        labels, masked = batch["labels"], batch["masked"]
        logits = self.model(**batch).masked_logits
        excluded = self.excluded_words.to(logits.device)[exclusion_codes[masked]]
        rates, weights = batch["mask_probabilities"], batch.get("example_weights")
        return {"loss": diffusion_loss(logits.masked_fill(excluded, -torch.inf), labels, masked, rates, weights)}


__all__ = ["RestrictedConversationTask"]
