"""Conversations and videos in, model inputs out: the chat template, the placeholders, the time sentence.

A prompt goes through three hands. The chat template writes one `<video>` or `<image>` a visual. `VidLaDAProcessor`
repeats that placeholder once for each row of the model's input that the visual takes, and may put a sentence about the
frames' times behind it. The tokenizer turns the result into ids, padded on the left.

The words and spaces follow the official code (repository ziHoHe/VidLaDA). Where that code does something that only a
model trained or measured with it needs, the option `official_prompt` reproduces it; nothing does so by default.
"""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin
from transformers.tokenization_utils_base import AddedToken
from transformers.video_utils import VideoMetadata

# Imported so that the Hub's copy of this file takes the pipeline's file along.
from .pipeline_vidlada import VideoTextToTextPipeline  # noqa: F401
from .video_processing_vidlada import (
    VidLaDAVideoProcessor,
    VidLaDAVideosKwargs,
    frame_stride,
    frame_timestamps,
    list_videos,
)

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
THINK_MODES = (None, "think", "no_think")
PROMPT_OPTIONS: dict[str, tuple[Any, ...]] = {
    "add_time_instruction": (True, False),
    "timestamps": ("seconds", "ordinal"),
    "official_prompt": (None, "inference", "training"),
}

# transformers puts this character before the special tokens that a user typed (`sanitize_control_tokens=True`): a
# placeholder behind it is plain text.
_TYPED_BY_USER = "\U000f0000"
_PADDING_OPTIONS = ("padding", "max_length", "pad_to_multiple_of", "padding_side")

DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)

# Official rules: a system prompt always first, contents trimmed, a header before and `<|eot_id|>` after each message.
# A content is a string or a list of parts; a visual part becomes its placeholder and a line break. `think_mode` is
# glued to the last user message. `official_prompt="training"` moves the only placeholder of a message to its start.
CHAT_TEMPLATE = """\
{%- macro header(role) -%}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' -}}
{%- endmacro -%}
{%- set ns = namespace(text='', last_user=-1) -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- if not messages or messages[0]['role'] != 'system' -%}
    {{- header('system') + 'SYSTEM_PROMPT<|eot_id|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['content'] is string -%}
        {%- set ns.text = message['content'] -%}
    {%- else -%}
        {%- set ns.text = '' -%}
        {%- for part in message['content'] or [] -%}
            {%- if part['type'] == 'text' -%}
                {%- set ns.text = ns.text + part['text'] -%}
            {%- elif part['type'] == 'video' -%}
                {%- set ns.text = ns.text + '<video>\\n' -%}
            {%- elif part['type'] == 'image' -%}
                {%- set ns.text = ns.text + '<image>\\n' -%}
            {%- else -%}
                {{- raise_exception('A content part must be of type text, video or image, got ' + part['type']) -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if official_prompt is defined and official_prompt == 'training' -%}
        {%- for tag in ['<image>', '<video>'] -%}
            {%- if ns.text.split(tag) | length == 2 -%}
                {%- set ns.text = tag + '\\n' + (ns.text | replace(tag, '') | trim) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if think_mode is defined and think_mode and loop.index0 == ns.last_user -%}
        {%- set ns.text = ns.text + '/' + think_mode -%}
    {%- endif -%}
    {{- header(message['role']) -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}{{- (ns.text | trim) + '<|eot_id|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- (ns.text | trim) + '<|eot_id|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- header('assistant') -}}
{%- endif -%}
""".replace("SYSTEM_PROMPT", DEFAULT_SYSTEM_PROMPT)


