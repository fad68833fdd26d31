"""What headers and packets tell of a file without decoding it."""

import io
from contextlib import closing

import av
import numpy as np
import pytest

from tests import clips
from vidlada_hf.processing.video_packets_vidlada import FileHead, read_packets

from .helpers import cut


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "mpeg4.avi", "h264.flv"])
def test_missing_bytes_are_noticed(tmp_path, name):
    path = clips.encode(tmp_path / name, name.split(".")[0], frames=20)
    for source in (str(path), io.BytesIO(path.read_bytes())):
        assert not FileHead(source).is_cut_short()
    cut(path, 0.9)
    for source in (str(path), io.BytesIO(path.read_bytes())):
        head = FileHead(source)
        assert head.is_cut_short() and head.size == path.stat().st_size


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.mpg", "h264.h264", "h264.mp4"])
def test_headers_that_state_no_size(tmp_path, name):
    path = cut(clips.encode(tmp_path / name, name.split(".")[0], frames=20), 0.9)
    assert not FileHead(str(path)).is_cut_short()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\x1a\x45\xdf\xa3\x18\x53\x80\x67", b"FLVfilesize\x00", b"FLV"])
def test_heads_of_nothing(content):
    head = FileHead(io.BytesIO(content))
    assert not head.is_cut_short() and head.size == len(content)


@pytest.mark.parametrize("bf", ["0", "3"])
def test_packets_are_those_of_the_stream(tmp_path, bf):
    path = clips.encode(tmp_path / "clip.mkv", frames=30, fps=25, audio=True, bf=bf)
    with closing(av.open(str(path))) as container:
        packets = read_packets(container, container.streams.video[0])
        assert packets.tell_what_is_shown(container, container.streams.video[0])
    assert len(packets.pts) == 30 and packets.is_shown.all() and not packets.is_corrupt.any()
    assert np.flatnonzero(packets.is_key).tolist() == [0, 12, 24]
    assert (np.diff(packets.pts) > 0).all() == (bf == "0")
    assert packets.end == pytest.approx(1.2, abs=0.05)


def test_a_clock_that_starts_again_tells_nothing(tmp_path):
    part = clips.encode(tmp_path / "part.ts", frames=20)
    path = clips.join(tmp_path / "joined.ts", [part, part])
    with closing(av.open(str(path))) as container:
        packets = read_packets(container, container.streams.video[0])
        assert not packets.tell_what_is_shown(container, container.streams.video[0])
