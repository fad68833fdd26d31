"""The pipeline "video-text-to-text": a video and a question in, an answer out."""

import inspect
import os
from collections.abc import Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils.chat_template_utils import Chat, is_valid_message

from .options_vidlada import nearest_name, unknown_option
from .prompts_vidlada import TEMPLATE_OPTIONS

# Options of the processor that `generate` or the base class understands in another way.
_NOT_FOR_PROCESSOR = {"return_tensors", "return_metadata", "device"}
# A less similar name is left to `generate`, which names the nearest of its own arguments.
_SURELY_MISSPELLED = 0.75


class VideoTextToTextPipeline(Pipeline):
    """Answers questions about videos with a model that has `generate` and a processor with a chat template.

    `pipe("clip.mp4", text="What happens?", num_frames=8, max_new_tokens=64)` gives
    `[{"input_text": "What happens?", "generated_text": "..."}]`.

    Options, at construction or in a call:
        what the processor knows about videos (`num_frames`, `fps`, `add_time_instruction`, `think_mode`,
        `sanitize_control_tokens`, ...), and `processor_kwargs`, a dict, for the rest of its options;
        `return_full_text`: the conversation with the answer as its last message, in place of the answer alone;
        `skip_special_tokens`: default True;
        everything else goes to `model.generate`, which checks it.
    """

    model: Any
    processor: Any

    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    # `generate` makes its generation config itself, from every argument given to the pipeline. The base class would
    # take a part of them out first, a different one in each version of transformers.
    _pipeline_calls_generate = False

    def __call__(self, videos: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Answers one question or many.

        Args:
            videos: one video (see `read_video`) or a list of them; or, without `text`: a conversation (list of
                messages), `{"video": ..., "text": ...}`, a list of either, or a dataset or generator of them.
            text: a question, or a list with one a video. One question is asked about every video, and one video is
                shown to every question.
            kwargs: `batch_size`, `num_workers` and the options of the class.

        Returns:
            For one request: `[{"input_text", "generated_text"}]`; for a list, a list of those; for a dataset or
            generator, an iterator.

        Raises:
            ValueError: for an unknown option, or videos and questions of different number.
        """
        if text is None:
            if videos is None:
                raise ValueError("Give a video and `text`, or a conversation.")
            return super().__call__(videos, **kwargs)
        if _is_chat(text) or (isinstance(text, (list, tuple)) and any(_is_chat(item) for item in text)):
            if videos is not None:
                raise ValueError("Videos of a conversation belong into its messages; do not give `videos` as well.")
            return super().__call__(text, **kwargs)

        questions = list(text) if isinstance(text, (list, tuple)) else [text]
        sources = [None] if videos is None else self.processor.list_videos(videos)
        count = max(len(questions), len(sources))
        if len(questions) not in (1, count) or len(sources) not in (1, count):
            raise ValueError(
                f"Got {len(sources)} videos and {len(questions)} questions: give as many of each, or one of either."
            )
        requests = [{"video": sources[i % len(sources)], "text": questions[i % len(questions)]} for i in range(count)]
        one_video = videos is None or self.processor.is_one_video(videos)
        several = isinstance(text, (list, tuple)) or not one_video
        return super().__call__(requests if several else requests[0], **kwargs)

    def _sanitize_parameters(
        self,
        return_full_text: bool | None = None,
        skip_special_tokens: bool | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sorts the options by the step they belong to; a misspelled one raises with the nearest known name."""
        for_processor = (self.processor.video_options | {*TEMPLATE_OPTIONS, "chat_template"}) - _NOT_FOR_PROCESSOR
        for_generate = _names_of_generate(self.model)
        own = {"return_full_text", "skip_special_tokens", "processor_kwargs", "generate_kwargs"}
        known = for_processor | own | for_generate

        preprocess: dict[str, Any] = {}
        forward = dict(generate_kwargs or {})
        for name, value in kwargs.items():
            near = nearest_name(name, known, _SURELY_MISSPELLED)
            if name in for_processor:
                preprocess[name] = value
            elif name in forward:
                raise ValueError(f"`{name}` is given twice: in `generate_kwargs` and by itself.")
            elif near is not None and not {name, near} & for_generate:
                raise ValueError(unknown_option(name, "the pipeline", known))
            else:
                forward[name] = value  # `generate` checks it: it also takes names that cannot be listed here
        if processor_kwargs is not None:
            preprocess["processor_kwargs"] = processor_kwargs

        postprocess = {"return_full_text": return_full_text, "skip_special_tokens": skip_special_tokens}
        return preprocess, forward, {name: value for name, value in postprocess.items() if value is not None}

    def preprocess(
        self, request: Any, processor_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Reads the videos of one request and makes the model's inputs, a batch of one."""
        messages, input_text = _messages_of(request)
        template = {"chat_template": options.pop("chat_template", None)}
        inputs = self.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={**(processor_kwargs or {}), **options},
            **template,
        ).to(dtype=self.dtype)
        return {**inputs, "request": _Request(messages, input_text)}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        """Generates, and keeps what follows the prompts, which all end at the same position: they are padded left."""
        requests = model_inputs.pop("request")
        generate_kwargs.setdefault("tokenizer", self.processor.tokenizer)  # for stops and suffixes given as text
        generated = self.model.generate(**model_inputs, **generate_kwargs)
        sequences = getattr(generated, "sequences", generated)
        return {"answer_ids": sequences[:, model_inputs["input_ids"].shape[1] :], "request": requests}

    def postprocess(
        self, model_outputs: dict[str, Any], return_full_text: bool = False, skip_special_tokens: bool = True
    ) -> list[dict[str, Any]]:
        """One request's answer as text, without surrounding white space."""
        request = model_outputs["request"]
        (answer,) = self.processor.post_process_image_text_to_text(
            model_outputs["answer_ids"], skip_special_tokens=skip_special_tokens
        )
        generated: Any = answer.strip()
        if return_full_text:
            generated = [*request.messages, {"role": "assistant", "content": generated}]
        return [{"input_text": request.input_text, "generated_text": generated}]

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """As in the base class, but batches keep each video's own frames (the base class pads them with zeros).

        The next batch of a list or a dataset is read while the model answers about one.
        """
        dataset_class = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        if dataset_class is PipelineIterator:
            num_workers = min(num_workers, 1)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        loader: Any = DataLoader(
            dataset_class(inputs, self.preprocess, preprocess_params),
            num_workers=num_workers,
            batch_size=batch_size,
            collate_fn=_only_item if batch_size == 1 else self.collate,
        )
        if num_workers == 0 and dataset_class is PipelineDataset:
            loader = _ReadAhead(loader)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Joins inputs of one request each: text padded on the left, frames and images one after the other."""
        fillers = {"input_ids": self.processor.tokenizer.pad_token_id, "attention_mask": 0}
        length = max(item["input_ids"].shape[1] for item in items)
        batch: dict[str, Any] = {"request": [item["request"] for item in items]}
        for name in dict.fromkeys(name for item in items for name in item if name != "request"):
            tensors = [item[name] for item in items if name in item]
            if name in fillers:
                pad = torch.nn.functional.pad
                tensors = [pad(ids, (length - ids.shape[1], 0), value=fillers[name]) for ids in tensors]
            batch[name] = torch.cat(tensors)
        return batch

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model and the processor (the base class leaves the processor out) into a folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class _ReadAhead:
    """The batches of a loader, the next one made in a thread while one is used."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
            ahead = thread.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, batches, None)
                yield batch


