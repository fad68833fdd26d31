"""Ask about a video and print each draft of the answer: python examples/stream_drafts.py [VIDEO] [QUESTION]"""

import sys
from pathlib import Path

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor

CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"


def main(video: str | Path = CLIP, question: str = "Describe the yellow cross.", base: str = str(EMBEDDED_CHECKPOINT)):
    model, processor = (kind.from_pretrained(base) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor))
    asked = [{"type": "video", "video": str(video)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": asked}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": 16},
    )
    prompt = inputs["input_ids"].shape[1]

    def show(output):
        """Called after each denoising step: `output.canvas` is the draft, with masks where no token is known yet."""
        draft = processor.decode(output.canvas[0]).partition("<|eot_id|>")[0]
        print(f"step {output.step.index + 1}: {draft.replace('<|mdm_mask|>', '_')}")

    output = model.generate(**inputs, max_new_tokens=32, step_callback=show)
    answer = processor.decode(output[0, prompt:], skip_special_tokens=True).strip()
    print(f"Answer: {answer}")
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:3])