class VidLaDAPromptKwargs(VidLaDAVideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of a call about its videos, besides those of the video processor.

    Attributes:
        add_time_instruction: put the official sentence about duration and frame times behind each video.
        timestamps: "seconds", the frames' real times; or "ordinal", what the official code writes when it samples at
            a fixed stride: 0, 1, 2... whatever the rate (a fault, but a model trained on it expects it).
        official_prompt: None, "inference" or "training", see `VidLaDAProcessor`.
    """

    add_time_instruction: bool | None
    timestamps: Literal["seconds", "ordinal"] | None
    official_prompt: Literal["inference", "training"] | None


class VidLaDAProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """All options of a call, by the sub-processor they go to."""

    videos_kwargs: VidLaDAPromptKwargs  # type: ignore[misc]
    _defaults = {}  # type: ignore[misc, var-annotated]  # transformers 5.17 reads it


def count_frame_tokens(
    height: int, width: int, patch_size: int, pooling_stride: int, pooling_mode: str, newline_position: str
) -> int:
    """Rows of the model's input that one frame takes: pooled patches and the newlines that belong to the frame.

    Args:
        height, width: pixels of the processed frame.
        patch_size: pixels along the side of a patch.
        pooling_stride: patches along the side of a pooled cell.
        pooling_mode: "bilinear" rounds the pooled side up, "average" and "max" round it down.
        newline_position: "grid" adds one a pooled row, "frame" one a frame, "one_token" (one a video) and "no_token"
            none here.

    Returns:
        The count, 210 for the published model (384 px, patch 14, stride 2, bilinear, grid).
    """
    round_side = math.ceil if pooling_mode == "bilinear" else math.floor
    rows, columns = (round_side(side // patch_size / pooling_stride) for side in (height, width))
    return rows * columns + {"grid": rows, "frame": 1}.get(newline_position, 0)


def count_image_tokens(height: int, width: int, patch_size: int) -> int:
    """Rows that one still image takes: every patch, not pooled, and one newline (730 for the published model)."""
    return (height // patch_size) * (width // patch_size) + 1


def official_times(metadata: VideoMetadata, fps: float) -> list[float]:
    """The time stamps that the official code writes for frames sampled at `fps` frames a second.

    It divides the indices by the stride it sampled at: 0, 1, 2... whatever the rate. Where that gave more frames than
    allowed, it sampled anew without a stride and wrote seconds; the indices in `metadata` show which it was.
    """
    indices = list(metadata.frames_indices or ())
    stride = frame_stride(metadata.fps, fps)
    strided = indices == list(range(0, metadata.total_num_frames, stride))
    return frame_timestamps(indices, metadata.fps, stride=stride if strided else None)


def time_sentence(duration: float, times: Sequence[float], space: str = " ") -> str:
    """The official sentence about a video's frames; `duration` and `times` in seconds."""
    located = ",".join(f"{time:.2f}s" for time in times)
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(times)} frames are uniformly sampled from it. "
        f"These frames are located at {located}.{space}"
        "Please answer the following questions related to this video."
    )


def is_one_video(videos: Any) -> bool:
    """Whether `videos` is a single source, be it a list of frames, and not a list of videos."""
    if not isinstance(videos, (list, tuple)):
        return getattr(videos, "ndim", 4) != 5
    sources = list_videos(videos)
    frames = sources[0] if len(sources) == 1 and isinstance(sources[0], list) else []
    return len(frames) > 0 and len(frames) == len(videos) and frames[0] is videos[0]


