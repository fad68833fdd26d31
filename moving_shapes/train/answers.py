"""The objective itself on moving shapes, of which training never shows some combinations of color and shape.

One turn, everything attends to everything, masked at a random rate that weighs the loss. Only the softmax of color and
shape words leaves out what training never shows together (see `combinations`): with all words in it, hundreds of steps
teach that a circle is never red.
"""

from functools import cached_property
from typing import Any

import torch

from vidlada_hf.modeling.objective_vidlada import IGNORED, diffusion_loss
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.collator import resolve_labels

from .combinations import code_answer, left_out

SOURCE = "moving_shapes"


class Answers(ConversationTask):
    """Conversations about moving shapes; the options are those of `ConversationTask`, with no other source."""

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises as `ConversationTask`, and a ValueError for another source: its answers are not known word by word."""
        contents = super().check(options, seed)
        if options["data"]["source"] != SOURCE:
            raise ValueError(f"The task 'answers' needs the source {SOURCE!r}, got {options['data']['source']!r}.")
        if resolve_labels(options.get("labels", "answers")).headers:
            raise ValueError(
                "The task 'answers' learns answers alone: leave `headers` (and 'official') out of `labels`."
            )
        return contents

    @cached_property
    def left_out(self) -> torch.Tensor:
        """See `combinations.left_out`."""
        return left_out(self.processor.tokenizer.get_vocab())

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """A batch of conversations with `codes` (batch, rows): what each word of an answer belongs to, else 0."""
        batch = super().collate(examples)
        codes = torch.zeros_like(batch["labels"])
        for row, labels, example in zip(codes, batch["labels"], examples, strict=True):
            known = code_answer(example["example"].details, example["example"].scene)
            first = int((labels != IGNORED).nonzero()[0])
            row[first : first + len(known)] = torch.from_numpy(known)
        return batch | {"codes": codes}

    def forward(self, *, codes: torch.Tensor, **batch: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's own loss, with the masks that the trainer has drawn and a softmax of what can be told apart."""
        labels, masked = batch["labels"], batch["masked"]
        logits = self.model(**batch).logits
        logits = logits.masked_fill(self.left_out.to(codes.device)[codes[masked]], -torch.inf)
        rates, weights = batch["mask_probabilities"], batch.get("example_weights")
        return {"loss": diffusion_loss(logits, labels, masked, rates, weights)}


__all__ = ["Answers"]
