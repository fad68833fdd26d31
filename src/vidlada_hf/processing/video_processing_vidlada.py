"""Videos to the pixel values of the vision tower: choose frames, resize them to 384x384, scale them to -1..1.

Frames are chosen by the official rule, see `sample_frame_indices`. The frames of all videos of a batch come out
in one flat tensor with the count of each video, so that videos of different lengths need no padding.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .options_vidlada import nearest_name, unknown_option
from .video_frames_vidlada import IMAGE_SUFFIXES
from .video_reading_vidlada import describe_source, read_video

_SAMPLING_OPTIONS = ("num_frames", "fps", "max_frames", "force_sample", "do_sample_frames")


class VidLaDAVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `VidLaDAVideoProcessor` on top of those of every video processor.

    max_frames: the most frames that are sampled from one video.
    force_sample: always spread `max_frames` (or `num_frames`) frames evenly over the video; a short one repeats some.
    """

    max_frames: int | None
    force_sample: bool | None


def sample_frame_indices(
    total_frames: int,
    average_fps: float | None = None,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    force_sample: bool = False,
) -> np.ndarray:
    """Which frames of a video the model looks at: the official sampling rule.

    Args:
        total_frames: frames of the video.
        average_fps: its frames a second; None if unknown.
        num_frames: sample that many frames evenly, or all if there are fewer. Excludes `fps`.
        fps: sample that many frames a second, that is every `frame_stride(average_fps, fps)`-th. None, or an unknown
            `average_fps`: take every frame.
        max_frames: sample that many evenly when the above gives more. None: no limit.
        force_sample: sample exactly `num_frames` (or else `max_frames`) evenly, even if some must repeat.

    Returns:
        int64 indices in 0..total_frames-1, ascending. "Evenly" is `linspace(0, total_frames - 1, n)` cut to
        integers, so both ends are included.

    Raises:
        ValueError: for a number that is not positive, `fps` together with `num_frames`, or nothing to force.
    """
    check_sampling(num_frames=num_frames, fps=fps, max_frames=max_frames)
    if total_frames <= 0:
        raise ValueError(f"Cannot sample a video of {total_frames} frames: pass one that has at least one frame.")
    if force_sample:
        count = min(n for n in (num_frames, max_frames, np.inf) if n is not None)
        if count == np.inf:
            raise ValueError(
                "`force_sample=True` needs to know how many frames: pass `max_frames` or `num_frames` too."
            )
        return _evenly_spaced(total_frames, int(count))
    if num_frames is not None:
        return _evenly_spaced(total_frames, min(num_frames, max_frames or num_frames, total_frames))
    indices = np.arange(0, total_frames, frame_stride(average_fps, fps), dtype=np.int64)
    if max_frames is not None and len(indices) > max_frames:
        return _evenly_spaced(total_frames, max_frames)
    return indices


def _evenly_spaced(total_frames: int, count: int) -> np.ndarray:
    return np.linspace(0, total_frames - 1, count, dtype=np.int64)


def frame_stride(average_fps: float | None, fps: float | None) -> int:
    """Every how many frames one is sampled: round(average_fps / fps), at least 1; 1 if either is unknown.

    `round` sends halves to the even number, as the official code does, which however crashes below 1.
    """
    if not average_fps or not fps or not np.isfinite(average_fps):
        return 1
    return max(1, round(average_fps / fps))


def frame_timestamps(
    indices: Sequence[int] | np.ndarray, average_fps: float | None, *, stride: int | None = None
) -> list[float]:
    """When frames are shown, in seconds from the first one.

    Args:
        indices: frame indices.
        average_fps: frames a second of the video; not needed with `stride`.
        stride: None gives seconds, `index / average_fps`. A stride gives what the official code writes for frames that
            it sampled at that stride: `index / stride`, which is seconds at 1 fps only.

    Raises:
        ValueError: when seconds are asked for and `average_fps` is unknown.
    """
    rate = average_fps if stride is None else stride
    if not rate:
        raise ValueError(
            "The video has no known frame rate, so its frames have no time stamps: pass `video_metadata` with `fps`."
        )
    return [float(index) / rate for index in indices]


