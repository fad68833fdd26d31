"""A cache strategy of your own, beside exact decoding: python examples/own_cache_strategy.py [QUESTION]

The embedded checkpoint is asked about its clip; what each strategy saves is counted, not timed.
"""

import sys

from vidlada_hf import EMBEDDED_CHECKPOINT, SelectiveKVCache, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.decoding import prepare_inputs
from vidlada_hf.evaluation.flops import count_flops
from vidlada_hf.evaluation.questions import VideoQuestion


class WindowCache(SelectiveKVCache):
    """Recomputes everything every so many steps; in between, the block and some tokens on either side of it.

    `SelectiveKVCache` keeps the keys and values of all tokens. A strategy built on it only says which span of the
    sequence a step recomputes; these tokens attend to everything that is kept.
    """

    def __init__(self, margin: int = 16, interval: int = 8) -> None:
        self.margin, self.interval = margin, interval

    def recompute_span(self, step):
        if step.step_in_block % self.interval == 0:
            return slice(None)
        return slice(max(step.span.start - self.margin, 0), step.span.stop + self.margin)


def main(question: str = "Describe the yellow cross.", frames: int = 32):
    base, clip = str(EMBEDDED_CHECKPOINT), str(EMBEDDED_CHECKPOINT / "demo" / "clip.mp4")
    model, processor = (kind.from_pretrained(base) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor))
    inputs = prepare_inputs(processor, [VideoQuestion(clip, question, ())], frames)
    settings = {"max_new_tokens": 32, "unmasking": "quota"}  # one token a step: what lies in between repeats
    results = {}
    for strategy in ("none", WindowCache(), "mars"):
        texts: list[str] = []

        def answer(strategy=strategy, texts=texts):
            output = model.generate(**inputs, cache_strategy=strategy, **settings)
            texts.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())

        operations, name = count_flops(answer), strategy if isinstance(strategy, str) else type(strategy).__name__
        results[name] = operations, texts[0]
        print(f"{name:<12} {operations / 1e9:6.1f} GFLOP: {texts[0]}")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:2])