class _Request:
    """The conversation. An object, so that moving inputs between devices does not look for tensors in it."""

    def __init__(self, messages: list[dict[str, Any]], input_text: Any) -> None:
        self.messages = messages
        self.input_text = input_text


def _only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]


def _is_chat(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and is_valid_message(value[0])


def _messages_of(request: Any) -> tuple[list[dict[str, Any]], Any]:
    """The messages of a request in any of its forms, and what the answer's `input_text` is."""
    if isinstance(request, Chat):
        return list(request.messages), list(request.messages)
    if _is_chat(request):
        return list(request), list(request)
    if isinstance(request, str):
        raise ValueError(f"{request!r} has no question: give `text` too, or a conversation.")
    if not isinstance(request, dict) or not isinstance(request.get("text"), str):
        raise ValueError(
            'A request is a conversation (a list of messages) or {"video": ..., "text": "question"}, '
            f"got {type(request).__name__}."
        )
    unknown = set(request) - {"video", "text"}
    if unknown:
        raise ValueError(f'A request holds "video" and "text", got {", ".join(map(repr, sorted(unknown)))}.')
    video = [] if request.get("video") is None else [{"type": "video", "video": request["video"]}]
    return [{"role": "user", "content": [*video, {"type": "text", "text": request["text"]}]}], request["text"]


def _names_of_generate(model: Any) -> set[str]:
    """Names that `model.generate` is known to take: its arguments and the fields of its generation config."""
    config = getattr(model, "generation_config", None)
    fields = {} if config is None else vars(config)
    return {*inspect.signature(model.generate).parameters, *fields} - {"self", "kwargs"}


__all__ = ["VideoTextToTextPipeline"]
