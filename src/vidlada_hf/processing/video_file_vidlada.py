"""A video file of which only the sampled frames are decoded.

A model samples some 64 frames of a clip of tens of thousands. So a file is read in two passes:

1. its packets are demuxed **without decoding**, which gives the exact table of time stamps and key frames whatever the
   container declares (Matroska declares no frame count, variable frame rates have no formula);
2. for every sampled frame the decoder starts at the last key frame shown before it and stops at the frame.

"Frame `i`" always means the `i`-th frame that a full decode shows, and its pixels are those of a full decode. Only the
sampled frames are kept in memory.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .video_clip_vidlada import REENCODE, ClipMetadata, VideoReadingError

# Containers whose header states the duration, so that a file which ends before it was cut short.
_FORMATS_WITH_DURATION = frozenset({"matroska,webm", "flv"})
# A seek empties the decoder, whose threads work up to this many frames ahead: a nearer frame is reached by going on.
_SEEK_COST = 16


class _Packet(NamedTuple):
    """What the first pass keeps of a packet; times in ticks of the stream's time base."""

    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_shown: bool
    is_corrupt: bool


class VideoFile:
    """A video file opened with PyAV.

    Args:
        file: an address that FFmpeg opens, or a seekable binary file object.

    Attributes:
        metadata: `fps` is the stream's average frame rate, `total_num_frames` what the file should hold: the frames
            counted, and those that a file cut short only declares. `duration` = total_num_frames / fps.
        frames_decoded: how many frames were handed to the decoder so far, the look-ahead of its threads included.
    """

    def __init__(self, file: str | BinaryIO) -> None:
        self._file = file
        self.frames_decoded = 0
        self._matrix: tuple[Any] | None = None  # (display matrix or None,) once it was read
        # Not the frames' own (`frame.to_ndarray("rgb24")`): PyAV's frames outlive their last use where side data were
        # asked for, and in a forked worker that frees them their converter waits for threads that are not there.
        self._reformatter = VideoReformatter()
        self._running: Iterator[av.VideoFrame] = iter(())  # the decoder at work
        self._position: int | None = None  # the time stamp, or else the number, of the frame that it showed last
        self._open()
        try:
            self.metadata = self._index()
        except BaseException:
            self.close()
            raise

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`."""
        for count, index in enumerate(indices):
            frame, cause = self._try_frame(index)
            if frame is None or frame.is_corrupt:
                raise VideoReadingError(
                    f"frame {index} of {self.metadata.total_num_frames} cannot be decoded, so only {count} of the"
                    f" {len(indices)} sampled frames could be read: the file is cut short or damaged. Fetch it again, or"
                    " keep the part that plays (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"
                ) from cause
            if self._matrix is None:
                # Once a file: a frame that was asked for its side data stays in memory until garbage is collected.
                self._matrix = (_display_matrix(frame),)
            image = _upright(self._reformatter.reformat(frame, format="rgb24").to_ndarray(), self._matrix[0])
            yield index, partial(np.asarray, image)

    def close(self) -> None:
        """Closes the file if it was opened by its name. Ends the reading, which holds on to this object otherwise."""
        self._running = iter(())
        self._container.close()

    def _open(self) -> None:
        """(Re)opens the container at its first packet and finds the video stream, cover pictures left aside."""
        if not isinstance(self._file, str):
            self._file.seek(0)
        self._container = av.open(self._file, mode="r")
        picture = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & picture]
        if not streams:
            self._container.close()
            raise VideoReadingError("it holds no video stream, only sound or a cover picture. Pass a file with video")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"

    # First pass: which frames are there

    def _index(self) -> ClipMetadata:
        """Fills `_pts`, the times at which frames are shown (None if the file does not tell), and `_key_pts`."""
        packets, end = self._demux()
        shown = [packet.pts for packet in packets if packet.is_shown]
        lost_packets, lost_seconds = max(0, self._stream.frames - len(packets)), self._lost_seconds(end)
        self._pts: list[int] | None = None
        if not self._is_reliable(packets):
            rate = self._declared_rate()
            return self._metadata(sum(1 for _ in self._decode_all()) + lost_packets, rate)

        self._corrupt_pts = {packet.pts for packet in packets if packet.is_corrupt}
        self._key_pts = sorted(packet.pts for packet in packets if packet.is_key and packet.pts is not None)
        self._pts = sorted(pts for pts in shown if pts is not None)
        if packets and packets[-1].dts is not None and (lost_packets or lost_seconds):
            # Cut short. Frames shown later than the last packet's time of decoding may lack one shown before them.
            self._pts = [pts for pts in self._pts if pts <= packets[-1].dts]
        rate = self._average_rate(packets[-1].duration if packets else 0)
        if lost_packets:
            return self._metadata(len(shown) + lost_packets, rate)
        if lost_seconds and rate and self._pts:
            return self._metadata(round((end + lost_seconds - self._seconds(self._pts[0])) * rate), rate)
        return self._metadata(len(self._pts), rate)

    def _demux(self) -> tuple[list[_Packet], float]:
        """The video's packets in the order of decoding, and when (in seconds) the last packet of any stream ends."""
        packets, end = [], 0.0
        codec = self._stream.codec_context.name
        for packet in self._container.demux():
            duration = packet.duration or 0
            if packet.pts is not None:
                end = max(end, float((packet.pts + duration) * packet.time_base))
            if packet.stream_index != self._stream.index or (packet.size == 0 and packet.dts is None):
                continue  # another stream, or the empty packet that ends this one
            shown = _is_shown(packet, codec)
            packets.append(
                _Packet(packet.pts, packet.dts, duration, packet.is_keyframe, shown, shown and packet.is_corrupt)
            )
        return packets, end

    def _is_reliable(self, packets: list[_Packet]) -> bool:
        """Whether the packets tell which frames are shown and when, so that nothing need be decoded to know."""
        shown = [packet.pts for packet in packets if packet.is_shown]
        if None in shown or len(set(shown)) < len(shown):
            return False
        # AVI stores no time of display: with B-frames FFmpeg fills in the times of decoding.
        if "avi" in self._container.format.name and self._stream.codec_context.has_b_frames:
            return False
        # A recording that starts between key frames: it depends on the decoder what it shows of the first ones.
        first = packets[0] if packets else None
        if first is None or first.pts is None:
            return first is None
        return first.is_key and all(packet.pts is None or packet.pts >= first.pts for packet in packets)

    def _lost_seconds(self, end: float) -> float:
        """What a file that ends at `end` lacks of the duration in its header; 0 if it is complete or does not tell."""
        declared = self._container.duration
        if self._container.format.name not in _FORMATS_WITH_DURATION or declared is None:
            return 0.0
        lost = declared / av.time_base - end
        return lost if lost > 0.25 + 0.01 * end else 0.0

    def _average_rate(self, last_duration: int) -> float | None:
        """Average frames a second: the declared rate, unless the time stamps contradict it (a probe's guess)."""
        declared = self._declared_rate()
        if not self._pts:
            return declared
        span = self._seconds(self._pts[-1] - self._pts[0] + last_duration)
        if span <= 0 or (declared and abs(len(self._pts) / declared - span) <= 1 / declared + 0.02 * span):
            return declared
        return len(self._pts) / span

    def _declared_rate(self) -> float | None:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else None

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._stream.time_base) if self._stream.time_base else 0.0

    def _metadata(self, total: int, fps: float | None) -> ClipMetadata:
        if total == 0:
            raise VideoReadingError(f"it holds no frame. The recording may have failed: {REENCODE}")
        return ClipMetadata(
            total_num_frames=total,
            fps=fps,
            duration=total / fps if fps else None,
            width=self._stream.codec_context.width,
            height=self._stream.codec_context.height,
            video_backend="pyav",
        )

    # Second pass: decode the sampled ones

    def _try_frame(self, index: int) -> tuple[av.VideoFrame | None, Exception | None]:
        """Frame `index`, or None and why not. Ascending indices are cheapest."""
        try:
            if self._pts is None:
                return self._frame_by_counting(index), None
            if index < len(self._pts) and self._pts[index] not in self._corrupt_pts:
                return self._frame_by_seeking(self._pts[index]), None
            return None, None
        except av.FFmpegError as error:
            return None, error

    def _frame_by_counting(self, index: int) -> av.VideoFrame | None:
        """For streams whose packets do not tell what is shown (raw H.264, some AVI): decode everything and count."""
        if self._position is None or self._position >= index:
            self._running, self._position = self._decode_all(), -1
        for frame in self._running:
            self._position += 1
            if self._position == index:
                return frame
        return None

    def _frame_by_seeking(self, target: int) -> av.VideoFrame | None:
        """The frame shown at the time stamp `target`."""
        for frames in self._attempts(target):
            self._running = frames
            for frame in frames:
                self._position = frame.pts
                if frame.pts is not None and frame.pts >= target:
                    break
            if self._position == target:
                return frame
        return None

    def _attempts(self, target: int) -> Iterator[Iterator[av.VideoFrame]]:
        """Ways to decode up to the frame shown at `target`, cheapest first.

        The last key frame shown at or before the target nearly always does. Further and further ones, and at last the
        very start, are for containers that seek coarsely or by the time of decoding (MPEG-TS).
        """
        assert self._pts is not None
        key = bisect_right(self._key_pts, target) - 1
        if self._position is not None and self._position < target:
            nearest = self._key_pts[key] if key >= 0 else target
            if bisect_right(self._pts, nearest) - bisect_right(self._pts, self._position) <= _SEEK_COST:
                yield self._running
        step = 1
        while key >= 0:
            yield self._decode_from(self._key_pts[key], target)
            key, step = key - step, step * 2
        yield self._decode_all()

    def _decode_from(self, start: int, target: int) -> Iterator[av.VideoFrame]:
        """Decodes from the key frame at `start`; gives up before decoding if the seek landed behind `target`."""
        try:
            self._container.seek(start, stream=self._stream)
        except av.FFmpegError:
            return  # a container that cannot seek is read from its start
        landed = False
        for packet in self._container.demux(self._stream):
            if not landed:
                if packet.pts is None or not packet.is_keyframe:
                    continue
                if packet.pts > target:
                    return
                landed = True
            self.frames_decoded += packet.size > 0
            yield from packet.decode()

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        """Decodes from the first packet of the reopened file."""
        self._container.close()
        self._open()
        for packet in self._container.demux(self._stream):
            self.frames_decoded += packet.size > 0
            yield from packet.decode()


def _is_shown(packet: av.Packet, codec: str) -> bool:
    """False for the packets that only help to decode others: outside the edit list, or VP8's hidden references."""
    if packet.is_discard or packet.size == 0:
        return False
    # RFC 6386, 9.1: the fifth bit of a VP8 frame is show_frame. VP9 and AV1 pack theirs with a shown frame.
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The 2x2 part of a frame's display matrix, rounded to -1, 0, 1; None where there is none."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    # libavutil/display.h: nine int32, row by row (a, b, u, c, d, v, x, y, w), in 16.16 fixed point but for u, v, w.
    matrix = np.frombuffer(memoryview(data), np.int32).reshape(3, 3)[:2, :2] / (1 << 16)
    return np.rint(matrix).astype(int)


def _upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Applies a display matrix [[a, b], [c, d]], x' = a x + c y and y' = b x + d y, to an image (height, width, 3).

    Covers the quarter turns and the mirrored ones (front cameras). Any other matrix leaves the image as it is.
    """
    if matrix is None or abs(matrix).sum() != 2 or abs(matrix).sum(0).max() != 1:
        return image
    (a, b), (c, d) = matrix
    if a == 0:  # x' comes of y alone
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
