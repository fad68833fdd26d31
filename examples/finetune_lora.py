"""Teach the embedded checkpoint a question that it does not know, by an adapter: python examples/finetune_lora.py

It takes some minutes on two CPU cores. The adapter is left in `quarters-adapter`; the checkpoint stays as it is.
"""

import sys

import numpy as np
from torch.utils.data import Dataset
from transformers import TrainingArguments

from moving_shapes import frame_times, render, sample_scene
from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.decoding import answer_questions
from vidlada_hf.evaluation.questions import VideoQuestion, is_right
from vidlada_hf.training.data.collator import DiffusionCollator
from vidlada_hf.training.lora import add_adapter, load_adapter, save_adapter
from vidlada_hf.training.optimizer import OptimizerOptions
from vidlada_hf.training.trainer import DiffusionTrainer


def ask_quarter(split: str, seed: tuple[int, int]) -> VideoQuestion:
    """In which quarter of the picture is a shape at the end? A video drawn for the question, and the answer."""
    rng, times = np.random.default_rng(seed), frame_times(8)
    scene = sample_scene(rng, split, "steady")
    shape = scene.shapes[rng.integers(len(scene.shapes))]
    x, y = shape.centers(times)[-1]
    answer = f"{'up' if y < 0.5 else 'down'} {'left' if x < 0.5 else 'right'}"
    return VideoQuestion(render(scene, times), f"What half is the {shape.shape} in at the end?", (answer,))


class Quarters(Dataset):
    """Conversations to learn from. Your own data: any dataset whose items are {"messages": [...]}."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        question = ask_quarter("train", (index, 0))
        return {"messages": question.messages(answer=question.answers[0])}


def accuracy(model, processor, questions: list[VideoQuestion]) -> float:
    batches = answer_questions(model.eval(), processor, questions, max_new_tokens=8, block_length=8)
    texts = [text for batch in batches for text in batch]
    return sum(map(is_right, questions, texts)) / len(questions)


def main(base: str = str(EMBEDDED_CHECKPOINT), steps: int = 200, count: int = 200, out: str = "quarters-adapter"):
    model, processor = (kind.from_pretrained(base) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor))
    test = [ask_quarter("test", (index, 2)) for index in range(count)]
    before, adapted = accuracy(model, processor, test), add_adapter(model, {"r": 8, "alpha": 16})
    DiffusionTrainer(
        model=adapted,
        args=TrainingArguments(
            f"{out}-run",
            max_steps=steps,
            per_device_train_batch_size=16,
            lr_scheduler_type="cosine",
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=Quarters(16 * steps),
        data_collator=DiffusionCollator(processor, {"padding": True, "canvas": [8]}),
        optimizer_options=OptimizerOptions(text=5e-3),
        time_sampling="stratified",
    ).train()
    save_adapter(adapted, out)
    after = accuracy(load_adapter(VidLaDAForConditionalGeneration.from_pretrained(base), out), processor, test)
    print(f"{count} questions of the test split: {before:.1%} right before, {after:.1%} with the adapter.")
    return before, after


if __name__ == "__main__":
    main(*sys.argv[1:2])
