"""A video file of which only the sampled frames are decoded.

A model samples some 64 frames of a clip of tens of thousands. So a file is read in two passes:

1. its packets are demuxed **without decoding**, which gives the exact table of time stamps and key frames whatever the
   container declares (Matroska declares no frame count, variable frame rates have no formula);
2. for every sampled frame the decoder starts at the last key frame shown before it and stops at the frame.

"Frame `i`" always means the `i`-th frame that a full decode shows, and its pixels are those of a full decode. Only the
sampled frames are handed out, one after the other, as they come.
"""

import re
import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .containers_vidlada import open_container
from .limits_vidlada import DEFAULT_LIMITS, ReadingLimits
from .video_clip_vidlada import REENCODE, ClipMetadata, VideoReadingError
from .video_clock_vidlada import Clock, make_clock
from .video_packets_vidlada import UNKNOWN, FileHead, Packets, identity_of, read_packets

# libswscale/swscale.h: BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND, that is color at full resolution and
# rounding that does not drift, so that FFmpeg's resize is near Pillow's.
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000
# A seek empties the decoder, whose threads work up to this many frames ahead: a nearer frame is reached by going on.
_SEEK_COST = 16
# Decoders that can leave out frames which no other refers to. HEVC's mark is one of temporal layers only.
_SKIPPING_CODECS = frozenset({"h264", "mpeg2video", "mpeg1video"})
# Decoders of a billion pixels in a second or two. Others take up to that much longer.
_FAST_CODECS = frozenset({
    *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv", "vc1"),
    *("wmv1", "wmv2", "wmv3", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "theora", "rawvideo", "mjpeg"),
})  # fmt: skip
_SLOWNESS = 16
_SMALL_LOSS = 0.01  # share of a file that may be missing at its end
_LEAST_PIXELS = 1 << 15  # what a tiny frame costs anyway
_WITH_HEADER = (b"RIFF", b"\x1a\x45\xdf\xa3", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"BM", b"II*", b"MM\0*")
_LARGE = 1920 * 1088  # pixels of a frame of which a small file's decoder should not hold one a thread


