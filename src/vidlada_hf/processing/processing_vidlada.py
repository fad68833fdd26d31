"""Conversations and videos in, model inputs out.

A prompt is made in three steps. The chat template writes one `<video>` or `<image>` a visual. `VidLaDAProcessor`
repeats that placeholder, once for each token that the model makes of the visual, and may put a sentence about the
frames' times behind it. The tokenizer turns the result into ids, padded on the left.
"""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from .conversations_vidlada import check_parts, load_images, read_videos
from .options_vidlada import check_choice, unknown_option

# Imported so that the Hub's loader, which follows imports, takes the pipeline's file along.
from .pipeline_vidlada import VideoTextToTextPipeline  # noqa: F401
from .processor_code_vidlada import PROCESSOR_CODE, copy_processor_code
from .prompts_vidlada import (
    CHAT_TEMPLATE,
    IMAGE_TOKEN,
    PROMPT_OPTIONS,
    TEMPLATE_OPTIONS,
    VIDEO_TOKEN,
    VidLaDAPromptKwargs,
    drop_after_placeholders,
    name_placeholders,
    time_instruction,
)
from .user_text_vidlada import check_characters, encode_texts, escape, escape_conversation, typed
from .video_processing_vidlada import VidLaDAVideoProcessor, is_one_video, list_videos

_PADDING_OPTIONS = ("padding", "max_length", "pad_to_multiple_of", "padding_side")


class VidLaDAProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """All options of a call, by the sub-processor they go to."""

    videos_kwargs: VidLaDAPromptKwargs  # type: ignore[misc]
    _defaults = {}  # type: ignore[misc, var-annotated]  # transformers 5.17 reads it


