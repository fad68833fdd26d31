"""The pipeline "video-text-to-text": a video and a question in, an answer out."""

import inspect
import os
from collections.abc import Collection, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils.chat_template_utils import Chat, is_valid_message

from .begun_answers_vidlada import TAIL, complete, decode_behind, drop_empty_beginning, is_begun, refuse_long_text
from .choices_vidlada import Choosing, check_choices, give_each, is_nested, rank_choices
from .conversations_vidlada import refuse_text_before_video
from .options_vidlada import check_choice, nearest_name, unknown_option
from .prompts_vidlada import TEMPLATE_OPTIONS
from .read_ahead_vidlada import ReadAhead
from .video_once_vidlada import VISUAL_INPUTS, VideoOnce

# Options of the processor that `generate` or the base class understands in another way.
_NOT_FOR_PROCESSOR = {"return_tensors", "return_metadata", "device"}
# A less similar name is left to `generate`, which names the nearest of its own arguments.
_SURELY_MISSPELLED = 0.75


class VideoTextToTextPipeline(Pipeline):
    """Answers questions about videos with a model that has `generate` and a processor with a chat template.

    `pipe("clip.mp4", text="What happens?", num_frames=8, max_new_tokens=64)` gives
    `[{"input_text": "What happens?", "generated_text": "..."}]`. Several questions about one video,
    `pipe("clip.mp4", text=["What?", "Why?"], batch_size=2)`, read and encode it once.

    Options, at construction or in a call:
        what the processor knows about videos (`num_frames`, `fps`, `add_time_instruction`, `think_mode`,
        `sanitize_control_tokens`, ...), and `processor_kwargs`, a dict, for the rest of its options;
        `share_video`: several questions about one video also share its keys and values. It then does not see the
        questions, which changes some answers; chats with a text before the video are refused;
        `choices`: texts, at least two, or a list of them for each question. Nothing is generated: the result holds
        "choices" and their "log_likelihoods" in nats, the best first, and the best as "generated_text". Options are
        those of `model.score_choices`;
        `return_full_text`: the conversation with the answer as its last message, in place of the answer alone;
        `continue_final_message`: default: a conversation that ends with an assistant's message is gone on with, and
        the text generated is what follows it; False answers it by another message;
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

    def __call__(self, videos: Any = None, text: Any = None, *, video: Any = None, **kwargs: Any) -> Any:
        """Answers one question or many.

        Args:
            videos: one video (see `read_video`) or a list of them; or, without `text`: a conversation (list of
                messages), `{"video": ..., "text": ...}`, a list of either, or a dataset or generator of them.
            text: a question, or a list with one a video. One question is asked about every video, and one video is
                shown to every question.
            video: another name of `videos`.
            kwargs: `batch_size`, `num_workers` and the options of the class.

        Returns:
            For one request: `[{"input_text", "generated_text"}]`; for a list, a list of those; for a dataset or
            generator, an iterator.

        Raises:
            ValueError: for an unknown option, or videos and questions of different number.
        """
        if videos is not None and video is not None:
            raise ValueError("`video` is another name of `videos`: give one of them.")
        videos = video if videos is None else videos
        if text is None:
            if videos is None:
                raise ValueError("Give a video and `text`, or a conversation.")
            return self._answer(videos, True, kwargs)
        if _is_chat(text) or (isinstance(text, (list, tuple)) and any(_is_chat(item) for item in text)):
            if videos is not None:
                raise ValueError("Videos of a conversation belong into its messages; do not give `videos` as well.")
            return self._answer(text, True, kwargs)

        questions = list(text) if isinstance(text, (list, tuple)) else [text]
        sources = [None] if videos is None else self.processor.list_videos(videos)
        count = max(len(questions), len(sources))
        if len(questions) not in (1, count) or len(sources) not in (1, count):
            raise ValueError(
                f"Got {len(sources)} videos and {len(questions)} questions: give as many of each, or one of either."
            )
        if videos is not None and len(sources) == 1 and count > 1:
            kwargs["_video_once"] = sources[0] = VideoOnce(sources[0])
        requests = [{"video": sources[i % len(sources)], "text": questions[i % len(questions)]} for i in range(count)]
        one_video = videos is None or self.processor.is_one_video(videos)
        several = isinstance(text, (list, tuple)) or not one_video
        return self._answer(requests, several, kwargs)

    def _answer(self, requests: Any, several: bool, kwargs: dict[str, Any]) -> Any:
        """Calls the base class with requests, each with its own choices where these are given as lists."""
        choices = kwargs.get("choices", self._preprocess_params.get("choices"))
        if is_nested(choices):
            requests = give_each(requests, choices, is_one=_is_chat(requests))
        return super().__call__(requests if several else requests[0], **kwargs)

    def _sanitize_parameters(
        self,
        return_full_text: bool | None = None,
        skip_special_tokens: bool | None = None,
        continue_final_message: bool | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        choices: Any = None,
        share_video: bool | None = None,
        _video_once: VideoOnce | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sorts the options by the step they belong to; a misspelled one raises with the nearest known name."""
        for_processor = (self.processor.video_options | {*TEMPLATE_OPTIONS, "chat_template"}) - _NOT_FOR_PROCESSOR
        for_generate = _names_of_generate(self.model)
        for_scoring: Collection[str] = getattr(self.model, "scoring_arguments", frozenset())
        own = {"return_full_text", "skip_special_tokens", "processor_kwargs", "generate_kwargs", "choices"}
        known = {*for_processor, *own, "continue_final_message", *for_generate, *for_scoring}

        preprocess: dict[str, Any] = {}
        forward = dict(generate_kwargs or {})
        for name, value in kwargs.items():
            near = nearest_name(name, known, _SURELY_MISSPELLED)
            if name in for_processor:
                preprocess[name] = value
            elif name in forward:
                raise ValueError(f"`{name}` is given twice: in `generate_kwargs` and by itself.")
            elif near is not None and not {name, near} & {*for_generate, *for_scoring}:
                raise ValueError(unknown_option(name, "the pipeline", known))
            else:
                forward[name] = value  # the model checks it: `generate` also takes names that cannot be listed here
        if processor_kwargs is not None:
            preprocess["processor_kwargs"] = processor_kwargs
        if continue_final_message is not None:
            check_choice("continue_final_message", continue_final_message, (True, False))
            preprocess["continue_final_message"] = continue_final_message
        if choices is not None:
            preprocess["choices"] = [*map(check_choices, choices)] if is_nested(choices) else check_choices(choices)
            _refuse_generation(forward, for_scoring, for_generate)
        if share_video is not None:
            check_choice("share_video", share_video, (True, False))
            if share_video and (forward.get("cfg_scale") or forward.get("cfg")):
                raise ValueError(
                    "`cfg_scale` also runs prompts without their video, so `share_video` cannot go with it."
                )
            preprocess["share_video"] = forward["share_video"] = share_video
        if _video_once is not None:
            forward["_video_once"] = _video_once

        postprocess = {"return_full_text": return_full_text, "skip_special_tokens": skip_special_tokens}
        return preprocess, forward, {name: value for name, value in postprocess.items() if value is not None}

    def preprocess(
        self,
        request: Any,
        processor_kwargs: dict[str, Any] | None = None,
        continue_final_message: bool | None = None,
        choices: list[str] | None = None,
        share_video: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Reads the videos of one request and makes the model's inputs, a batch of one."""
        if isinstance(request, Choosing):
            request, choices = request.request, request.choices
        messages, input_text = _messages_of(request)
        if isinstance(request, dict) and request.get("choices") is not None:
            choices = check_choices(request["choices"])
        if is_nested(choices):
            raise ValueError("Lists of choices belong to a list of questions: give each question its own, or all one.")
        if share_video:
            refuse_text_before_video(messages)
        asked = messages if continue_final_message is False else drop_empty_beginning(messages)
        goes_on = is_begun(asked) if continue_final_message is None else continue_final_message
        goes_on = goes_on and len(asked) == len(messages)
        template = {
            "chat_template": options.pop("chat_template", None),
            "add_generation_prompt": not goes_on,
            "continue_final_message": goes_on,
            "processor_kwargs": {**(processor_kwargs or {}), **options},
        }
        refuse_long_text(self.processor, asked, _positions_of(self.model), **template)
        inputs = self.processor.apply_chat_template(
            asked, tokenize=True, return_dict=True, return_tensors="pt", **template
        ).to(dtype=self.dtype)
        shown, visual = asked, {}
        if isinstance(request, dict) and isinstance(request.get("video"), VideoOnce):
            shown, _ = _messages_of({**request, "video": request["video"].source})
            visual = {name: inputs.pop(name) for name in VISUAL_INPUTS if name in inputs}
        begun = inputs["input_ids"][0, -TAIL:].tolist() if goes_on else None
        return {**inputs, "request": _Request(shown, input_text, begun, choices, visual)}

    def _forward(
        self,
        model_inputs: dict[str, Any],
        share_video: bool = False,
        _video_once: VideoOnce | None = None,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        """Generates, and keeps what follows the prompts, which all end at the same position: they are padded left.
        Or scores choices."""
        requests = model_inputs.pop("request")
        all_requests = requests if isinstance(requests, list) else [requests]
        generate_kwargs.setdefault("tokenizer", self.processor.tokenizer)  # for stops and suffixes given as text
        if _video_once is not None:
            model_inputs = _video_once.encode(self.model, model_inputs, all_requests[0].visual, share_video)
        elif share_video:
            generate_kwargs["share_video"] = share_video
        choices = [request.choices for request in all_requests]
        if None not in choices:
            known = self.model.scoring_arguments
            defaults = [name for name in self._forward_params if name not in known]  # of answers that are generated
            arguments = {name: value for name, value in generate_kwargs.items() if name not in defaults}
            return {
                "scores": self.model.score_choices(**model_inputs, choices=choices, **arguments),
                "request": requests,
            }
        if any(choices):
            raise ValueError("Some requests of a batch have choices and others have none: ask them in separate calls.")
        generated = self.model.generate(**model_inputs, **generate_kwargs)
        sequences = getattr(generated, "sequences", generated)
        return {"answer_ids": sequences[:, model_inputs["input_ids"].shape[1] :], "request": requests}

    def postprocess(
        self, model_outputs: dict[str, Any], return_full_text: bool = False, skip_special_tokens: bool = True
    ) -> list[dict[str, Any]]:
        """One request's answer as text, without surrounding white space; what goes on keeps that before it."""
        request = model_outputs["request"]
        ranked = []
        if request.choices is not None:
            scores = model_outputs["scores"][0, : len(request.choices)]  # others of the batch may have more
            ranked = rank_choices(request.choices, scores.tolist())
            answer = ranked[0][0]
        else:
            (answer,) = self.processor.post_process_image_text_to_text(
                model_outputs["answer_ids"], skip_special_tokens=skip_special_tokens
            )
        generated: Any = answer.strip()
        if request.begun is not None and ranked:
            generated = answer.rstrip()
        elif request.begun is not None:
            answer_ids = model_outputs["answer_ids"][0].tolist()
            generated = decode_behind(self.processor, request.begun, answer_ids, skip_special_tokens)
        if return_full_text and request.begun is not None:
            generated = complete(request.messages, generated)
        elif return_full_text:
            generated = [*request.messages, {"role": "assistant", "content": generated}]
        output = {"input_text": request.input_text, "generated_text": generated}
        if ranked:
            output["choices"], output["log_likelihoods"] = map(list, zip(*ranked, strict=True))
        return [output]

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
            loader = ReadAhead(loader)
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


@dataclass
class _Request:
    """The conversation. An object, so that moving inputs between devices does not look for tensors in it.

    Args:
        messages, input_text: see `_messages_of`.
        begun: the last ids of the answer that is gone on with; None: a new one is given.
        choices: among which the answer is looked for.
        visual: inputs that a `VideoOnce` made of its video.
    """

    messages: list[dict[str, Any]]
    input_text: Any
    begun: list[int] | None
    choices: list[str] | None
    visual: dict[str, Any]


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
    unknown = set(request) - {"video", "text", "choices"}
    if unknown:
        raise ValueError(
            f'A request holds "video", "text" and perhaps "choices", got {", ".join(map(repr, sorted(unknown)))}.'
        )
    video = [] if request.get("video") is None else [{"type": "video", "video": request["video"]}]
    return [{"role": "user", "content": [*video, {"type": "text", "text": request["text"]}]}], request["text"]


def _refuse_generation(options: dict[str, Any], known: Collection[str], for_generate: Collection[str]) -> None:
    """Raises a ValueError for an option of `generate` that scoring choices does not have, and for a misspelled one."""
    for name in options:
        if name not in {*known, *for_generate} and nearest_name(name, known) is not None:
            raise ValueError(unknown_option(name, "the pipeline", known))
        if name not in known:
            raise ValueError(f"`choices` are scored, and nothing is generated: leave out `{name}`.")


def _positions_of(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _names_of_generate(model: Any) -> set[str]:
    """Names that `model.generate` is known to take or to refuse by name: its arguments and the fields of its generation
    config, and those of transformers' own."""
    config = getattr(model, "generation_config", None)
    fields = {} if config is None else vars(config)
    arguments = {*inspect.signature(model.generate).parameters, *inspect.signature(GenerationMixin.generate).parameters}
    return {*arguments, *fields, *vars(GenerationConfig())} - {"self", "inputs", "kwargs"}


__all__ = ["VideoTextToTextPipeline"]
