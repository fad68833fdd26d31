"""A model's answers to questions about moving shapes, through the processor and `generate`, as any user gets them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from moving_shapes.dataset import Example


def as_messages(example: Example, answer: str | None = None) -> list[dict[str, Any]]:
    """The example as a conversation: its file or its frames, the question, and an answer where one is given."""
    video = {"type": "video", "video": example.frames if example.path is None else str(example.path)}
    messages = [{"role": "user", "content": [video, {"type": "text", "text": example.question}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return messages


def prepare(processor: Any, examples: Sequence[Example], num_frames: int) -> Any:
    """The model's inputs for a batch of examples."""
    return processor.apply_chat_template(
        [as_messages(example) for example in examples],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": num_frames, "padding": True},
    )


def answer_all(
    model: Any, processor: Any, examples: Sequence[Example], num_frames: int = 8, batch_size: int = 16, **settings: Any
) -> Iterator[list[str]]:
    """Yields the answers of one batch after the other, in the order of the examples.

    Args:
        settings: arguments of `generate`.
    """
    for start in range(0, len(examples), batch_size):
        inputs = prepare(processor, examples[start : start + batch_size], num_frames).to(model.device, model.dtype)
        with torch.no_grad():
            output = model.generate(**inputs, **settings)
        answers = output[:, inputs["input_ids"].shape[1] :]
        yield [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]


__all__ = ["answer_all", "as_messages", "prepare"]
