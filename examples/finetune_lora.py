"""Teach the embedded checkpoint a question that it does not know, by an adapter: python examples/finetune_lora.py

It takes some minutes on two CPU cores. The adapter is left in `quarters-adapter`; the checkpoint stays as it is.
"""

import sys

import numpy as np
from transformers import TrainingArguments
from vidlada_hf.asking import EMBEDDED_CHECKPOINT

from moving_shapes import MovingShapes, render, sample_scene
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.training.data.collator import DiffusionCollator
from vidlada_hf.training.lora import add_adapter, load_adapter, save_adapter
from vidlada_hf.training.optimizer import OptimizerOptions
from vidlada_hf.training.trainer import DiffusionTrainer


class Quarters(MovingShapes):
    """In which quarter of the picture is a shape at the end? The scene knows."""

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng((index, self.split.number))
        scene = sample_scene(rng, self.split, "steady")
        shape = scene.shapes[rng.integers(len(scene.shapes))]
        x, y = shape.centers(self.times)[-1]
        video, question = render(scene, self.times), f"What half is the {shape.shape} in at the end?"
        asked = [{"type": "video", "video": video}, {"type": "text", "text": question}]
        answer = f"{'up' if y < 0.5 else 'down'} {'left' if x < 0.5 else 'right'}"
        return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def accuracy(model, processor, examples: list) -> float:
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template([e["messages"][:1] for e in examples], padding=True, **options)
    answers = model.eval().generate(**inputs, max_new_tokens=8, block_length=8)[:, inputs["input_ids"].shape[1] :]
    said = [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]
    return sum(s == e["messages"][1]["content"] for s, e in zip(said, examples, strict=True)) / len(examples)


def main(base: str = str(EMBEDDED_CHECKPOINT), steps: int = 200, questions: int = 200, out: str = "quarters-adapter"):
    model, processor = (kind.from_pretrained(base) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor))
    test = list(Quarters("test", questions))
    before, adapted = accuracy(model, processor, test), add_adapter(model, {"r": 8, "alpha": 16})
    settings = {"max_steps": steps, "per_device_train_batch_size": 16, "lr_scheduler_type": "cosine", "report_to": []}
    arguments = TrainingArguments(out + "-run", save_strategy="no", remove_unused_columns=False, **settings)
    collator, rates = DiffusionCollator(processor, {"padding": True, "canvas": [8]}), OptimizerOptions(text=5e-3)
    data = {"train_dataset": Quarters("train", 16 * steps), "data_collator": collator}
    DiffusionTrainer(adapted, arguments, optimizer_options=rates, time_sampling="stratified", **data).train()
    save_adapter(adapted, out)
    after = accuracy(load_adapter(VidLaDAForConditionalGeneration.from_pretrained(base), out), processor, test)
    print(f"{questions} questions of the test split: {before:.1%} right before, {after:.1%} with the adapter.")
    return before, after


if __name__ == "__main__":
    main(*sys.argv[1:2])