class VideoFile:
    """A video file opened with PyAV.

    Args:
        file: a local path, or a seekable binary file object.
        limits: what it may cost.
        head: its first bytes, where they were read already.

    Attributes:
        metadata: `fps` is the stream's average frame rate, `total_num_frames` what the file should hold: the frames
            counted, and those that a file cut short only declares. `frame_times` and `duration` are the packets' own.
        frames_decoded: how many frames were handed to the decoder so far, the look-ahead of its threads included.
    """

    def __init__(
        self, file: str | BinaryIO, limits: ReadingLimits = DEFAULT_LIMITS, head: FileHead | None = None
    ) -> None:
        self._file, self._limits, self._head = file, limits, head or FileHead(file)
        self.frames_decoded = 0
        self._pixels_decoded = 0
        self._matrix: tuple[Any] | None = None  # (display matrix or None,) once it was read
        self._converters = threading.local()
        self._running: Iterator[av.VideoFrame] = iter(())  # the decoder at work
        self._position: int | None = None  # the time stamp, or else the number, of the frame that it showed last
        self._target: int | None = None  # the time stamp of the frame that it works towards
        self._leaves_out_last = False  # whether it stops before the file's last packet, which is damaged
        self._check_size_before_probing()
        self._open()
        try:
            self.metadata = self._index()
        except BaseException:
            self.close()
            raise

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`. With `size`, FFmpeg's scaler resizes a frame while it converts it to RGB."""
        for count, index in enumerate(indices):
            frame, cause = self._try_frame(index)
            if frame is None and index > 0 and self._is_of_last_packet(index):
                frame = self._frame_before_damaged_end(index)
            if frame is None:
                context = self._stream.codec_context
                if not context.width * context.height:
                    raise self._too_large() from cause
                raise VideoReadingError(
                    f"frame {index} of {self.metadata.total_num_frames} cannot be decoded, so only {count} of the"
                    f" {len(indices)} sampled frames could be read: the file is cut short or damaged. Fetch it again,"
                    " or keep the part that plays (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"
                ) from cause
            if self._matrix is None:
                # Once a file: a frame that was asked for its side data stays in memory until garbage is collected.
                self._matrix = (_display_matrix(frame),)
            yield index, partial(self._image, frame, self._matrix[0], size)
            del frame

    def close(self) -> None:
        """Closes the file if it was opened by its name. Ends the reading, which holds on to this object otherwise."""
        self._running = iter(())
        self._container.close()

    def _image(self, frame: av.VideoFrame, matrix: Any, size: tuple[int, int] | None) -> np.ndarray:
        """The frame upright, uint8 RGB (height, width, 3). Runs in several threads at once."""
        # Not the frames' own (`frame.to_ndarray("rgb24")`): PyAV's frames outlive their last use where side data were
        # asked for, and in a forked worker that frees them their converter waits for threads that are not there.
        converter = getattr(self._converters, "converter", None)
        if converter is None:
            converter = self._converters.converter = VideoReformatter()
        if size is None:
            return _upright(converter.reformat(frame, format="rgb24", threads=1).to_ndarray(), matrix)
        width, height = size if matrix is None or matrix[0][0] else size[::-1]
        scaled = converter.reformat(frame, width, height, "rgb24", interpolation=_SCALING, threads=1)
        return _upright(scaled.to_ndarray(), matrix)

    # Opening

    def _check_size_before_probing(self) -> None:
        """Refuses huge frames of a container without a header, of which FFmpeg's probing would decode some."""
        if self._has_header():
            return  # probing follows the option `max_pixels`
        with self._open_container({"codec_whitelist": "none"}) as container:
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    self._check_pixels(stream)

    def _has_header(self) -> bool:
        """Whether the streams are known before any of them is probed: MP4, AVI, Matroska, pictures."""
        return self._head.bytes[4:8] == b"ftyp" or self._head.bytes.startswith(_WITH_HEADER)

    def _opens_without_probing(self) -> bool:
        try:
            self._open_container({"codec_whitelist": "none"}).close()
        except VideoReadingError:
            return False
        return True

    def _open_container(self, options: dict[str, str], codec_options: dict[str, str] | None = None) -> Any:
        if not isinstance(self._file, str):
            self._file.seek(0)
        return open_container(self._file, options, codec_options)

    def _open(self) -> None:
        """(Re)opens the container at its first packet and finds the video stream."""
        most = self._limits.pixels_of(self._head.size)
        try:
            self._container = self._open_container({}, {"max_pixels": str(most)} if self._has_header() else None)
        except VideoReadingError as error:
            if self._has_header() and self._opens_without_probing():
                raise self._too_large() from error
            raise
        try:
            self._stream = _video_stream(self._container, self._head.bytes)
            self._check_pixels(self._stream)
        except BaseException:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.options = {"max_pixels": str(most)}
        self._stream.thread_type = "AUTO"
        if context.width * context.height > _LARGE and most < self._limits.max_pixels:
            context.thread_count = 1  # each thread of a decoder holds a frame

    def _check_pixels(self, stream: Any) -> None:
        width, height = stream.codec_context.width, stream.codec_context.height
        most = self._limits.pixels_of(self._head.size)
        if width * height > most:
            raise VideoReadingError(
                f"its frames of {width}x{height} have more than the {most} pixels that a file of"
                f" {self._head.size} bytes may have. Scale it down, or pass `ReadingLimits` with a higher `max_pixels`"
                " and `max_small_file_pixels`"
            )

    def _too_large(self) -> VideoReadingError:
        """The error for frames that FFmpeg's decoder refused for their size, without saying what it is."""
        return VideoReadingError(
            f"its frames have an unknown size, or more than the {self._limits.pixels_of(self._head.size)} pixels of the"
            " limit. Scale it down, or pass `ReadingLimits` with a higher `max_pixels`"
        )

    # First pass: which frames are there

    def _index(self) -> ClipMetadata:
        """Fills `_pts`, the times at which frames are shown (None if the file does not tell), and `_key_pts`."""
        packets = read_packets(self._container, self._stream)
        self._last_packet = packets.last
        count = len(packets.pts)
        self._pts: list[int] | None = None
        lost, lost_seconds = self._lost(packets)
        if packets.tell_what_is_shown(self._container, self._stream):
            pts = np.sort(packets.pts[packets.is_shown])
            if count and packets.dts[-1] != UNKNOWN and (lost or lost_seconds):
                # Cut short. Frames shown later than the last packet's time of decoding may lack one shown before them.
                pts = pts[pts <= packets.dts[-1]]
            self._pts = pts.tolist()
            self._corrupt_pts = set(packets.pts[packets.is_corrupt].tolist())
            self._key_pts = np.sort(packets.pts[packets.is_key & (packets.pts != UNKNOWN)]).tolist()
            shown = int(packets.is_shown.sum())
        else:
            pts = self._count_by_decoding()
            shown = len(pts)
        clock = self._clock(pts, packets, whole=not (lost or lost_seconds))
        total = len(pts)
        if lost:
            total = shown + lost
        elif lost_seconds and clock.fps and total:
            total = round((packets.end + lost_seconds - self._seconds(int(pts[0]))) * clock.fps)
        return self._metadata(total, len(pts), clock)

    def _lost(self, packets: Packets) -> tuple[int, float]:
        """The frames, or else the seconds, that a file which was cut short lacks of what its header declares.

        A little at the end is not missed: the last frame that is there is the last one then.
        """
        count, frames, seconds = len(packets.pts), 0, 0.0
        if "mov" in self._container.format.name:  # its index lists every packet, those outside the edit list left out
            frames = len(self._stream.index_entries) - count
        elif self._head.is_cut_short():
            declared = self._head.declared_seconds(self._container)
            if declared is None:
                frames = self._stream.frames - count
            else:
                seconds = declared - packets.end
        if frames > _SMALL_LOSS * count + 8 or seconds > _SMALL_LOSS * packets.end + 0.25:
            return max(0, frames), max(0.0, seconds)
        if frames > 0 or seconds > 0:
            warnings.warn(
                "The end of the video is missing: the file was cut short. The last whole frame counts as its last.",
                stacklevel=2,
            )
        return 0, 0.0

    def _count_by_decoding(self) -> np.ndarray:
        """The time stamps of all frames, in the order in which they are shown; `UNKNOWN` where one has none."""
        for last_attempt in (False, True):
            try:
                return np.array([UNKNOWN if f.pts is None else f.pts for f in self._decode_all()], np.int64)
            except av.FFmpegError:
                if last_attempt:
                    raise
                self._leaves_out_last = True  # half a frame at the end; any other damage stays one
        raise AssertionError

    def _clock(self, pts: np.ndarray, packets: Packets, whole: bool) -> Clock:
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate else None
        is_guess = self._pts is None and "avi" in self._container.format.name  # see `tell_what_is_shown`
        ticks = np.where((pts == UNKNOWN) | is_guess, np.nan, pts.astype(np.float64))
        end = self._head.declared_seconds(self._container) if whole else None
        if end is not None and end <= packets.end + 0.25 + 0.01 * packets.end:
            end = None
        if end is not None and end - packets.end > self._limits.max_seconds_per_byte * self._head.size:
            raise VideoReadingError(
                f"it declares a duration of {end:.0f} s, but its {self._head.size} bytes hold {packets.end:.0f} s. The"
                f" header is damaged: {REENCODE}, or pass `ReadingLimits` with a higher `max_seconds_per_byte`"
            )
        shown, durations = packets.pts[packets.is_shown], packets.duration[packets.is_shown]
        return make_clock(
            ticks * self._seconds(1),
            fps,
            tick=self._seconds(1),
            last=self._seconds(int(durations[np.argmax(shown)])) if self._pts else 0.0,
            end=end,
            can_jump="mpeg" in self._container.format.name,  # transport and program streams
        )

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._stream.time_base) if self._stream.time_base else 0.0

    def _metadata(self, total: int, present: int, clock: Clock) -> ClipMetadata:
        if total == 0:
            raise VideoReadingError(f"it holds no frame. The recording may have failed: {REENCODE}")
        if total > self._limits.max_declared_ratio * max(1, present):
            raise VideoReadingError(
                f"it is cut short: of {total} frames that it declares, only {present} are there. Fetch it again, or"
                " pass `ReadingLimits` with a higher `max_declared_ratio`"
            )
        duration = total / clock.fps if total > present and clock.fps else clock.duration
        return ClipMetadata(
            total_num_frames=total,
            fps=clock.fps,
            duration=duration,
            width=self._stream.codec_context.width,
            height=self._stream.codec_context.height,
            video_backend="pyav",
            frame_times=clock.times,
        )

    # Second pass: decode the sampled ones

    def _try_frame(self, index: int) -> tuple[av.VideoFrame | None, Exception | None]:
        """Frame `index`, or None and why not. Ascending indices are cheapest."""
        frame = None
        try:
            if self._pts is None:
                frame = self._frame_by_counting(index)
            elif index < len(self._pts) and self._pts[index] not in self._corrupt_pts:
                frame = self._frame_by_seeking(self._pts[index])
        except av.FFmpegError as error:
            return None, error
        return (None if frame is None or frame.is_corrupt else frame), None

    def _is_of_last_packet(self, index: int) -> bool:
        if self._pts is None:  # nobody knows which; it is shown before the end by the frames that refer to it
            return index >= self.metadata.total_num_frames - 4
        return index < len(self._pts) and (index == len(self._pts) - 1 or self._pts[index] == self._last_packet[0])

    def _frame_before_damaged_end(self, index: int) -> av.VideoFrame | None:
        """The frame before `index`, whose packet, the last of the file, cannot be decoded; with a warning."""
        self._leaves_out_last, self._running, self._position = True, iter(()), None
        frame, _ = self._try_frame(index - 1)
        if frame is not None:
            warnings.warn(
                f"The last frame of the video ({index} of {self.metadata.total_num_frames}) is only partly there: the"
                " frame before it is used in its place.",
                stacklevel=2,
            )
        return frame

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
        self._target = target
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
        self._target = None  # nothing is left out in the last attempt
        yield self._decode_all()

    def _decode_from(self, start: int, target: int) -> Iterator[av.VideoFrame]:
        """Decodes from the key frame at `start`; gives up before decoding if the seek landed behind `target`."""
        try:
            self._container.seek(start, stream=self._stream)
        except av.FFmpegError:
            return  # a container that cannot seek is read from its start
        packets = self._container.demux(self._stream)
        for packet in packets:
            if packet.pts is not None and packet.is_keyframe:
                if packet.pts <= target:
                    yield from self._decode(packet)
                    yield from self._decode_rest(packets)
                return

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        """Decodes from the first packet of the reopened file."""
        self._container.close()
        self._open()
        yield from self._decode_rest(self._container.demux(self._stream))

    def _decode_rest(self, packets: Iterator[Any]) -> Iterator[av.VideoFrame]:
        for packet in packets:
            yield from self._decode(packet)

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        """Hands a packet to the decoder, which leaves out a frame before the target that no other frame refers to."""
        if packet.size > 0:
            if self._leaves_out_last and self._last_packet == identity_of(packet):
                return []
            self._spend()
            context = self._stream.codec_context
            if context.name in _SKIPPING_CODECS:
                before = self._target is not None and packet.pts is not None and packet.pts < self._target
                if before != (context.skip_frame == "NONREF"):
                    context.skip_frame = "NONREF" if before else "DEFAULT"
        return packet.decode()

    def _spend(self) -> None:
        """Counts a frame that is decoded."""
        context = self._stream.codec_context
        weight = 1 if context.name in _FAST_CODECS else _SLOWNESS
        self.frames_decoded += 1
        self._pixels_decoded += weight * max(_LEAST_PIXELS, context.width * context.height)
        if self._pixels_decoded > self._limits.decoded_pixels_of(self._head.size):
            raise VideoReadingError(
                f"{self.frames_decoded} frames were decoded on the way to those wanted, more than a file of"
                f" {self._head.size} bytes may take. Cut out the part that matters, re-encode it with more key frames"
                " (`ffmpeg -i IN -g 50 OUT.mp4`), or pass `ReadingLimits` with a higher `max_decoded_pixels`"
            )


def _video_stream(container: Any, head: bytes) -> Any:
    """The stream that a player would show: FFmpeg's choice, cover pictures left aside."""
    picture = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & picture]
    if not streams:
        raise VideoReadingError("it holds no video stream, only sound or a cover picture. Pass a file with video")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoReadingError(
            f"this FFmpeg cannot decode its codec {_codec_of(stream, head)}. Re-encode it with a program that can"
        )
    return stream


def _codec_of(stream: Any, head: bytes) -> str:
    """What FFmpeg, or else Matroska, calls a stream's codec. PyAV has it in FFmpeg's description alone."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # without any the description is empty
    try:
        lines = stream.container.dumps_format().splitlines()
    finally:
        av.logging.set_level(level)
    described = next((line for line in lines if f"Stream #0:{stream.index}" in line and "Video: " in line), "")
    name = described.partition("Video: ")[2].partition(",")[0].removeprefix("none").strip(" ()")
    found = re.search(rb"V_[\w/]+", head)
    return repr(name or (found.group().decode() if found else "unknown"))


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The 2x2 part of a frame's display matrix, rounded to -1, 0, 1; None where there is none."""
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for other data of the frame (EXIF of a picture): it tells the turn alone
        turn = np.deg2rad(frame.rotation)
        return np.rint([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).astype(int)
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
