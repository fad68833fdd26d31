# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # VidLaDA in a few minutes
#
# VidLaDA is a video LLM that does not write its answer word by word: it begins with a row of masks, and several of them
# become words in each step. Everything here runs on a CPU with the checkpoint that comes with the package. It has 2.2
# million parameters and knows moving shapes only; put the folder of a real one in place of `EMBEDDED_CHECKPOINT`, and
# your own video in place of `clip`.
#
# In the repository: `pip install '.[notebook]'`, and open `examples/quickstart.ipynb` in Jupyter or an editor.

# %%
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor, read_video

model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT, dtype="auto")
processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
clip = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
pictures = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The video
#
# Eight frames of it, evenly spread, are what the model looks at.

# %%
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

frames, _ = read_video(clip, lambda video: sample_frame_indices(video.total_num_frames, num_frames=8).tolist())
framed = np.pad(frames, [(0, 0), (0, 0), (4, 4), (0, 0)], constant_values=255)
Image.fromarray(np.hstack(framed)).resize((8 * 104, 100))

# %% [markdown]
# ## Ask
#
# A question becomes a chat, the processor turns chat and video into tensors, and `generate` returns prompt and answer.


# %%
def prepare(*questions):
    chats = [
        [{"role": "user", "content": [{"type": "video", "video": str(clip)}, {"type": "text", "text": question}]}]
        for question in questions
    ]
    return processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": 8, "padding": True},
    )


def read(sequences, inputs):
    answers = sequences[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]


inputs = prepare("Which shape appears first?", "What color is the bar?")
answers = read(model.generate(**inputs), inputs)
answers

# %% [markdown]
# ## Watch
#
# `return_dict_in_generate=True` keeps a trace of all steps: what was committed, how sure the model was, and the canvas.
# A box is a mask; words that a step adds are red. In a terminal, `vidlada ask clip.mp4 "..." --stream` shows it live.

# %%
from vidlada_hf.evaluation.picture import draw_denoising

question = "Describe the video."
inputs = prepare(question)
settings = {"max_new_tokens": 64, "max_denoising_steps": 24, "unmasking": "quota"}
output = model.generate(**inputs, return_dict_in_generate=True, **settings)
canvases = [step.canvas[0].tolist() for step in output.trace]
print(f"{read(output.sequences, inputs)[0]}\n{len(canvases)} steps, {output.tokens_per_forward[0]:.1f} tokens a step")
Image.open(
    draw_denoising(
        frames, question, canvases, processor.tokenizer, model.config.mask_token_id, pictures / "denoising.png"
    )
)

# %% [markdown]
# ## Two strategies
#
# Exact decoding computes every token of video, question and answer again in each step. MARS-Cache computes again what
# changes most and keeps the rest. Both commit one token a step here, so that there is something to save.

# %%
from vidlada_hf.evaluation.flops import count_flops

tokens = {}


def compare(name, strategy):
    settings = {"cache_strategy": strategy, "max_new_tokens": 32, "unmasking": "quota"}
    operations = count_flops(lambda: model.generate(**inputs, **settings))
    started = time.perf_counter()
    output = model.generate(**inputs, **settings)
    seconds = time.perf_counter() - started
    tokens[name] = output[0, inputs["input_ids"].shape[1] :]
    agreement = (tokens[name] == tokens["exact"]).float().mean()
    print(f"{name}: {operations / 1e9:.1f} GFLOP, {seconds:.2f} s, {agreement:.0%} of the tokens of exact decoding")
    print(f"    {read(output, inputs)[0]}")


compare("exact", "none")
compare("MARS-Cache", "mars")

# %% [markdown]
# ## A schedule
#
# What MARS-Cache computes again in which step is known before anything runs: visual tokens seldom, text more often,
# deep groups of layers more often than shallow ones.

# %%
from vidlada_hf import MARSCache, VidLaDAGenerationConfig
from vidlada_hf.evaluation.schedule import draw_refreshes, plan_refreshes

plan = plan_refreshes(MARSCache(), VidLaDAGenerationConfig(max_new_tokens=128))
Image.open(draw_refreshes(plan, "MARS-Cache: what is computed again", pictures / "schedule.png"))

# %% [markdown]
# ## Your own strategy
#
# `SelectiveKVCache` keeps the keys and values of all tokens. A strategy built on it only says which span of the
# sequence a step computes again. This one reads video and question once, and then looks at its answer only.

# %%
from vidlada_hf import SelectiveKVCache


class ReadOnce(SelectiveKVCache):
    def recompute_span(self, step):
        return slice(None) if step.index == 0 else self.layout.canvas


compare("ReadOnce", ReadOnce())

# %% [markdown]
# ## One video, many questions
#
# The keys and values of a video can be computed once, and kept. The video does not see the question then, so that some
# answers change: [docs/sharing.md](../docs/sharing.md) says when not to.

# %%
started = time.perf_counter()
video = model.encode_video(**prepare("Which shape appears first?"))
print(f"the video: {time.perf_counter() - started:.2f} s")

for question in ("Which shape appears first?", "Which shape appears last?", "What is the yellow shape?"):
    inputs = prepare(question)
    del inputs["pixel_values_videos"]
    started = time.perf_counter()
    output = model.generate(**inputs, video_cache=video)
    print(f"{question} {read(output, inputs)[0]} ({time.perf_counter() - started:.2f} s)")

# %% [markdown]
# ## On from here
#
# - [Asking](../docs/asking.md): videos, frames, batches. [Generation](../docs/generation.md): rules, stops, infilling.
# - [Caches](../docs/caches.md): how each strategy works. [Training](../docs/training.md): your own videos, LoRA.
# - `vidlada bench` compares strategies on your questions: [Evaluation](../docs/evaluation.md).
