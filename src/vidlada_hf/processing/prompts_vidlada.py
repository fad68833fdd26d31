"""The text of a prompt: the chat template, the placeholders of visuals, the sentence about a video's frames.

Words and spaces follow the official code (repository ziHoHe/VidLaDA). Where that code does something that only a model
trained or measured with it needs, `official_prompt` reproduces it; nothing does so by default.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from transformers.tokenization_utils_base import AddedToken
from transformers.video_utils import VideoMetadata

from .sampling_vidlada import frame_stride, frame_timestamps
from .video_processing_vidlada import VidLaDAVideoProcessorKwargs

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
TEMPLATE_OPTIONS: dict[str, tuple[Any, ...]] = {
    "think_mode": (None, "think", "no_think"),
    "sanitize_control_tokens": (True, False),
}
PROMPT_OPTIONS: dict[str, tuple[Any, ...]] = {
    "add_time_instruction": (True, False),
    "timestamps": ("seconds", "ordinal"),
    "official_prompt": (None, "inference", "training"),
}

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


class VidLaDAPromptKwargs(VidLaDAVideoProcessorKwargs, total=False):  # type: ignore[call-arg]
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


def time_instruction(
    metadata: VideoMetadata,
    index: int,
    following: str,
    *,
    timestamps: str,
    official_prompt: str | None,
    fps: float,
    force_sample: bool,
) -> str:
    """What is written behind a video's placeholders: the sentence about its frames, on a line of its own.

    Args:
        metadata: of the sampled video.
        index: its number, for the error.
        following: the text behind the placeholder.
        timestamps, official_prompt: see `VidLaDAPromptKwargs`.
        fps, force_sample: how the frames were sampled, see `sample_frame_indices`.

    Raises:
        ValueError: the video's frame rate is unknown.
    """
    if official_prompt == "inference" and not following.startswith("\n"):
        return ""  # the official wrapper writes the sentence only together with a placeholder that it adds itself
    if metadata.fps is None:
        raise ValueError(
            f"The time sentence needs the frame rate of video {index}, which its source does not tell: pass "
            "`video_metadata` with `fps`, or `add_time_instruction=False`."
        )
    is_training = official_prompt == "training"
    duration, times = written_times(metadata, timestamps, fps, force_sample)
    sentence = time_sentence(duration, times, space="" if is_training else " ")
    needs_break = is_training or not following.startswith(("\n", "<|"))
    return "\n" + sentence + "\n" * needs_break


def written_times(
    metadata: VideoMetadata, timestamps: str, fps: float, force_sample: bool
) -> tuple[float, list[float]]:
    """Duration and times of the frames as the sentence gives them: seconds, or what the official code writes."""
    length = metadata.total_num_frames / metadata.fps
    if timestamps == "ordinal" and not force_sample:
        return length, official_times(metadata, fps)
    if timestamps == "ordinal" or metadata.frames_indices is None:
        return length, frame_timestamps(metadata.frames_indices or (), metadata.fps)
    return metadata.duration or length, metadata.timestamps  # what the file's own clock says, if it has one


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


def name_placeholders(tokenizer: Any) -> None:
    """Makes `<image>` and `<video>` special tokens of a tokenizer, which it names, and saves, as its `image_token` and
    `video_token`."""
    placeholders = {
        "image_token": AddedToken(IMAGE_TOKEN, special=True, normalized=False),
        "video_token": AddedToken(VIDEO_TOKEN, special=True, normalized=False),
    }
    named = tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*named, *(name for name in placeholders if name not in named)]
    tokenizer.add_special_tokens(placeholders)


def drop_after_placeholders(data: dict[str, list[list[int]]], placeholders: Collection[int]) -> dict[str, Any]:
    """Tokenized prompts without the first token of each piece of text that follows a visual.

    The official inference code tokenizes piece by piece and cuts off the first id of every later piece, as if the
    tokenizer had put a start token there, which it does not.

    Args:
        data: `input_ids` and whatever else has a value a token, a list for each prompt.
        placeholders: ids of the tokens that stand for visuals.
    """
    kept = [
        [0, *(i for i in range(1, len(ids)) if ids[i] in placeholders or ids[i - 1] not in placeholders)]
        for ids in data["input_ids"]
    ]
    return {
        name: [[prompt[i] for i in indices] for prompt, indices in zip(values, kept, strict=True)]
        for name, values in data.items()
    }
