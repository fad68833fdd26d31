"""A prototype of WINO (arXiv 2507.18578): does taking tokens back make long answers right in fewer forward passes?

    python benchmarks/wino.py [--questions 100] [--output FILE.json]

WINO commits every token above a low bound (0.6), and looks at it again in each later step: a shadow of the block, masks
at the same positions, sees the whole sequence but for the token at its own position, and a token to which it gives less
than 0.9 is masked again. The shadow is part of the same forward pass, as so many tokens more. The embedded checkpoint
answers captions and descriptions of the test split: 8 frames, a canvas of 128 tokens, blocks of 32, everything
recomputed. Beside it the threshold rule of the package, with the same and lower bounds, in the same loop.

Not part of the package: it would be if it committed a fifth more tokens a forward at equal facts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))

import long_answers  # noqa: E402

from moving_shapes import MovingShapes  # noqa: E402
from moving_shapes.questions import LONG_TYPES  # noqa: E402
from vidlada_hf.evaluation.decoding import DecodingRunner, prepare_inputs  # noqa: E402
from vidlada_hf.evaluation.report import markdown_table  # noqa: E402
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model  # noqa: E402

CANVAS, BLOCK, FRAMES = 128, 32, 8


@dataclass(frozen=True)
class Rule:
    """A token is committed above `commit`, and masked again where its shadow is below `keep` (0: never, no shadow)."""

    name: str
    commit: float
    keep: float = 0.0


RULES = (
    Rule("threshold 0.9", 0.9),
    Rule("threshold 0.8", 0.8),
    Rule("threshold 0.7", 0.7),
    Rule("threshold 0.6", 0.6),
    Rule("WINO 0.6, 0.9", 0.6, 0.9),
    Rule("WINO 0.7, 0.9", 0.7, 0.9),
    Rule("WINO 0.6, 0.7", 0.6, 0.7),
)


class Decoder:
    """Denoises one answer at a time, with the model and the processor of a runner."""

    def __init__(self, runner: DecodingRunner) -> None:
        self.model, self.processor, self.ends = runner.model, runner.processor, runner.end_token_ids
        self.mask = self.model.config.mask_token_id
        self.suppressed = list(self.model.generation_config.suppress_tokens or [])

    @torch.no_grad()
    def answer(self, question: Any, rule: Rule) -> tuple[str, int, int]:
        """The answer, its tokens, and the forward passes that it took."""
        inputs = prepare_inputs(self.processor, [question], FRAMES)
        prompt = self.model.model.merge_features(
            inputs["input_ids"],
            pixel_values_videos=inputs["pixel_values_videos"],
            num_frames_per_video=inputs["num_frames_per_video"],
        )
        canvas, forwards = torch.full((CANVAS,), self.mask), 0
        for start in range(0, CANVAS, BLOCK):
            forwards += self.denoise_block(prompt, canvas, slice(start, start + BLOCK), rule)
            if self.ends & set(canvas.tolist()):
                break
        ids = canvas.tolist()
        length = next((i for i, token in enumerate(ids) if token in self.ends), CANVAS)
        return self.processor.decode(ids[:length], skip_special_tokens=True), length + 1, forwards

    def denoise_block(self, prompt: torch.Tensor, canvas: torch.Tensor, block: slice, rule: Rule) -> int:
        """Fills a block of the canvas, and returns the forward passes that it took. A token can be taken back; so that
        it ends, fewer are in each step than are committed, and after as many steps as there are tokens none is."""
        own = canvas[block]  # a view
        for forwards in range(1, 2 * BLOCK + 1):
            drafted, shadow = self.forward(prompt, canvas, block, bool(rule.keep))
            masked = own == self.mask
            confidence, tokens = drafted.max(-1)
            confidence = confidence.masked_fill(~masked, -1)
            chosen = confidence > rule.commit
            chosen[confidence.argmax()] = True
            if rule.keep and forwards <= BLOCK:
                doubts = torch.where(masked, 1.0, shadow.gather(-1, own[:, None])[:, 0])
                allowed = max(0, int(chosen.sum()) - 1)
                order = doubts.argsort()[:allowed]
                own[order[doubts[order] < rule.keep]] = self.mask
            own[chosen] = tokens[chosen]
            if not (own == self.mask).any():
                return forwards
        return forwards

    def forward(
        self, prompt: torch.Tensor, canvas: torch.Tensor, block: slice, with_shadow: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of the block's tokens, and of its shadow's: (block, vocabulary) each."""
        embed = self.model.get_input_embeddings()
        parts, size = [prompt, embed(canvas[None])], prompt.shape[1] + CANVAS
        positions, begin = torch.arange(size), prompt.shape[1] + block.start
        attends = None
        if with_shadow:
            parts.append(embed(torch.full((1, BLOCK), self.mask)))
            positions = torch.cat([positions, positions[begin : begin + BLOCK]])
            attends = torch.zeros(size + BLOCK, size + BLOCK, dtype=torch.bool)
            attends[:, :size] = True
            rows = torch.arange(BLOCK)
            attends[size + rows, begin + rows] = False  # blind to the token itself
            attends[size + rows, size + rows] = True
        hidden = self.model.model.language_model(
            inputs_embeds=torch.cat(parts, dim=1),
            attention_mask=None if attends is None else attends[None, None],
            position_ids=positions[None],
        ).last_hidden_state
        logits = self.model.lm_head(torch.cat([hidden[0, begin : begin + BLOCK], hidden[0, size:]])).float()
        logits[:, self.suppressed] = -torch.inf
        probabilities = logits.softmax(-1)
        return probabilities[:BLOCK], probabilities[BLOCK:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    runner = DecodingRunner.from_pretrained(None, FRAMES)
    decoder = Decoder(runner)
    examples = list(MovingShapes("test", options.questions, types=LONG_TYPES))
    data: dict[str, Any] = {
        "setup": {"weights": fingerprint_model(runner.model), "questions": options.questions, "frames": FRAMES},
        "results": {},
    }
    for rule in RULES:
        answers = [decoder.answer(example.as_question(), rule) for example in tqdm(examples, rule.name)]
        texts, tokens, forwards = zip(*answers, strict=True)
        read = long_answers.read_answers(examples, texts)
        data["results"][rule.name] = read | {"tokens_a_forward": round(sum(tokens) / sum(forwards), 3)}
    options.output.write_text(json.dumps(data, indent=1) + "\n")
    print(table(data))


def table(data: dict[str, Any]) -> str:
    """Markdown: a line a rule."""
    head = ["rule", "facts told", "told and right", "broken", "repetition", "tokens a forward"]
    rows = [
        [name, *(f"{100 * read[key]:.1f} %" for key in ("facts", "told_right", "broken", "repetition"))]
        + [f"{read['tokens_a_forward']:.2f}"]
        for name, read in data["results"].items()
    ]
    return markdown_table(head, rows, "lrrrrr")


if __name__ == "__main__":
    main()