def list_images(images: Any) -> list[Any]:
    """Flattens images (paths, PIL images, arrays of 3 dimensions or batches of 4) in any nesting into a list."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4:
        return [image for item in images for image in list_images(item)]
    return [images]


def _pattern(token: str) -> re.Pattern[str]:
    """Finds a placeholder in a prompt, but not one that transformers marked as typed by a user."""
    return re.compile(f"(?<!{_TYPED_BY_USER}){re.escape(token)}")


def _is_nested_per_text(visuals: Any, texts: Sequence[str]) -> bool:
    """Whether `visuals` holds a list for each text, as `apply_chat_template` passes them."""
    return (
        isinstance(visuals, (list, tuple))
        and len(visuals) == len(texts)
        and all(isinstance(item, (list, tuple)) and not is_one_video(item) for item in visuals)
    )


def nearest_name(name: str, known: Iterable[str]) -> str:
    """A hint for an error message: the known name closest to a misspelt one, or nothing."""
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean `{matches[0]}`?" if matches else ""


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


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

    The last four are defaults: `__call__` and `apply_chat_template` take them too (`think_mode` only the latter, since
    it belongs to the template). All arguments except the sub-processors are saved in `processor_config.json`.
    """

    valid_processor_kwargs: Any = VidLaDAProcessorKwargs
    list_videos = staticmethod(list_videos)
    is_one_video = staticmethod(is_one_video)

    def __init__(
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
    ) -> None:
        _check_choice("pooling_mode", pooling_mode, ("bilinear", "average", "max"))
        _check_choice("newline_position", newline_position, ("grid", "frame", "one_token", "no_token"))
        _check_choice("add_time_instruction", add_time_instruction, PROMPT_OPTIONS["add_time_instruction"])
        _check_choice("timestamps", timestamps, PROMPT_OPTIONS["timestamps"])
        _check_choice("official_prompt", official_prompt, PROMPT_OPTIONS["official_prompt"])
        _check_choice("think_mode", think_mode, THINK_MODES)
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

        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        placeholders = [AddedToken(token, special=True, normalized=False) for token in (IMAGE_TOKEN, VIDEO_TOKEN)]
        tokenizer.add_tokens(placeholders, special_tokens=True)
        tokenizer.padding_side = "left"
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)

    # -- options ------------------------------------------------------------------------------------------------

    @property
    def video_options(self) -> set[str]:
        """Names of the options about videos that a call takes."""
        return self._options_of("videos_kwargs", self.video_processor)

    def _options_of(self, group: str, sub_processor: Any) -> set[str]:
        own = self.valid_processor_kwargs.__annotations__[group].__annotations__
        return set(own) | set(getattr(getattr(sub_processor, "valid_kwargs", None), "__annotations__", ()))

    def _check_options(self, options: dict[str, Any]) -> None:
        """Raises for an option that no part of the processor knows (transformers would only log it)."""
        groups = {
            "text_kwargs": self._options_of("text_kwargs", None),
            "images_kwargs": self._options_of("images_kwargs", self.image_processor),
            "videos_kwargs": self.video_options,
        }
        flat = set().union(*groups.values(), groups, self.valid_processor_kwargs.__annotations__, {"common_kwargs"})
        named = [(name, flat) for name in options]
        named += [(name, known) for group, known in groups.items() for name in options.get(group) or ()]
        for name, known in named:
            if name == "think_mode":
                raise ValueError("`think_mode` is an option of the chat template: pass it to `apply_chat_template`.")
            if name not in known:
                raise ValueError(f"Unknown option `{name}` for {type(self).__name__}.{nearest_name(name, known)}")

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
            _check_choice(name, taken[name], choices)
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
                `{"type": "image", "image" | "path" | "url": ...}`.
            chat_template: another Jinja template for this call.
            processor_kwargs: options of `__call__`, such as `{"num_frames": 8}`; `think_mode` too.
            kwargs: `add_generation_prompt`, `tokenize`, `return_dict`, `return_tensors` and the other arguments of
                `ProcessorMixin.apply_chat_template`; options of `__call__` are taken here too.

        Returns:
            str or list of str; with `tokenize=True` ids, or with `return_dict=True` what `__call__` returns.

        Raises:
            ValueError: for no message, an unknown option, or visuals that do not match the placeholders.
        """
        if len(conversation) == 0:
            raise ValueError("The conversation is empty: it needs at least one message.")
        options = dict(processor_kwargs or {})
        known = self.video_options - {"return_tensors"}
        options.update({name: kwargs.pop(name) for name in list(kwargs) if name in known})
        think_mode = kwargs.pop("think_mode", options.pop("think_mode", self.think_mode))
        _check_choice("think_mode", think_mode, THINK_MODES)
        self._check_options(options)
        prompt_options = self._take_prompt_options(options)
        return super().apply_chat_template(
            conversation,
            chat_template=chat_template,
            processor_kwargs={**options, **prompt_options},
            **self._template_options(chat_template, think_mode, prompt_options["official_prompt"]),
            **kwargs,
        )

    def _template_options(
        self, chat_template: str | None, think_mode: str | None, official_prompt: str | None
    ) -> dict[str, Any]:
        """Those of the options that the template knows: a user's own need not know any."""
        named = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        template = named.get(chat_template or "default") or chat_template or ""
        if think_mode is not None and "think_mode" not in template:
            raise ValueError(f"`think_mode={think_mode!r}` has no effect: the chat template does not use `think_mode`.")
        options = {"think_mode": think_mode, "official_prompt": official_prompt}
        return {name: value for name, value in options.items() if name in template}

    # -- text and visuals -----------------------------------------------------------------------------------------

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Makes the model's inputs.

        Args:
            images: anything `SiglipImageProcessor` takes, or paths.
            text: a rendered prompt or a list of them, with one placeholder a visual. Where videos and no images are
                given, `<image>` stands for a video, as in the official code.
            videos: see `list_videos`; assigned to the placeholders in order.
            audio: not supported.
            kwargs: options of the tokenizer, the image processor, the video processor (`num_frames`, `fps`, ...) and
                `VidLaDAPromptKwargs`, flat or in `text_kwargs`, `images_kwargs`, `videos_kwargs`.

        Returns:
            `input_ids` and `attention_mask` (batch, length), padded on the left; `pixel_values_videos` (frames of all
            videos, 3, height, width) and `video_num_frames` (videos,); `pixel_values` (images, 3, height, width).
            `video_metadata` with `return_metadata=True`. Lists unless `return_tensors` is given.

        Raises:
            ValueError: for an unknown option, for counts of visuals and placeholders that differ (before any video
                is read), or for a time sentence about a video without a known frame rate.
        """
        self._check_options(kwargs)
        if audio is not None:
            raise ValueError(f"{type(self).__name__} takes no audio.")
        if text is None and images is None and videos is None:
            raise ValueError("Give at least one of `text`, `videos` and `images`.")
        texts = None if text is None else [text] if isinstance(text, str) else list(text)
        if texts is not None:
            if not all(isinstance(one, str) for one in texts):
                raise ValueError("`text` must be a string or a list of strings.")
            texts = self._check_placeholders(texts, images, videos)
        if images is not None:
            images = self.image_processor.fetch_images(list_images(images))

        prompt_options = self._take_prompt_options(kwargs)
        options = self._merge_kwargs(
            self.valid_processor_kwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        text_options, video_options = options["text_kwargs"], options["videos_kwargs"]
        visuals: dict[str, Any] = {}
        image_texts: list[str] = []
        video_texts: list[str] = []
        if images is not None:
            image_inputs, image_texts = self._process_images(images, **options["images_kwargs"])
            visuals.update(image_inputs)
        if videos is not None:
            video_inputs = dict(self.video_processor(list_videos(videos), **{**video_options, "return_metadata": True}))
            video_texts = self._expand_videos(texts or [], video_inputs, video_options, **prompt_options)
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
        """The texts with `<image>` read as `<video>` where only videos are given; raises if counts differ."""
        if images is None and videos is not None:
            texts = [_pattern(IMAGE_TOKEN).sub(VIDEO_TOKEN, text) for text in texts]
        for token, visuals, name, flatten in (
            (VIDEO_TOKEN, videos, "video", list_videos),
            (IMAGE_TOKEN, images, "image", list_images),
        ):
            expected = [len(_pattern(token).findall(text)) for text in texts]
            if _is_nested_per_text(visuals, texts):
                given = [len(flatten(item)) for item in visuals]
            else:
                expected, given = [sum(expected)], [0 if visuals is None else len(flatten(visuals))]
            for position, (wanted, got) in enumerate(zip(expected, given, strict=True)):
                if wanted != got:
                    where = f"prompt {position}" if len(expected) > 1 else "the text"
                    raise ValueError(
                        f"Found {wanted} `{token}` placeholder{'s' * (wanted != 1)} in {where} but {got} "
                        f"{name}{'s' * (got != 1)}: give one {name} for each placeholder."
                    )
        return texts

    def _expand_videos(
        self,
        texts: list[str],
        video_inputs: dict[str, Any],
        sampling: dict[str, Any],
        add_time_instruction: bool,
        timestamps: str,
        official_prompt: str | None,
    ) -> list[str]:
        """What replaces each video's placeholder: the repeated placeholder and, if asked for, the time sentence.

        The sentence stands on a line of its own between the video and the question. `sampling` holds the options of
        the video processor.
        """
        following = [text[match.end() :] for text in texts for match in _pattern(VIDEO_TOKEN).finditer(text)]
        replacements = []
        for index, rest in enumerate(following):
            replacement = self.replace_video_token(video_inputs, index)
            # The official wrapper writes the sentence only together with a placeholder that it adds itself.
            inside_a_line = official_prompt == "inference" and not rest.startswith("\n")
            if add_time_instruction and not inside_a_line:
                training = official_prompt == "training"
                sentence = self._describe_times(
                    video_inputs["video_metadata"][index], index, timestamps, sampling, space="" if training else " "
                )
                needs_break = training or not rest.startswith(("\n", "<|"))
                replacement += "\n" + sentence + "\n" * needs_break
            replacements.append(replacement)
        return replacements

    def _describe_times(
        self, metadata: VideoMetadata, index: int, timestamps: str, sampling: dict[str, Any], space: str
    ) -> str:
        if metadata.fps is None:
            raise ValueError(
                f"The time sentence needs the frame rate of video {index}, which its source does not tell: pass "
                "`video_metadata` with `fps`, or `add_time_instruction=False`."
            )

        def option(name: str) -> Any:
            value = sampling.get(name)
            return getattr(self.video_processor, name) if value is None else value

        length = metadata.total_num_frames / metadata.fps
        if timestamps == "ordinal" and not option("force_sample"):
            return time_sentence(length, official_times(metadata, option("fps") or 1), space)
        seconds = frame_timestamps(metadata.frames_indices or (), metadata.fps)
        return time_sentence(metadata.duration or length if timestamps == "seconds" else length, seconds, space)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholder of one processed image, once for each of its rows."""
        height, width = image_inputs["pixel_values"][image_idx].shape[-2:]
        return IMAGE_TOKEN * count_image_tokens(height, width, self.patch_size)

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The placeholder of one processed video, once for each of its rows."""
        height, width = video_inputs["pixel_values_videos"][0].shape[-2:]
        return VIDEO_TOKEN * self.count_video_tokens(int(video_inputs["video_num_frames"][video_idx]), height, width)

    def count_video_tokens(self, num_frames: int, height: int, width: int) -> int:
        """Rows that a video of processed frames of height x width pixels takes, see `count_frame_tokens`."""
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
        encoding = self.tokenizer(texts, **text_options)
        self._check_special_mm_tokens(texts, encoding, modalities=["image", "video"])
        data = dict(encoding)
        if drop_after_placeholder:
            data = self._drop_after_placeholders(data)
            if padding["padding"]:
                data = dict(self.tokenizer.pad(data, **padding))
        if wanted["return_mm_token_type_ids"]:
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(data["input_ids"])
        if wanted["return_text_replacement_offsets"]:
            data["text_replacement_offsets"] = offsets
        return data

    def _drop_after_placeholders(self, data: dict[str, Any]) -> dict[str, Any]:
        """Rows of tokens without the first token of each piece of text that follows a visual.

        The official inference code tokenizes piece by piece and cuts off the first id of every later piece, as if the
        tokenizer had put a start token there, which it does not.
        """
        placeholders = {self.image_token_id, self.video_token_id}
        kept = [
            [0, *(at for at in range(1, len(row)) if row[at] in placeholders or row[at - 1] not in placeholders)]
            for row in data["input_ids"]
        ]
        return {name: [[row[at] for at in k] for row, k in zip(rows, kept, strict=True)] for name, rows in data.items()}

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
        return ["input_ids", "attention_mask", "pixel_values", "pixel_values_videos", "video_num_frames"]


__all__ = ["VidLaDAProcessor"]
