"""An unmasking rule of your own, beside those with a name: python examples/own_unmasking_rule.py [QUESTION]

A rule says which of the masked tokens a step commits. With fewer steps each answer is sooner there.
"""

import sys

from vidlada_hf import EMBEDDED_CHECKPOINT, FixedQuotaUnmasking, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.decoding import prepare_inputs
from vidlada_hf.evaluation.questions import VideoQuestion

CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"


class MarginUnmasking(FixedQuotaUnmasking):
    """Commits every token that is so many times as probable as the next best.

    At least a step's share of the schedule is committed, as every rule must: what `FixedQuotaUnmasking` selects.
    """

    def __init__(self, margin: float = 3.0) -> None:
        self.margin = margin  # of logits: 3.0 is twenty times

    def select(self, confidence, eligible, quota, logits):
        best, second = logits.topk(2, dim=-1).values.unbind(-1)
        sure = (best - second > self.margin) & eligible
        return sure | super().select(confidence, eligible, quota, logits)


def main(question: str = "Describe the yellow cross."):
    base = str(EMBEDDED_CHECKPOINT)
    model, processor = (kind.from_pretrained(base) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor))
    inputs = prepare_inputs(processor, [VideoQuestion(str(CLIP), question, ())], num_frames=16)
    results = {}
    for rule in ("quota", "threshold", MarginUnmasking()):
        output = model.generate(**inputs, max_new_tokens=32, unmasking=rule, return_dict_in_generate=True)
        answer = processor.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        name = rule if isinstance(rule, str) else type(rule).__name__
        results[name] = len(output.trace), answer
        print(f"{name:<16} {len(output.trace):>3} steps: {answer}")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:2])