def check_sampling(num_frames: Any = None, fps: Any = None, max_frames: Any = None) -> None:
    """Raises a ValueError that names the values if the sampling options contradict each other or make no sense."""
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"`num_frames={num_frames}` and `fps={fps}` are two ways to choose frames: pass one of them,"
            " and `max_frames` to limit what `fps` gives."
        )
    for name, value, kind in (("num_frames", num_frames, int), ("max_frames", max_frames, int), ("fps", fps, float)):
        if value is None:
            continue
        number = isinstance(value, (int, np.integer) if kind is int else (int, float, np.integer, np.floating))
        if not number or isinstance(value, bool) or not value > 0 or not np.isfinite(value):
            wanted = "a whole number of at least 1" if kind is int else "a positive number of frames a second"
            raise ValueError(f"`{name}={value!r}` is impossible: pass {wanted}.")


def list_videos(videos: Any) -> list[Any]:
    """Flattens videos given in any nesting into a list with one source a video, without reading any.

    Args:
        videos: one source of `read_video`; an array of 5 dimensions; or nested lists of sources.

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
    """Turns videos into `pixel_values_videos` and `video_num_frames`.

    A call takes one video or nested lists of videos (see `list_videos` and `read_video`) and gives a `BatchFeature`:

    - `pixel_values_videos`: float32 (frames of all videos, 3, 384, 384), values -1..1, one video after the other;
    - `video_num_frames`: int64 (videos,), the frames of each;
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
    valid_kwargs = VidLaDAVideosKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values_videos", "video_num_frames"]

    def __init__(self, **kwargs: Unpack[VidLaDAVideosKwargs]) -> None:
        _refuse_misspelled(kwargs)
        options = _override({**kwargs}, {"fps": self.fps, "num_frames": self.num_frames})
        check_sampling(options.get("num_frames"), options.get("fps"), options.get("max_frames"))
        super().__init__(**options)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in the parent class; a sampling option in `kwargs` overrides what it contradicts in the dictionary."""
        _refuse_misspelled(kwargs)
        configured = {"fps": cls.fps, "num_frames": cls.num_frames, **video_processor_dict}
        asked = {name: kwargs[name] for name in ("fps", "num_frames") if name in kwargs}
        return super().from_dict({**video_processor_dict, **_override(asked, configured)}, **kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[VidLaDAVideosKwargs]) -> BatchFeature:
        """See the class. `return_tensors`: "pt" (as None) or "np"."""
        options = dict(kwargs)
        known = self.valid_kwargs.__annotations__
        for name in options:
            if name not in known:
                raise TypeError(unknown_option(name, "the video processor", known))
        check_sampling(options.get("num_frames"), options.get("fps"), options.get("max_frames"))
        for name in ("num_frames", "fps"):
            if options.get(name) is not None and options.get("do_sample_frames") is False:
                raise ValueError(f"`do_sample_frames=False` takes every frame, so `{name}` has no effect: pass one.")
        options = _override(options, {"fps": self.fps, "num_frames": self.num_frames})
        if options.get("num_frames", self.num_frames) is not None:
            options.setdefault("max_frames", None)  # the configured limit is one on `fps`
        return super().preprocess(videos, **options)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        force_sample: bool | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """`sample_frame_indices` for a video with this metadata; the options are taken as they are, None included."""
        return sample_frame_indices(
            metadata.total_num_frames,
            metadata.fps,
            num_frames=num_frames,
            fps=fps,
            max_frames=max_frames,
            force_sample=bool(force_sample),
        )

    def fetch_videos(
        self, video_url_or_urls: Any, sample_indices_fn: Callable[..., Sequence[int]] | None = None
    ) -> tuple[Any, Any]:
        """Reads one video, or a list of them, by `read_video`: (frames, metadata), or a list of either.

        `sample_indices_fn(metadata=...)` chooses the frames; None takes all.
        """
        sources = list_videos(video_url_or_urls)
        pairs = [self._read(source, None, sample_indices_fn) for source in sources]
        if not isinstance(video_url_or_urls, (list, tuple)) and len(pairs) == 1:
            return pairs[0]
        return [frames for frames, _ in pairs], [metadata for _, metadata in pairs]

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Callable[..., Sequence[int]] | None = None,
    ) -> tuple[list[np.ndarray], list[VideoMetadata]]:
        """Reads every video: uint8 RGB (frames, height, width, 3) each, with its metadata."""
        sources = list_videos(videos)
        if not sources:
            raise ValueError("No video was given: pass at least one.")
        known = _list_metadata(video_metadata, len(sources))
        choose = sample_indices_fn if do_sample_frames else None
        pairs = [self._read(source, given, choose) for source, given in zip(sources, known, strict=True)]
        return [frames for frames, _ in pairs], [metadata for _, metadata in pairs]

    def _read(
        self, source: Any, given: VideoMetadata | None, sample_indices_fn: Callable[..., Sequence[int]] | None
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
            if sample_indices_fn is None:
                return range(metadata.total_num_frames)
            if excerpt:
                raise ValueError(
                    f"By its `video_metadata` the video {describe_source(source)} was sampled before, from"
                    f" {given and given.total_num_frames} frames: pass `do_sample_frames=False` to keep its frames."
                )
            return sample_indices_fn(metadata=metadata)

        frames, metadata = read_video(source, choose)
        if given is not None and excerpt:
            metadata = replace(given, height=metadata.height, width=metadata.width)
        return frames, metadata

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
            if do_resize:
                frames = self.resize(frames, size=size, resample=resample)
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
            "pixel_values_videos": torch.cat(processed),
            "video_num_frames": torch.tensor([len(frames) for frames in processed]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def resize(self, image: torch.Tensor, size: SizeDict, resample: Any = None, **kwargs: Any) -> torch.Tensor:
        """Resizes frames uint8 (frames, 3, height, width).

        On a CPU this is Pillow's resize, which the official code uses: torch's bicubic kernel rounds otherwise and
        differs by one or two levels in some 0.5 % of the values. Elsewhere it is torch's.
        """
        exact = image.device.type == "cpu" and image.dtype == torch.uint8 and image.ndim == 4
        if not (exact and size.height and size.width):
            return super().resize(image, size=size, resample=resample, **kwargs)
        resized = torch.empty((*image.shape[:2], size.height, size.width), dtype=torch.uint8)
        for target, frame in zip(resized, image, strict=True):
            picture = tvF.to_pil_image(frame).resize((size.width, size.height), resample)
            target.copy_(tvF.pil_to_tensor(picture))
        return resized


def is_one_video(videos: Any) -> bool:
    """Whether `videos` is a single source, be it a list of frames, and not a list of videos."""
    if not isinstance(videos, (list, tuple)):
        return getattr(videos, "ndim", 4) != 5
    sources = list_videos(videos)
    frames = sources[0] if len(sources) == 1 and isinstance(sources[0], list) else []
    return len(frames) > 0 and len(frames) == len(videos) and frames[0] is videos[0]


def _refuse_misspelled(options: Mapping[str, Any]) -> None:
    """Raises a TypeError for a name close to a sampling option's. Others may be transformers' own, and pass."""
    for name in options:
        if name not in VidLaDAVideosKwargs.__annotations__ and nearest_name(name, _SAMPLING_OPTIONS, cutoff=0.8):
            raise TypeError(unknown_option(name, "the video processor", _SAMPLING_OPTIONS))


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
        return os.path.splitext(str(item).split("?")[0])[1].lower() in IMAGE_SUFFIXES
    return hasattr(item, "convert")  # a PIL image, without importing PIL


def _list_metadata(given: Any, count: int) -> list[VideoMetadata | None]:
    """`video_metadata` in any of its forms (None, one, nested lists; objects or dicts) as a list of `count`."""

    def flatten(item: Any) -> list[VideoMetadata | None]:
        if isinstance(item, (list, tuple)):
            return [metadata for inner in item for metadata in flatten(inner)]
        return [item if item is None or isinstance(item, VideoMetadata) else VideoMetadata(**item)]

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
