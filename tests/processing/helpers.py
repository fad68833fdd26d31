"""A small processor and conversations for it; what tests of reading videos share."""

from pathlib import Path
from typing import Any

from tests.tiny_models import byte_tokenizer, tiny_processor
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor


def published_tokenizer() -> Any:
    """`byte_tokenizer` as the published tokenizer is: without placeholders, padding on the right."""
    return byte_tokenizer(placeholders=False, padding_side="right")


def small_processor(tokenizer: Any = None, image_size: int = 28, **options: Any) -> VidLaDAProcessor:
    """A processor for 28 x 28 pixels: 2 x 2 patches a frame, pooled to 1 cell and 1 newline, so 2 tokens."""
    return tiny_processor(published_tokenizer() if tokenizer is None else tokenizer, image_size, **options)


def ask(video: Any, question: str) -> list[dict[str, Any]]:
    """A conversation of one question about a video (None: about nothing)."""
    parts = [] if video is None else [{"type": "video", "video": video}]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def inputs_of(processor: VidLaDAProcessor, conversation: Any, **options: Any) -> Any:
    """The model's inputs; `options` go to the processor, `add_generation_prompt` (default True) to the template."""
    template = {"add_generation_prompt": options.pop("add_generation_prompt", True)}
    return processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options, **template
    )


def every_frame(metadata):
    return range(metadata.total_num_frames)


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


FAST_START = {"movflags": "faststart"}  # the index first, so that a file cut short still opens


def assert_names_source_and_remedy(error, name):
    message = str(error)
    assert message.startswith(f"Cannot read the video {name}: ")
    assert any(
        verb in message.lower()
        for verb in ("check", "fetch", "pass", "open", "resize", "replace", "choose", "re-encode")
    )
    assert message.endswith(".") and not message.endswith("..") and len(message) < 600
