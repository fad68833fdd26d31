"""Nothing but the file is opened, whatever is in it."""

import io
import os
import socket
import threading

import av
import numpy as np
import pytest
from PIL import Image

from tests import clips
from vidlada_hf.processing.containers_vidlada import CONTAINERS, open_container
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import assert_names_source_and_remedy, every_frame

# Readers of FFmpeg that open other files, devices or the network, run scripts, or make pictures of any text or bytes.
DANGEROUS = {
    *("concat", "hls", "dash", "webm_dash_manifest", "sdp", "rtp", "rtsp", "sap", "imf", "mlv", "vobsub", "image2"),
    *("alias_pix", "brender_pix", "lavfi", "v4l2", "video4linux2,v4l2", "fbdev", "x11grab", "kmsgrab", "alsa", "oss"),
    *(
        "pulse",
        "jack",
        "avfoundation",
        "dshow",
        "gdigrab",
        "avisynth",
        "vapoursynth",
        "tty",
        "bin",
        "adf",
        "idf",
        "xbin",
    ),
    *("ffmetadata", "rawvideo", "data", "msnwctcp", "image2pipe", "libopenmpt", "svg_pipe"),
}


def playlists(secret):
    """Texts that make FFmpeg open `secret`, or a socket, by the name that such a file has."""
    host = "IN IP4 127.0.0.1"
    sdp = f"v=0\no=- 0 0 {host}\ns=x\nc={host}\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    return {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{secret}\n#EXT-X-ENDLIST\n",
        "b.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile://{secret}\n",
        "c.ffconcat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "d.ffconcat": f"ffconcat version 1.0\nfile 'file:{secret}'\n",
        "e.sdp": sdp,
        "f.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="1"><BaseURL>{secret}</BaseURL></Representation></AdaptationSet>'
        "</Period></MPD>\n",
        "g.txt": "this is no video\n" * 40,
        "h.ans": "\x1b[31mred\x1b[0m\n" * 40,
        "i.ffmeta": ";FFMETADATA1\ntitle=a\n",
        "j.rtsp": f"rtsp://127.0.0.1:1/{secret.name}\n",
        "k.srt": "1\n00:00:00,000 --> 00:00:01,000\ntext\n",
        "l.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>\n',
    }


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A video that nobody asks for, in the current folder, where the playlists look for it."""
    monkeypatch.chdir(tmp_path)
    return clips.encode(tmp_path / "secret.ts", "mpeg2", frames=12)


def refuse(source):
    with pytest.raises(VideoReadingError) as caught:
        read_video(source, every_frame)
    return caught.value


@pytest.mark.parametrize("suffix", ["", ".mp4", ".png"], ids=["own suffix", "mp4", "png"])
@pytest.mark.parametrize("name", playlists(os))
def test_playlists_scripts_and_texts_are_no_videos(secret, name, suffix):
    path = secret.parent / (name + suffix)
    path.write_text(playlists(secret)[name])
    assert_names_source_and_remedy(refuse(path), repr(str(path)))
    refuse(path.read_bytes())
    with path.open("rb") as file:
        refuse(file)


def test_names_open_nothing(secret):
    for index, picture in enumerate(clips.pictures(3)):
        Image.fromarray(picture).save(secret.parent / f"frame{index}.png")
    names = [f"concat:{secret.name}|{secret.name}", f"subfile,,start,0,end,0,,:{secret}", f"file:{secret}", "pipe:0"]
    names += [
        "frame%d.png",
        "frame*.png",
        "testsrc=size=32x32",
        "/dev/zero",
        "data:video/mp4;base64,AAAA",
        "cache:a.ts",
    ]
    for name in names:
        refuse(name)
        file = io.BytesIO(b"no video")
        file.name = name  # PyAV hands it on to FFmpeg
        refuse(file)


@pytest.mark.parametrize(
    "name", ["a%03d.png", "%d.gif", "100%.jpg", "clip.m3u8", "clip.txt", "-", "pipe:0", "no suffix"]
)
def test_a_name_says_nothing_of_the_content(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = clips.encode(tmp_path / "clip.mp4", frames=3)
    expected = clips.decode_all(path)
    path.rename(name)
    assert np.array_equal(read_video(name, every_frame)[0], expected)


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", [tmp_path / "pipe.mp4"], "/dev/zero"):
        refused = []
        thread = threading.Thread(target=lambda path=path, refused=refused: refused.append(refuse(path)), daemon=True)
        thread.start()
        thread.join(10)
        assert refused and "no ordinary file" in str(refused[0])


def test_a_session_description_opens_no_socket(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    refuse(text.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


def test_the_list_names_readers_that_exist_and_none_that_leads_elsewhere():
    assert not DANGEROUS & set(CONTAINERS)
    missing = [name for name in CONTAINERS if name not in av.formats_available]
    assert len(missing) < 5, missing  # builds of FFmpeg differ a little


def test_streams_that_are_found_late(tmp_path):
    """PyAV 17 crashes where options are given to streams that the header does not name."""
    for name in ("clip.mpg", "clip.ts", "clip.flv"):
        path = clips.encode(tmp_path / name, **({"codec": "mpeg2"} if name == "clip.mpg" else {"bf": "0"}), frames=5)
        for source in (path, path.read_bytes()):
            assert len(read_video(source, every_frame)[0]) == 5


def test_a_title_that_is_no_utf8(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXXXXX"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in clips.pictures(4, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    expected = clips.decode_all(path)
    path.write_bytes(path.read_bytes().replace(b"XXXXXXXX", "Café Zoë".encode("latin-1")))
    assert np.array_equal(read_video(path, every_frame)[0], expected)
    with open_container(str(path)) as container:
        assert "title" in container.metadata


def test_sound_alone_is_called_so(tmp_path):
    for suffix in ("mp3", "wav", "flac", "m4a"):
        path = tmp_path / f"sound.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream({"m4a": "aac", "wav": "pcm_s16le"}.get(suffix, suffix), rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
            frame.sample_rate = 16000
            resampler = av.AudioResampler(stream.format, "mono", 16000, getattr(stream, "frame_size", 0) or None)
            for part in resampler.resample(frame):
                container.mux(stream.encode(part))
            container.mux(stream.encode())
        assert "only sound" in str(refuse(path))
