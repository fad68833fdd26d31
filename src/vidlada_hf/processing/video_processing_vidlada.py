"""Videos to the pixel values of the vision tower: choose frames, resize them to 384x384, scale them to -1..1.

Frames are chosen by the official rule, see `sample_frame_indices`. The frames of all videos of a batch come out
in one flat tensor with the count of each video, so that videos of different lengths need no padding.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .animation_vidlada import is_animated_picture
from .limits_vidlada import ReadingLimits
from .options_vidlada import check_choice, nearest_name, unknown_option
from .processor_code_vidlada import VIDEO_PROCESSOR_CODE, copy_processor_code
from .sampling_vidlada import (
    check_sampling,
    frame_stride,
    frame_timestamps,
    sample_frame_indices,
    sample_frames_by_time,
)
from .video_clip_vidlada import ClipMetadata
from .video_frames_vidlada import IMAGE_SUFFIXES
from .video_reading_vidlada import describe_source, read_video

_SAMPLING_OPTIONS = ("num_frames", "fps", "max_frames", "force_sample", "do_sample_frames", "sample_by")
_CONSENT = ("allow_urls", "allow_private_urls", "limits")  # the caller's to give: a checkpoint's files cannot


class VidLaDAVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `VidLaDAVideoProcessor` on top of those of every video processor.

    max_frames: the most frames that are sampled from one video.
    force_sample: always spread `max_frames` (or `num_frames`) frames evenly over the video; a short one repeats some.
    sample_by: "index", the official rule, or "time", see `sample_frames_by_time`.
    resize: "exact", Pillow's resize as in the official code, or "fast": FFmpeg's scaler for files (torch's kernel where
        `device` is another than the CPU), whose pixels differ a little.
    allow_urls: whether a text that looks like an address is fetched, see `read_video`.
    allow_private_urls: whether that may be from this machine or its own network.
    limits: what one video may cost: `ReadingLimits`, or a dictionary of its fields.
    """

    max_frames: int | None
    force_sample: bool | None
    sample_by: Literal["index", "time"] | None
    resize: Literal["exact", "fast"] | None
    allow_urls: bool | None
    allow_private_urls: bool | None
    limits: Any


class OneVideo:
    """A source of `read_video` that is one video, whatever list it stands in and whatever a list of it would mean."""

    is_one_video = True

    def __init__(self, source: Any) -> None:
        self.source = source


def list_videos(videos: Any) -> list[Any]:
    """Flattens videos given in any nesting into a list with one source a video, without reading any.

    Args:
        videos: one source of `read_video`, also as `OneVideo`; an array of 5 dimensions; or nested lists of sources.

    Returns:
        The sources, in order. A list is one video if all its items are frames: PIL images, arrays of up to 3
        dimensions, or paths of images. One such frame alone is a video of one frame.
    """
    if _is_frame(videos) and not isinstance(videos, (str, os.PathLike)):
        return [[videos]]
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if videos and all(_is_frame(item) for item in videos):
        return [list(videos)]
    return [source for item in videos for source in list_videos(item)]


