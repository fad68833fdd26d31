"""Ask a real model about a real video, and say what it took: python examples/first_video.py VIDEO QUESTION MODEL

MODEL is the folder of a converted 8B checkpoint (docs/hub.md). Without one, the checkpoint that comes with the package
shows that everything runs; it knows moving shapes only.
"""

import sys
import time

import torch

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor


def main(
    video: str, question: str = "What happens in this video?", base: str = str(EMBEDDED_CHECKPOINT), frames: int = 32
):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = VidLaDAForConditionalGeneration.from_pretrained(base, dtype="auto", device_map=device)
    processor = VidLaDAProcessor.from_pretrained(base)

    started = time.perf_counter()
    asked = [{"type": "video", "video": video}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": asked}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": frames},
    ).to(model.device, model.dtype)
    read = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=128, max_denoising_steps=32, cache_strategy="mars")
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    answered, shown = time.perf_counter(), len(inputs["pixel_values_videos"])
    print(answer)
    print(f"{shown} frames read in {read - started:.1f} s, the answer denoised in {answered - read:.1f} s")
    if device == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB at the peak")
    return shown, answer


if __name__ == "__main__":
    main(*sys.argv[1:4])