def count_frame_tokens(
    height: int, width: int, patch_size: int, pooling_stride: int, pooling_mode: str, newline_position: str
) -> int:
    """Tokens of the model's input that one frame takes: pooled patches and the newlines that belong to the frame.

    Args:
        height, width: pixels of the processed frame.
        patch_size: pixels along the side of a patch.
        pooling_stride: patches along the side of a pooled cell.
        pooling_mode: "bilinear" rounds the pooled side up, "average" and "max" round it down.
        newline_position: "grid" adds one a row of cells, "frame" one a frame, "one_token" (one a video) and "no_token"
            none here.

    Returns:
        The count, 210 for the published model (384 px, patch 14, stride 2, bilinear, grid).
    """
    round_side = math.ceil if pooling_mode == "bilinear" else math.floor
    rows, columns = (round_side(side // patch_size / pooling_stride) for side in (height, width))
    return rows * columns + {"grid": rows, "frame": 1}.get(newline_position, 0)


def count_image_tokens(height: int, width: int, patch_size: int) -> int:
    """Tokens that one still image takes: every patch, not pooled, and one newline (730 for the published model)."""
    return (height // patch_size) * (width // patch_size) + 1


def list_images(images: Any) -> list[Any]:
    """Flattens images (paths, PIL images, arrays of 3 dimensions or batches of 4) in any nesting into a list."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4:
        return [image for item in images for image in list_images(item)]
    return [images]


def _is_nested_per_text(visuals: Any, texts: Sequence[str]) -> bool:
    """Whether `visuals` holds a list for each text, as `apply_chat_template` passes them."""
    return (
        isinstance(visuals, (list, tuple))
        and len(visuals) == len(texts)
        and all(isinstance(item, (list, tuple)) and not is_one_video(item) for item in visuals)
    )


class VidLaDAProcessor(ProcessorMixin):
    """Turns conversations, videos and images into the inputs of the model.

    Args:
        image_processor: default: SigLIP's, 384x384 pixels.
        tokenizer: gets the special tokens `<image>` and `<video>` if it lacks them, and pads on the left.
        video_processor: default: `VidLaDAVideoProcessor()`.
        chat_template: Jinja template; default: `CHAT_TEMPLATE`.
        patch_size, pooling_stride, pooling_mode, newline_position: as in the model's configuration; they fix how many
            placeholders a frame gets, see `count_frame_tokens`.
        add_time_instruction: put the sentence about duration and frame times between a video and the question.
        timestamps: "seconds" or "ordinal", see `VidLaDAPromptKwargs`.
        think_mode: "think" or "no_think" ends the last user message with `/think` or `/no_think`; None adds nothing.
        official_prompt: None, or the official code's form of a prompt.
            "inference": the first token of each piece of text behind a placeholder is dropped (in the usual prompt,
            the line break), and a placeholder inside a line of text gets no time sentence.
            "training": a message's only placeholder moves to its start, and the time sentence has no space before
            "Please" and an additional line break behind it.
        sanitize_control_tokens: special tokens that stand in a message (`<|eot_id|>`, `<video>`, ...) are text. False
            takes them for what they are, as the official code does: a user can then end the turn, or write another.

    The last five are defaults: `__call__` and `apply_chat_template` take them too (`think_mode` and
    `sanitize_control_tokens` only the latter, since they belong to the template). All arguments except the
    sub-processors are saved in `processor_config.json`.
    """

    valid_processor_kwargs: Any = VidLaDAProcessorKwargs
    list_videos = staticmethod(list_videos)
    is_one_video = staticmethod(is_one_video)

    def __init__(  # `ProcessorMixin` saves the arguments by name: a field of processor_config.json each, so no config
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: str | None = None,
        patch_size: int = 14,
        pooling_stride: int = 2,
        pooling_mode: str = "bilinear",
        newline_position: str = "grid",
        add_time_instruction: bool = False,
        timestamps: str = "seconds",
        think_mode: str | None = None,
        official_prompt: str | None = None,
        sanitize_control_tokens: bool = True,
    ) -> None:
        super().__init__(
            image_processor or SiglipImageProcessor(size={"height": 384, "width": 384}),
            tokenizer,
            video_processor or VidLaDAVideoProcessor(),
            chat_template=chat_template or CHAT_TEMPLATE,
        )
        self.patch_size = patch_size
        self.pooling_stride = pooling_stride
        self.pooling_mode = pooling_mode
        self.newline_position = newline_position
        self.add_time_instruction = add_time_instruction
        self.timestamps = timestamps
        self.think_mode = think_mode
        self.official_prompt = official_prompt
        self.sanitize_control_tokens = sanitize_control_tokens
        check_choice("pooling_mode", pooling_mode, ("bilinear", "average", "max"))
        check_choice("newline_position", newline_position, ("grid", "frame", "one_token", "no_token"))
        for name, choices in (TEMPLATE_OPTIONS | PROMPT_OPTIONS).items():
            check_choice(name, getattr(self, name), choices)

        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        name_placeholders(tokenizer)
        tokenizer.padding_side = "left"
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)

    def to_dict(self) -> dict[str, Any]:
        fields = super().to_dict()  # and where this class is, in the code that is saved
        return fields | {"auto_map": PROCESSOR_CODE | fields.get("auto_map", {})}

    def to_json_file(self, json_file_path: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in the parent class. Under the name that `save_pretrained` gives it, it brings the code that it names."""
        copy_processor_code(json_file_path)
        super().to_json_file(json_file_path, *args, **kwargs)

    # -- options ------------------------------------------------------------------------------------------------

    @property
    def video_options(self) -> set[str]:
        """Names of the options about videos that a call takes."""
        return self._options_of("videos_kwargs", self.video_processor)

    def _options_of(self, group: str, sub_processor: Any) -> set[str]:
        own = self.valid_processor_kwargs.__annotations__[group].__annotations__
        return set(own) | set(getattr(getattr(sub_processor, "valid_kwargs", None), "__annotations__", ()))

    def _check_options(self, options: dict[str, Any]) -> None:
        """Raises a ValueError for an option that no part of the processor knows (transformers would only log it)."""
        groups = {
            "text_kwargs": self._options_of("text_kwargs", None),
            "images_kwargs": self._options_of("images_kwargs", self.image_processor),
            "videos_kwargs": self.video_options,
        }
        flat = set().union(*groups.values(), groups, self.valid_processor_kwargs.__annotations__, {"common_kwargs"})
        named = [(name, flat) for name in options]
        named += [(name, known) for group, known in groups.items() for name in options.get(group) or ()]
        for name, known in named:
            if name in TEMPLATE_OPTIONS:
                raise ValueError(f"`{name}` is an option of the chat template: pass it to `apply_chat_template`.")
            if name not in known:
                raise ValueError(unknown_option(name, type(self).__name__, known))

    def _take_prompt_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Takes the options of `VidLaDAPromptKwargs` that are not the video processor's out of a call's options.

        Missing ones are the processor's own. None is a value of `official_prompt`, and of the others means missing.
        """
        nested = dict(options.get("videos_kwargs") or {})
        taken = {}
        for name, choices in PROMPT_OPTIONS.items():
            default = getattr(self, name)
            taken[name] = options.pop(name, nested.pop(name, default))
            if taken[name] is None and None not in choices:
                taken[name] = default
            check_choice(name, taken[name], choices)
        if "videos_kwargs" in options:
            options["videos_kwargs"] = nested
        return taken

    # -- conversations --------------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Renders conversations and, with `tokenize=True`, makes the model's inputs of them.

        Args:
            conversation: messages `{"role", "content"}`, or a list of such conversations. A content is a string or a
                list of `{"type": "text", "text": ...}`, `{"type": "video", "video" | "path" | "url": ...}` and
                `{"type": "image", "image" | "path" | "url" | "base64": ...}`. Addresses are fetched from "url" only, or
                with `allow_urls=True`. Options of sampling (`num_frames`, `fps`, ...) beside a video hold for that one.
            chat_template: another Jinja template for this call.
            processor_kwargs: options of `__call__`, such as `{"num_frames": 8}`; `think_mode` and
                `sanitize_control_tokens` too.
            kwargs: `add_generation_prompt`, `tokenize`, `return_dict`, `return_tensors` and the other arguments of
                `ProcessorMixin.apply_chat_template`; options of `__call__` are taken here too.

        Returns:
            str or list of str, for `__call__`: control tokens in a message hold an invisible character, by which it
            knows that they are text. With `tokenize=True` ids, or with `return_dict=True` what `__call__` returns.

        Raises:
            ValueError: for no message, an unknown option, half a character in a text, or visuals that do not match the
                placeholders.
            VideoReadingError: for a video that cannot be read, or an address that may not be fetched.
        """
        if len(conversation) == 0:
            raise ValueError("The conversation is empty: it needs at least one message.")
        conversation = check_parts(conversation)
        options = dict(processor_kwargs or {})
        known = self.video_options - {"return_tensors"}
        options.update({name: kwargs.pop(name) for name in list(kwargs) if name in known})
        own = {name: kwargs.pop(name, options.pop(name, getattr(self, name))) for name in TEMPLATE_OPTIONS}
        for name, value in own.items():
            check_choice(name, value, TEMPLATE_OPTIONS[name])
        self._check_options(options)
        prompt_options = self._take_prompt_options(options)
        sanitize = own["sanitize_control_tokens"]
        conversation = escape_conversation(conversation, self.tokenizer, sanitize)
        for name in {"tools", "documents"} & kwargs.keys():
            kwargs[name] = escape(kwargs[name], self.tokenizer, sanitize, f"`{name}`")
        return super().apply_chat_template(
            conversation,
            chat_template=chat_template,
            processor_kwargs={**options, **prompt_options},
            **self._template_options(chat_template, own["think_mode"], prompt_options["official_prompt"]),
            **kwargs,
        )

    def _template_options(
        self, chat_template: str | None, think_mode: str | None, official_prompt: str | None
    ) -> dict[str, Any]:
        """The options that the template uses: a user's own template need not use any."""
        named = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        template = named.get(chat_template or "default") or chat_template or ""
        if think_mode is not None and "think_mode" not in template:
            raise ValueError(f"`think_mode={think_mode!r}` has no effect: the chat template does not use `think_mode`.")
        options = {"think_mode": think_mode, "official_prompt": official_prompt}
        return {name: value for name, value in options.items() if name in template}

    # -- text and visuals -----------------------------------------------------------------------------------------

    def __call__(  # type: ignore[override]  # without `audio`, by which transformers knows who takes any
        self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Makes the model's inputs.

        Args:
            images: anything `SiglipImageProcessor` takes, or paths.
            text: a rendered prompt or a list of them, with one placeholder a visual. Where videos and no images are
                given, `<image>` stands for a video, as in the official code.
            videos: see `list_videos`; assigned to the placeholders in order.
            kwargs: options of the tokenizer, the image processor, the video processor (`num_frames`, `fps`, ...) and
                `VidLaDAPromptKwargs`, flat or in `text_kwargs`, `images_kwargs`, `videos_kwargs`.

        Returns:
            `input_ids` and `attention_mask` (batch, length), padded on the left; `pixel_values_videos` (frames of all
            videos, 3, height, width) and `num_frames_per_video` (videos,); `pixel_values` (images, 3, height, width).
            `video_metadata` with `return_metadata=True`. Lists unless `return_tensors` is given.

        Raises:
            ValueError: for an unknown option, for counts of visuals and placeholders that differ (before any video
                is read), or for a time sentence about a video without a known frame rate.
        """
        if kwargs.pop("audio", None) is not None:
            raise ValueError(f"{type(self).__name__} takes no audio.")
        self._check_options(kwargs)
        if text is None and images is None and videos is None:
            raise ValueError("Give at least one of `text`, `videos` and `images`.")
        texts = None if text is None else [text] if isinstance(text, str) else list(text)
        if texts is not None:
            if not all(isinstance(one, str) for one in texts):
                raise ValueError("`text` must be a string or a list of strings.")
            for index, one in enumerate(texts, 1):
                check_characters(one, "`text`" if len(texts) == 1 else f"Text {index}")
            texts = self._check_placeholders(texts, images, videos)
        prompt_options = self._take_prompt_options(kwargs)
        options = self._merge_kwargs(
            self.valid_processor_kwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        text_options, video_options = options["text_kwargs"], options["videos_kwargs"]
        visuals: dict[str, Any] = {}
        image_texts: list[str] = []
        video_texts: list[str] = []
        if images is not None:
            images = load_images(list_images(images), self.video_processor, video_options)
            image_inputs, image_texts = self._process_images(images, **options["images_kwargs"])
            visuals.update(image_inputs)
        if videos is not None:
            video_inputs, sampling = read_videos(list_videos(videos), self.video_processor, video_options)
            video_texts = self._expand_videos(texts or [], video_inputs, sampling, **prompt_options)
            visuals.update(video_inputs)
            if not video_options.get("return_metadata"):
                visuals.pop("video_metadata", None)

        data: dict[str, Any] = {}
        if texts is not None:
            drop = prompt_options["official_prompt"] == "inference"
            texts, offsets = self.get_text_with_replacements(texts, image_texts, video_texts)
            data = self._tokenize(texts, offsets, options, drop)
        return BatchFeature(
            {**data, **visuals},
            tensor_type=text_options.get("return_tensors"),
            skip_tensor_conversion=self.skip_tensor_conversion,
        )

    def _check_placeholders(self, texts: list[str], images: Any, videos: Any) -> list[str]:
        """The texts, with `<image>` read as `<video>` where only videos are given.

        Raises:
            ValueError: the numbers of placeholders and of visuals differ.
        """
        if images is None and videos is not None:
            texts = [text.replace(IMAGE_TOKEN, VIDEO_TOKEN) for text in texts]
        for token, visuals, name, flatten in (
            (VIDEO_TOKEN, videos, "video", list_videos),
            (IMAGE_TOKEN, images, "image", list_images),
        ):
            expected = [text.count(token) for text in texts]
            if _is_nested_per_text(visuals, texts):
                given = [len(flatten(item)) for item in visuals]
            else:
                expected, given = [sum(expected)], [0 if visuals is None else len(flatten(visuals))]
            for position, (wanted, got) in enumerate(zip(expected, given, strict=True)):
                if wanted != got:
                    where = f"prompt {position}" if len(expected) > 1 else "the text"
                    is_typed = any(typed(token) in text for text in texts)
                    raise ValueError(
                        f"Found {wanted} `{token}` placeholder{'s' * (wanted != 1)} in {where} but {got} "
                        f"{name}{'s' * (got != 1)}: give one {name} for each placeholder."
                        + f' (In a message `{token}` is text: write {{"type": "{name}"}} as a part of its content.)'
                        * is_typed
                    )
        return texts

    def _expand_videos(
        self,
        texts: list[str],
        video_inputs: dict[str, Any],
        sampling: list[dict[str, Any]],
        add_time_instruction: bool,
        timestamps: str,
        official_prompt: str | None,
    ) -> list[str]:
        """What replaces each video's placeholder: the repeated placeholder and, if asked for, the time sentence.

        Args:
            texts: prompts with one placeholder a video.
            video_inputs: what the video processor returned, with `video_metadata`.
            sampling: options of the video processor for each video.
        """

        def option(name: str, index: int) -> Any:
            value = sampling[index].get(name)
            return getattr(self.video_processor, name) if value is None else value

        following = [text[match.end() :] for text in texts for match in re.finditer(re.escape(VIDEO_TOKEN), text)]
        replacements = []
        for index, rest in enumerate(following):
            replacement = self.replace_video_token(video_inputs, index)
            if add_time_instruction:
                replacement += time_instruction(
                    video_inputs["video_metadata"][index],
                    index,
                    rest,
                    timestamps=timestamps,
                    official_prompt=official_prompt,
                    fps=option("fps", index) or 1,
                    force_sample=option("force_sample", index),
                )
            replacements.append(replacement)
        return replacements

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholder of one processed image, once for each of its tokens."""
        height, width = image_inputs["pixel_values"][image_idx].shape[-2:]
        return IMAGE_TOKEN * count_image_tokens(height, width, self.patch_size)

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The placeholder of one processed video, once for each of its tokens."""
        height, width = video_inputs["pixel_values_videos"][0].shape[-2:]
        return VIDEO_TOKEN * self.count_video_tokens(
            int(video_inputs["num_frames_per_video"][video_idx]), height, width
        )

    def count_video_tokens(self, num_frames: int, height: int, width: int) -> int:
        """Tokens that a video of processed frames of height x width pixels takes, see `count_frame_tokens`."""
        frame = count_frame_tokens(
            height, width, self.patch_size, self.pooling_stride, self.pooling_mode, self.newline_position
        )
        return num_frames * frame + (self.newline_position == "one_token")

    def _get_num_multimodal_tokens(
        self, image_sizes: Any = None, video_sizes: Any = None, **kwargs: Any
    ) -> MultiModalData:
        """Placeholders for images (height, width) and videos (sampled frames, height, width); every size is resized."""
        counts: dict[str, list[int]] = {}
        if image_sizes is not None:
            size = kwargs.get("size") or self.image_processor.size
            tokens = count_image_tokens(size["height"], size["width"], self.patch_size)
            counts = {"num_image_tokens": [tokens] * len(image_sizes), "num_image_patches": [1] * len(image_sizes)}
        if video_sizes is not None:
            size = kwargs.get("size") or self.video_processor.size
            counts["num_video_tokens"] = [
                self.count_video_tokens(frames, size["height"], size["width"]) for frames, _, _ in video_sizes
            ]
        return MultiModalData(**counts)

    def _tokenize(
        self, texts: list[str], offsets: list[Any], options: dict[str, Any], drop_after_placeholder: bool
    ) -> dict[str, Any]:
        """Ids and mask of the expanded texts as lists, and what else was asked for (see transformers' `TextKwargs`)."""
        given = {name: value for name, value in options["text_kwargs"].items() if value is not None}
        text_options = {"padding": True, "return_token_type_ids": False, **given}
        wanted = {
            name: text_options.pop(name, options.get(name, False))
            for name in ("return_mm_token_type_ids", "return_text_replacement_offsets")
        }
        text_options.pop("return_tensors", None)  # lists first; `__call__` makes tensors of everything at the end
        bos = self.tokenizer.bos_token
        if bos is not None and all(text.startswith(bos) for text in texts):
            text_options["add_special_tokens"] = False  # the template wrote it already

        padding = {name: text_options[name] for name in _PADDING_OPTIONS if name in text_options}
        if drop_after_placeholder:
            text_options["padding"] = False
        encoding = encode_texts(self.tokenizer, texts, **text_options)
        self._check_special_mm_tokens(texts, encoding, modalities=["image", "video"])
        data = dict(encoding)
        if drop_after_placeholder:
            data = drop_after_placeholders(data, {self.image_token_id, self.video_token_id})
            if padding["padding"]:
                data = dict(self.tokenizer.pad(data, **padding))
        if wanted["return_mm_token_type_ids"]:
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(data["input_ids"])
        if wanted["return_text_replacement_offsets"]:
            data["text_replacement_offsets"] = offsets
        return data

    # -- answers --------------------------------------------------------------------------------------------------

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Generated ids (batch, length) or (length,) to texts, without the white space at their starts."""
        ids = torch.as_tensor(generated_outputs)
        texts = self.tokenizer.batch_decode(
            ids[None] if ids.ndim == 1 else ids, skip_special_tokens=skip_special_tokens, **kwargs
        )
        return [text.lstrip() for text in texts]

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns and the model's forward takes."""
        return ["input_ids", "attention_mask", "pixel_values", "pixel_values_videos", "num_frames_per_video"]


__all__ = ["VidLaDAProcessor"]
