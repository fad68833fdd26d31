"""The visual parts of messages: what may stand in one, and how each is read by what it says about itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from .addresses_vidlada import allow_addresses, fetch
from .options_vidlada import unknown_option
from .pictures_vidlada import load_picture
from .sampling_vidlada import check_sampling
from .video_clip_vidlada import VideoReadingError
from .video_processing_vidlada import OneVideo, list_metadata, list_videos, resolve_limits

VIDEO_KEYS = ("video", "path", "url")
IMAGE_KEYS = ("image", "path", "url", "base64")
# Options of the video processor that may stand beside a video, and hold for that one alone.
VIDEO_PART_OPTIONS = ("num_frames", "fps", "max_frames", "force_sample", "sample_by", "do_sample_frames")


class VideoWithOptions(OneVideo):
    """A video of a message, and the options of the video processor that stand beside it.

    Args:
        source: see `read_video`.
        options: some of `VIDEO_PART_OPTIONS`.
    """

    def __init__(self, source: Any, options: dict[str, Any]) -> None:
        super().__init__(source)
        self.options = options

    def over(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a call with these in place of those that they contradict."""
        chosen = {"num_frames", "fps"} & self.options.keys()
        return {**options, **(dict.fromkeys(("num_frames", "fps")) if chosen else {}), **self.options}

    def is_same(self, other: Any) -> bool:
        """Whether another is the same object or path, with the same options."""
        if not isinstance(other, VideoWithOptions) or self.options != other.options:
            return False
        mine, theirs = self.source, other.source
        is_path = isinstance(mine, (str, os.PathLike)) and type(mine) is type(theirs)
        return mine is theirs or (is_path and mine == theirs)


def check_parts(conversation: Any) -> Any:
    """A conversation, or a list of them, whose visual parts are checked and name their source in one way.

    A part becomes `{"type": "video", "video": VideoWithOptions}` or `{"type": "image", "image": source}`. What its key
    `url` names may be fetched: it becomes an `AllowedAddress`. What was given is not changed.

    Raises:
        ValueError: a part with several sources or videos, or an empty list; an option that does not exist or
            contradicts another.
    """
    if hasattr(conversation, "messages"):
        return check_parts(conversation.messages)
    if isinstance(conversation, (list, tuple)):
        return [check_parts(message) for message in conversation]
    message = _as_mapping(conversation)
    if isinstance(message, Mapping) and isinstance(message.get("content"), (list, tuple)):
        return {**message, "content": [_check_part(_as_mapping(part)) for part in message["content"]]}
    return message


def _as_mapping(value: Any) -> Any:
    """A message or a part that is a dataclass or a pydantic model (such as a client library's) as a dict."""
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value


def _check_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image_url":  # OpenAI's form
        address = part.get("image_url")
        part, kind = {"type": "image", "url": address.get("url") if isinstance(address, Mapping) else address}, "image"
    if kind not in ("video", "image"):
        return part
    given = {key: value for key, value in part.items() if value is not None and key != "type"}
    keys = VIDEO_KEYS if kind == "video" else IMAGE_KEYS
    options = {key: value for key, value in given.items() if key not in keys}
    _check_options(kind, options, keys)
    sources = [key for key in keys if key in given]
    if not sources:
        return {"type": kind}  # a placeholder; what stands for it is given apart
    if len(sources) > 1:
        raise ValueError(f"A message's {kind} has {' and '.join(map(repr, sources))}: give one of them.")
    source = given[sources[0]]
    if isinstance(source, (list, tuple)) and not len(source):
        raise ValueError(f"A message's {kind} is an empty list: give a path, or at least one frame.")
    if sources[0] == "url":
        source = allow_addresses(source)
    if sources[0] == "base64" and isinstance(source, str) and not source.startswith("data:"):
        source = f"data:image/;base64,{source}"
    return {"type": kind, kind: _one_video(source, options) if kind == "video" else source}


def _one_video(source: Any, options: dict[str, Any]) -> VideoWithOptions:
    """What a part says of its video. A list in it is one of frames, or holds a single video."""
    videos = list_videos(source)
    if len(videos) != 1:
        raise ValueError(f"A message's video is a list of {len(videos)} videos: give each a part of its own.")
    return VideoWithOptions(videos[0], options)


