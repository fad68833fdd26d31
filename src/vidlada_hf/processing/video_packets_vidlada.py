"""The packets of a video file, read without decoding: which frames are shown, when, and whether the file is whole.

Headers are believed only about what no packet can tell: how much of a file that was cut short is missing, and how long
the last picture rests.
"""

import os
import struct
from array import array
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

UNKNOWN = -(1 << 63)  # a time that a packet does not tell
# Readers whose header states the duration, so that it can tell more than the last packet.
_WITH_DURATION = frozenset({"matroska,webm", "flv"})
_KEY, _SHOWN, _CORRUPT = 1, 2, 4
_HEAD = 1 << 16  # bytes in which headers state the size


@dataclass(frozen=True)
class Packets:
    """The packets of one stream in the order of decoding, a column each.

    Attributes:
        pts, dts, duration: int64, in ticks of the stream's time base; `UNKNOWN` where it is (a duration: 0).
        is_key, is_shown, is_corrupt: bool.
        end: when the last packet of any stream ends, in seconds; of this stream alone where the header states no
            duration.
        last: what `identity_of` tells of the last packet.
    """

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    is_key: np.ndarray
    is_shown: np.ndarray
    is_corrupt: np.ndarray
    end: float
    last: tuple[int | None, ...]

    def tell_what_is_shown(self, container: Any, stream: Any) -> bool:
        """Whether they tell which frames are shown, in which order and when, without any being decoded."""
        shown = self.pts[self.is_shown]
        if (shown == UNKNOWN).any() or len(np.unique(shown)) < len(shown):
            return False
        # A clock that starts again: recordings that were joined.
        dts = self.dts[self.dts != UNKNOWN]
        if (dts[1:] < dts[:-1]).any():
            return False
        # AVI stores no time of display: with B-frames FFmpeg fills in the times of decoding.
        if "avi" in container.format.name and stream.codec_context.has_b_frames:
            return False
        # A recording that starts between key frames: it depends on the decoder what it shows of the first ones.
        known = self.pts[self.pts != UNKNOWN]
        return not len(self.pts) or (self.is_key[0] and self.pts[0] != UNKNOWN and bool((known >= self.pts[0]).all()))


def read_packets(container: Any, stream: Any) -> Packets:
    """Demuxes the whole file; what is left over can only be read by opening it again or by seeking."""
    pts, dts, durations, flags = array("q"), array("q"), array("q"), bytearray()
    ends: dict[int, int] = {}
    last: tuple[int | None, ...] = ()
    codec, index = stream.codec_context.name, stream.index
    # A gap in a transport stream marks a neighbor of the damaged packet, or where two were joined. Its decoder knows.
    tells_damage = container.format.name != "mpegts"
    wanted = () if container.format.name in _WITH_DURATION else (stream,)
    for packet in container.demux(*wanted):
        time, duration = packet.pts, packet.duration or 0
        if time is not None:
            ends[packet.stream_index] = max(ends.get(packet.stream_index, time), time + duration)
        if packet.stream_index != index or (packet.size == 0 and packet.dts is None):
            continue  # another stream, or the empty packet that ends this one
        shown, last = _is_shown(packet, codec), identity_of(packet)
        pts.append(UNKNOWN if time is None else time)
        dts.append(UNKNOWN if packet.dts is None else packet.dts)
        durations.append(duration)
        flags.append(
            _KEY * packet.is_keyframe | _SHOWN * shown | _CORRUPT * (shown and tells_damage and packet.is_corrupt)
        )
    bases = {other.index: float(other.time_base or 0) for other in container.streams}
    marks = np.frombuffer(bytes(flags), np.uint8)
    times = [np.frombuffer(column, np.int64) if column else np.empty(0, np.int64) for column in (pts, dts, durations)]
    is_key, is_shown, is_corrupt = ((marks & mark).astype(bool) for mark in (_KEY, _SHOWN, _CORRUPT))
    end = max((ticks * bases.get(number, 0.0) for number, ticks in ends.items()), default=0.0)
    return Packets(times[0], times[1], times[2], is_key, is_shown, is_corrupt, end, last)


def identity_of(packet: Any) -> tuple[int | None, ...]:
    """What tells a packet from all others of a file."""
    return packet.pts, packet.dts, packet.pos, packet.size


def _is_shown(packet: Any, codec: str) -> bool:
    """False for the packets that only help to decode others: outside the edit list, or VP8's hidden references."""
    if packet.is_discard or packet.size == 0:
        return False
    # RFC 6386, 9.1: the fifth bit of a VP8 frame is show_frame. VP9 and AV1 pack theirs with a shown frame.
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


class FileHead:
    """The first bytes of a file, and how many there are.

    Args:
        file: a local path, or a seekable binary file object, which is left at its start.
    """

    def __init__(self, file: str | BinaryIO) -> None:
        if isinstance(file, str):
            self.size = os.path.getsize(file)
            with open(file, "rb") as opened:
                self.bytes = opened.read(_HEAD)
        else:
            self.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            self.bytes = file.read(_HEAD)
            file.seek(0)

    def is_cut_short(self) -> bool:
        """Whether there are fewer bytes than the header of an AVI, Matroska or FLV file states."""
        declared = _declared_size(self.bytes)
        return declared is not None and self.size + 16 < declared  # some muxers count a few bytes otherwise

    def declared_seconds(self, container: Any) -> float | None:
        """The duration that the header of a Matroska or FLV file states; None where there is none."""
        stated = b"\x44\x89" if self.bytes[:4] == b"\x1a\x45\xdf\xa3" else b"duration\x00"
        if container.format.name not in _WITH_DURATION or stated not in self.bytes or container.duration is None:
            return None
        return container.duration / 1_000_000  # av.time_base


def _declared_size(head: bytes) -> int | None:
    """Bytes that a file should have by its header; None where it does not say."""
    if head[:4] == b"RIFF":
        size = struct.unpack_from("<I", head, 4)[0] if len(head) >= 8 else 0
        return 8 + size if 0 < size < 0xFFFFFFFF else None
    if head[:4] == b"\x1a\x45\xdf\xa3":  # EBML: the size of the Segment, RFC 8794 (4) and RFC 9559 (5.1.1)
        at = head.find(b"\x18\x53\x80\x67") + 4
        if at < 4 or at >= len(head) or not head[at]:
            return None
        length = 9 - head[at].bit_length()
        size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
        return None if size == (1 << 7 * length) - 1 else at + length + size
    at = head.find(b"filesize\x00") + 9 if head[:3] == b"FLV" else 8  # a number of the script tag onMetaData
    if at < 9 or at + 8 > len(head):
        return None
    size = struct.unpack_from(">d", head, at)[0]
    return int(size) if 0 < size < 2**63 else None


__all__ = ["UNKNOWN", "FileHead", "Packets", "identity_of", "read_packets"]