class VidLaDAVideoProcessor(BaseVideoProcessor):
    """Turns videos into `pixel_values_videos` and `num_frames_per_video`.

    A call takes one video or nested lists of videos (see `list_videos` and `read_video`) and gives a `BatchFeature`:

    - `pixel_values_videos`: float32 (frames of all videos, 3, 384, 384), values -1..1, one video after the other;
    - `num_frames_per_video`: int64 (videos,), the frames of each;
    - `video_metadata`, with `return_metadata=True`: a list of `VideoMetadata`; `frames_indices` are the frames sampled.

    Frames are sampled by `sample_frame_indices`: at `fps` frames a second (default 1), at most `max_frames` (default
    64); or `num_frames` evenly. A value given in a call overrides the configured ones that it contradicts:
    `num_frames` the configured `fps` and `max_frames`, `fps` the configured `num_frames`.

    Arrays and lists of frames are sampled in the same way, at the frame rate in `video_metadata`; without it their rate
    is unknown, and every frame is taken unless `num_frames` or `max_frames` says otherwise. `do_sample_frames=False`
    takes every frame of any source. The layout of an array follows from its shape, so `input_data_format` is not used.

    Raises `VideoReadingError` for a video that cannot be read, ValueError for options that make no sense, TypeError for
    options that do not exist.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 384, "width": 384}
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = None
    fps = 1
    max_frames = 64
    force_sample = False
    sample_by = "index"
    resize = "exact"  # hides the parent's method of this name, which only its own `_preprocess` calls
    allow_urls = False
    allow_private_urls = False
    limits = None
    valid_kwargs = VidLaDAVideoProcessorKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values_videos", "num_frames_per_video"]

    def __init__(self, **kwargs: Unpack[VidLaDAVideoProcessorKwargs]) -> None:
        _refuse_misspelled(kwargs)
        options = _override({**kwargs}, {"fps": self.fps, "num_frames": self.num_frames})
        check_sampling(options.get("num_frames"), options.get("fps"), options.get("max_frames"))
        _check_choices(options)
        super().__init__(**options)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in the parent class; a sampling option in `kwargs` overrides what it contradicts in the dictionary."""
        _refuse_misspelled(kwargs)
        video_processor_dict = {name: value for name, value in video_processor_dict.items() if name not in _CONSENT}
        configured = {"fps": cls.fps, "num_frames": cls.num_frames, **video_processor_dict}
        asked = {name: kwargs[name] for name in ("fps", "num_frames") if name in kwargs}
        return super().from_dict({**video_processor_dict, **_override(asked, configured)}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As in the parent class, without what a caller allows (addresses and limits), and with the class that is in
        the code beside the saved file."""
        fields = {name: value for name, value in super().to_dict().items() if name not in _CONSENT}
        return fields | {"auto_map": VIDEO_PROCESSOR_CODE | fields.get("auto_map", {})}

    def to_json_file(self, json_file_path: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in the parent class. Under the name that `save_pretrained` gives it, it brings the code that it names."""
        copy_processor_code(json_file_path)
        super().to_json_file(json_file_path, *args, **kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[VidLaDAVideoProcessorKwargs]) -> BatchFeature:
        """See the class. `return_tensors`: "pt" (as None) or "np"."""
        options = dict(kwargs)
        known = self.valid_kwargs.__annotations__
        for name in options:
            if name not in known:
                raise TypeError(unknown_option(name, "the video processor", known))
        check_sampling(options.get("num_frames"), options.get("fps"), options.get("max_frames"))
        _check_choices(options)
        for name in ("num_frames", "fps"):
            if options.get(name) is not None and options.get("do_sample_frames") is False:
                raise ValueError(f"`do_sample_frames=False` takes every frame, so `{name}` has no effect: pass one.")
        options = _override(options, {"fps": self.fps, "num_frames": self.num_frames})
        if options.get("num_frames", self.num_frames) is not None:
            options.setdefault("max_frames", None)  # the configured limit is one on `fps`
        settings = {name: options.get(name, getattr(self, name, None)) for name in known}
        # The parent would have every frame at its own size before it resizes any.
        return super().preprocess(self._read_all(videos, settings), **options)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        force_sample: bool | None = None,
        sample_by: str | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """`sample_frame_indices`, or `sample_frames_by_time` where a video with this metadata has a clock.

        The options are taken as they are, None included.
        """
        options: Any = {
            "num_frames": num_frames,
            "fps": fps,
            "max_frames": max_frames,
            "force_sample": bool(force_sample),
        }
        if sample_by == "time" and metadata.fps is not None:
            times = getattr(metadata, "frame_times", None)
            if times is None:
                times = np.arange(metadata.total_num_frames) / metadata.fps
            return sample_frames_by_time(times, **options)
        return sample_frame_indices(metadata.total_num_frames, metadata.fps, **options)

    def fetch_videos(
        self, video_url_or_urls: Any, sample_indices_fn: Callable[..., Sequence[int]] | None = None
    ) -> tuple[Any, Any]:
        """Reads one video, or a list of them, by `read_video`: (frames, metadata), or a list of either.

        `sample_indices_fn(metadata=...)` chooses the frames; None takes all.
        """
        sources = list_videos(video_url_or_urls)
        settings = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        settings["do_resize"] = False
        pairs = [self._read(source, None, settings, sample_indices_fn) for source in sources]
        if not isinstance(video_url_or_urls, (list, tuple)) and len(pairs) == 1:
            return pairs[0]
        return [frames for frames, _ in pairs], [metadata for _, metadata in pairs]

    def _decode_and_sample_videos(self, videos: Any, **kwargs: Any) -> Any:
        """Nothing: `preprocess` hands over what it read."""
        return videos

    def _read_all(self, videos: Any, settings: Mapping[str, Any]) -> tuple[list[np.ndarray], list[VideoMetadata]]:
        """Reads every video: uint8 RGB (frames, height, width, 3) each, resized by Pillow if at all; and metadata."""
        sources = list_videos(videos)
        if not sources:
            raise ValueError("No video was given: pass at least one.")
        if isinstance(videos, list) and any(isinstance(video, list) and not video for video in videos):
            raise ValueError("One of the videos is an empty list: pass its frames, or leave it out.")
        known = list_metadata(settings["video_metadata"], len(sources))
        choose = None
        if settings["do_sample_frames"]:
            options = {
                name: settings[name] for name in ("num_frames", "fps", "max_frames", "force_sample", "sample_by")
            }

            def choose(metadata: VideoMetadata) -> np.ndarray:
                return self.sample_frames(metadata, **options)

        # By its attribute: in remote code the caller's class may be another copy of this one.
        sources = [source.source if getattr(source, "is_one_video", False) else source for source in sources]
        pairs = [self._read(source, given, settings, choose) for source, given in zip(sources, known, strict=True)]
        return [frames for frames, _ in pairs], [metadata for _, metadata in pairs]

    def _read(
        self,
        source: Any,
        given: VideoMetadata | None,
        settings: Mapping[str, Any],
        choose_frames: Callable[..., Sequence[int] | np.ndarray] | None,
    ) -> tuple[np.ndarray, VideoMetadata]:
        """One video. `given` adds the frame rate to frames that have no clock of their own.

        Frames that were sampled before, as `given.frames_indices` says, keep those indices and are not sampled again.
        """

        excerpt = False

        def choose(metadata: VideoMetadata) -> Sequence[int]:
            nonlocal excerpt
            if given is not None and metadata.fps is None:
                excerpt = _is_excerpt(given, metadata.total_num_frames)
                metadata.fps = given.fps
                metadata.duration = metadata.total_num_frames / given.fps if given.fps else given.duration
            if choose_frames is None:
                return range(metadata.total_num_frames)
            if excerpt:
                raise ValueError(
                    f"By its `video_metadata` the video {describe_source(source)} was sampled before, from"
                    f" {given and given.total_num_frames} frames: pass `do_sample_frames=False` to keep its frames."
                )
            return list(choose_frames(metadata=metadata))

        size = self._size_of_frames(settings)
        frames, metadata = read_video(
            source,
            choose,
            allow_urls=bool(settings["allow_urls"]),
            allow_private_urls=bool(settings["allow_private_urls"]),
            limits=resolve_limits(settings["limits"]),
            transform=None if size is None else _Resize(size, settings["resample"]),
            size=size if settings["resize"] == "fast" else None,
        )
        if given is not None and excerpt:
            metadata = replace(given, height=metadata.height, width=metadata.width)
        return frames, metadata

    def _size_of_frames(self, settings: Mapping[str, Any]) -> tuple[int, int] | None:
        """Width and height to which Pillow resizes frames as they come; None where torch does it afterwards."""
        device = settings["device"]
        if not settings["do_resize"] or (device is not None and torch.device(device).type != "cpu"):
            return None
        size = self._standardize_kwargs(size=settings["size"], default_to_square=settings["default_to_square"])["size"]
        return (size.width, size.height) if size is not None and size.height and size.width else None

    def _prepare_input_videos(self, videos: list[np.ndarray], device: Any = None, **kwargs: Any) -> list[torch.Tensor]:
        """Frames (frames, height, width, 3) as tensors (frames, 3, height, width) on `device`."""
        tensors = [torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2) for video in videos]
        return tensors if device is None else [tensor.to(device) for tensor in tensors]

    def _preprocess(
        self,
        videos: list[torch.Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        processed = []
        for frames in videos:
            if do_resize and tuple(frames.shape[-2:]) != (size.height, size.width):  # else done while reading
                frames = super().resize(frames, size=size, resample=resample)
            if do_center_crop:
                frames = self.center_crop(frames, crop_size)
            processed.append(
                self.rescale_and_normalize(frames, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            )
        sizes = {tuple(frames.shape[-2:]) for frames in processed}
        if len(sizes) > 1:
            raise ValueError(
                f"The videos differ in size (height, width): {sorted(sizes)}. Keep `do_resize=True`, resize them to one"
                " `size` with both height and width, or pass one video at a time."
            )
        data = {
            "pixel_values_videos": torch.cat(processed) if len(processed) > 1 else processed[0],
            "num_frames_per_video": torch.tensor([len(frames) for frames in processed]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)


class _Resize:
    """Pillow's resize, which the official code uses: uint8 RGB (h, w, 3) -> uint8 RGB (height, width, 3).

    Torch's bicubic kernel rounds otherwise and differs by one or two levels in some 0.5 % of the values.

    Args:
        size: width and height.
        resample: Pillow's number of the filter.
    """

    def __init__(self, size: tuple[int, int], resample: Any) -> None:
        self.size, self.resample = size, resample

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if image.shape[1::-1] == self.size:
            return image
        return np.asarray(Image.fromarray(image).resize(self.size, self.resample))


def is_one_video(videos: Any) -> bool:
    """Whether `videos` is a single source, be it a list of frames, and not a list of videos."""
    if not isinstance(videos, (list, tuple)):
        return getattr(videos, "ndim", 4) != 5
    sources = list_videos(videos)
    frames = sources[0] if len(sources) == 1 and isinstance(sources[0], list) else []
    return len(frames) > 0 and len(frames) == len(videos) and frames[0] is videos[0]


def _refuse_misspelled(options: Mapping[str, Any]) -> None:
    """Raises a TypeError for a name close to a sampling option's. Others may be transformers' own, and pass."""
    known = VidLaDAVideoProcessorKwargs.__annotations__
    for name in options:
        if name not in known and nearest_name(name, _SAMPLING_OPTIONS, cutoff=0.8):
            raise TypeError(unknown_option(name, "the video processor", _SAMPLING_OPTIONS))


def _check_choices(options: Mapping[str, Any]) -> None:
    """Raises a ValueError for a value of `sample_by` or `resize` that does not exist."""
    for name, choices in (("sample_by", ("index", "time")), ("resize", ("exact", "fast"))):
        if options.get(name) is not None:
            check_choice(name, options[name], choices)


def resolve_limits(given: Any) -> ReadingLimits:
    """`limits` as given in a call, or None for the defaults."""
    if isinstance(given, ReadingLimits):
        return given
    try:
        return ReadingLimits(**(given or {}))
    except TypeError as error:
        known = tuple(ReadingLimits.__dataclass_fields__)
        name = next((name for name in given if name not in known), str(given)) if isinstance(given, Mapping) else given
        raise TypeError(unknown_option(str(name), "`limits`", known)) from error


def _override(given: Mapping[Any, Any], configured: dict[str, Any]) -> dict[str, Any]:
    """`given`, with None for the one of `fps` and `num_frames` that is only configured and contradicts it."""
    for name, other in (("num_frames", "fps"), ("fps", "num_frames")):
        if given.get(name) is not None and other not in given and configured.get(other) is not None:
            return {**given, other: None}
    return dict(given)


def _is_frame(item: Any) -> bool:
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return item.ndim <= 3
    if isinstance(item, (str, os.PathLike)):
        name = os.fsdecode(item)
        return os.path.splitext(name.split("?")[0])[1].lower() in IMAGE_SUFFIXES and not is_animated_picture(name)
    return hasattr(item, "convert")  # a PIL image, without importing PIL


def list_metadata(given: Any, count: int) -> list[VideoMetadata | None]:
    """`video_metadata` in any of its forms (None, one, nested lists; objects or dicts) as a list of `count`."""

    def flatten(item: Any) -> list[VideoMetadata | None]:
        if isinstance(item, (list, tuple)):
            return [metadata for inner in item for metadata in flatten(inner)]
        return [item if item is None or isinstance(item, VideoMetadata) else ClipMetadata(**item)]

    metadata: list[VideoMetadata | None] = [None] * count if given is None else flatten(given)
    if len(metadata) != count:
        raise ValueError(
            f"`video_metadata` describes {len(metadata)} videos, but {count} were given: pass one for each."
        )
    return metadata


def _is_excerpt(given: VideoMetadata, count: int) -> bool:
    """Whether `count` frames are said to be an excerpt of a longer video."""
    indices = given.frames_indices
    return given.total_num_frames != count or (indices is not None and list(indices) != list(range(count)))


__all__ = [
    "OneVideo",
    "VidLaDAVideoProcessor",
    "VidLaDAVideoProcessorKwargs",
    "check_sampling",
    "frame_stride",
    "frame_timestamps",
    "is_one_video",
    "list_metadata",
    "list_videos",
    "resolve_limits",
    "sample_frame_indices",
    "sample_frames_by_time",
]
