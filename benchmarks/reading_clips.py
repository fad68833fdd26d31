"""Clips for measuring how videos are read, and the way in which they were read before frames came one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torchvision.transforms.v2 import functional as tvF

from vidlada_hf import VidLaDAVideoProcessor


def wandering_square(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """`count` pictures uint8 RGB (height, width, 3): a square that wanders over noise."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    for i in range(count):
        picture = noise.copy()
        x, y = 3 * i % (width - 40), 2 * i % (height - 40)
        picture[y : y + 40, x : x + 40] = (220, i % 256, 40)
        yield picture


def panning_camera(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """The same of a picture that moves to the side, with a grain that changes, as a camera's does."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 200, (height // 8 + 1, 2 * width // 8 + 1, 3), dtype=np.uint8)
    scene = blocks.repeat(8, 0).repeat(8, 1)[:height]
    grain = rng.integers(0, 20, (2 * height, width, 1), dtype=np.uint8)
    for i in range(count):
        shift, rows = 3 * i % width, 37 * i % height
        yield scene[:, shift : shift + width] + grain[rows : rows + height]


def encode(path: Path, pictures: Iterator[np.ndarray], fps: int, codec: str = "libx264", **options: str) -> Path:
    """A clip with the encoder's own key frames (H.264: every 250) and B-frames, but for `options`."""
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.thread_type = "AUTO"
        for i, picture in enumerate(pictures):
            if i == 0:
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], pixels
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame if pixels == "yuv420p" else frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def repeat(source: Path, path: Path, times: int) -> Path:
    """The packets of a clip, `times` times one after the other."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(clip.streams.video[0])
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        length = round(len(packets) / clip.streams.video[0].average_rate / packets[0].time_base)
        for i in range(times):
            for old in packets:
                packet = av.Packet(bytes(old))
                packet.pts, packet.dts, packet.duration = old.pts + i * length, old.dts + i * length, old.duration
                packet.time_base, packet.is_keyframe, packet.stream = old.time_base, old.is_keyframe, stream
                container.mux(packet)
    return path


def pixels_as_before(path: Path, indices: Sequence[int], processor: VidLaDAVideoProcessor) -> torch.Tensor:
    """What the model takes, read as before: every frame decoded and held at its own size, then each one resized.

    float32 (frames, 3, height, width).
    """
    converter, kept = VideoReformatter(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
        times = sorted(pts for pts, _ in packets)
        keys = np.array(sorted(pts for pts, is_key in packets if is_key))
        running, position = iter(()), None
        for index in indices:
            key = keys[np.searchsorted(keys, times[index], side="right") - 1]
            if position is None or np.searchsorted(times, key) - position > 16:
                container.seek(int(key), stream=stream)
                running = container.decode(stream)
            for frame in running:
                if frame.pts == times[index]:
                    kept.append(converter.reformat(frame, format="rgb24").to_ndarray())
                    break
            position = index
    frames = torch.from_numpy(np.ascontiguousarray(np.stack(kept))).permute(0, 3, 1, 2)
    width, height = processor.size["width"], processor.size["height"]
    resized = torch.empty((len(frames), 3, height, width), dtype=torch.uint8)
    for target, frame in zip(resized, frames, strict=True):
        target.copy_(tvF.pil_to_tensor(tvF.to_pil_image(frame).resize((width, height), processor.resample)))
    return processor.rescale_and_normalize(resized, True, 1 / 255, True, processor.image_mean, processor.image_std)


__all__ = ["encode", "panning_camera", "pixels_as_before", "repeat", "wandering_square"]