def _check_options(kind: str, options: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raises a ValueError for what no part of this kind has, or what makes no sense."""
    known = VIDEO_PART_OPTIONS if kind == "video" else ()
    for name in options:
        if name not in known:
            raise ValueError(unknown_option(name, f"a message's {kind}", {*keys, *known}))
    check_sampling(options.get("num_frames"), options.get("fps"), options.get("max_frames"))


def read_videos(
    sources: Sequence[Any], video_processor: Any, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads videos, each by its own options; one that several parts of messages name once.

    Args:
        sources: videos; a `VideoWithOptions` among them brings options of its own.
        video_processor: a `VidLaDAVideoProcessor`.
        options: of its call, for all of them.

    Returns:
        What the video processor returns, with `video_metadata`; and the options that each video was read by.
    """
    options = {**options, "return_metadata": True}
    kept = [source for source in sources if hasattr(getattr(source, "source", None), "read_once")]
    if kept and len(sources) == 1:
        own = kept[0].options
        return kept[0].source.read_once(
            lambda source: read_videos([VideoWithOptions(source, own)], video_processor, options)
        )
    places = _first_places(sources)
    if options.get("video_metadata") is None and places != list(range(len(sources))):
        return _read_each_once(sources, places, video_processor, options)
    if not any(getattr(source, "options", None) for source in sources):
        return dict(video_processor(list(sources), **options)), [options] * len(sources)
    sampling, read = [], []
    for source, metadata in zip(sources, list_metadata(options.get("video_metadata"), len(sources)), strict=True):
        own = {**options, "video_metadata": metadata and [metadata], "return_tensors": "pt"}
        if isinstance(source, VideoWithOptions):
            own = source.over(own)
        sampling.append(own)
        read.append(video_processor([source], **own))
    return {
        "pixel_values_videos": torch.cat([one["pixel_values_videos"] for one in read]),
        "num_frames_per_video": torch.cat([one["num_frames_per_video"] for one in read]),
        "video_metadata": [metadata for one in read for metadata in one["video_metadata"]],
    }, sampling


def _first_places(sources: Sequence[Any]) -> list[int]:
    """Of each video, where it stands first."""
    alike = [isinstance(source, VideoWithOptions) and source.is_same for source in sources]
    return [
        next((i for i, is_same in enumerate(alike[:n]) if is_same and is_same(source)), n)
        for n, source in enumerate(sources)
    ]


def _read_each_once(
    sources: Sequence[Any], places: list[int], video_processor: Any, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """As `read_videos`, with what was read of a video again wherever it stands."""
    wanted = sorted(set(places))
    read, sampling = read_videos([sources[i] for i in wanted], video_processor, {**options, "return_tensors": "pt"})
    counts = read["num_frames_per_video"]
    frames = read["pixel_values_videos"].split(counts.tolist())
    again = [wanted.index(place) for place in places]
    return {
        "pixel_values_videos": torch.cat([frames[i] for i in again]),
        "num_frames_per_video": counts[again],
        "video_metadata": [read["video_metadata"][i] for i in again],
    }, [sampling[i] for i in again]


def refuse_text_before_video(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises a ValueError where a text of a user or an answer stands before the last video or image of a chat."""
    texts: list[str] = []
    for message in messages:
        content = message.get("content") or []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part.get("type") == "text" and message.get("role") != "system" and str(part.get("text")).strip():
                texts.append(part["text"])
            elif part.get("type") != "text" and texts:
                raise ValueError(
                    f"`share_video` shares all that stands before the end of the video, and the text {texts[0]!r} "
                    "stands before it: write the video first and the text behind it, or leave `share_video` out."
                )


def load_images(images: Sequence[Any], video_processor: Any, options: Mapping[str, Any]) -> list[Any]:
    """Images as they are; those that are named by a path or an address as PIL images.

    Args:
        images: a flat list.
        video_processor, options: as in `read_videos`: consent to addresses, and limits, hold for all visuals.
    """

    def option(name: str) -> Any:
        return options.get(name, getattr(video_processor, name, None))

    limits = resolve_limits(option("limits"))
    download = partial(
        fetch,
        allow_urls=bool(option("allow_urls")),
        allow_private=bool(option("allow_private_urls")),
        max_bytes=limits.max_download_bytes,
        max_seconds=limits.max_download_seconds,
    )
    try:
        return [
            Image.fromarray(load_picture(image, download, limits.max_pixels))
            if isinstance(image, (str, os.PathLike))
            else image
            for image in images
        ]
    except VideoReadingError as error:
        raise VideoReadingError(f"Cannot read an image: {error}.") from error.__cause__


__all__ = ["VideoWithOptions", "check_parts", "load_images", "read_videos", "refuse_text_before_video"]
