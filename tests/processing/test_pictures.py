"""One picture: what it may be, and that sixteen bits are the same from a file and from an array."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from tests import clips
from vidlada_hf.processing.pictures_vidlada import as_rgb, load_picture, path_of_file_address
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import every_frame

RAMP = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))


@pytest.fixture
def picture():
    return next(clips.pictures(1, 20, 30))


def test_forms_of_a_picture(tmp_path, picture):
    path = tmp_path / "a%d b.png"
    Image.fromarray(picture).save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    forms = [path, str(path), path.as_uri(), f"data:image/png;base64,{text}", text, Image.open(path), picture]
    forms += [torch.from_numpy(picture), picture.transpose(2, 0, 1), picture / 255]
    for form in forms:
        np.testing.assert_array_equal(load_picture(form), picture)


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
def test_sixteen_bits_of_a_file_are_those_of_an_array(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 256 64 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(path)
    ramp = load_picture(path)
    for form in (RAMP, RAMP.astype(">u2"), torch.from_numpy(RAMP), Image.fromarray(RAMP)):
        np.testing.assert_array_equal(load_picture(form), ramp)
    np.testing.assert_array_equal(ramp[..., 0], np.tile(np.arange(256), (64, 1)))
    np.testing.assert_array_equal(read_video([path, path], every_frame)[0], np.stack([ramp, ramp]))
    np.testing.assert_array_equal(read_video(RAMP[None, ..., None], every_frame)[0][0], ramp)


def test_sixteen_bits_of_color():
    deep = np.repeat(RAMP[..., None], 3, axis=-1)
    np.testing.assert_array_equal(as_rgb(deep), as_rgb((deep >> 8).astype(np.uint8)))


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    """Its scale follows from its type, not from its values."""
    assert as_rgb(np.full((4, 4, 3), 255, np.uint16)).max() == 0


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((0, 8, 3), np.uint8), "no pixel"),
        (np.zeros((8, 0, 3)), "no pixel"),
        (Image.new("RGB", (0, 4)), "empty"),
        (np.full((8, 8, 3), np.nan), "nan"),
        (np.where(np.arange(12).reshape(2, 2, 3) == 5, np.nan, 0.5), "nan"),
        (np.full((8, 8, 3), np.inf), "inf"),
        (np.full((8, 8, 3), 300), "from 300 to 300"),
        (np.zeros((8, 8, 3), complex), "complex"),
        (np.full((8, 8, 3), "a"), "<U1"),
        (np.zeros((8, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 8, 8, 3), np.uint8), "is no image"),
        ("no such picture.png", "not there"),
        ("http://example.com/a.png", "allow_urls=True"),
        ("data:image/png;base64,AAAA", "no picture that Pillow"),
        ("file://server/a.png", "another machine"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture(source, problem):
    with pytest.raises(VideoReadingError, match=problem):
        load_picture(source)
    if isinstance(source, np.ndarray) and source.ndim == 3:
        with pytest.raises(VideoReadingError, match=problem):
            read_video(source[None], every_frame)


def test_a_picture_opens_nothing_else(tmp_path, monkeypatch):
    """Pillow knows a format by its content, and gives PostScript to Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *args, **options: pytest.fail(f"a program runs: {args}"))
    monkeypatch.setattr("subprocess.Popen", lambda *args, **options: pytest.fail(f"a program runs: {args}"))
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(VideoReadingError, match="no picture that Pillow"):
        load_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "webp", "avif"])
def test_a_picture_is_upright_by_its_exif_data(tmp_path, suffix, orientation):
    """Turned and mirrored, however it is given. AVIF has no EXIF for that: Pillow writes what FFmpeg reads."""
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.kron(next(clips.pictures(1, 4, 6)), np.ones((16, 16, 1), np.uint8)))
    exif = image.getexif()
    exif[274] = orientation
    image.save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    upright = np.asarray(image)
    upright = {  # EXIF 2.32, 4.6.4 A: the side at which the first row and column are seen
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, -1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright),
    }.get(orientation, upright)
    for source in (path, path.read_bytes(), [path], [Image.open(path)]):
        (frame,), _ = read_video(source, every_frame)
        assert frame.shape == upright.shape
        assert np.abs(frame.astype(int) - upright).mean() < 4


def test_damaged_exif_data_say_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(next(clips.pictures(1))).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert np.array_equal(load_picture(path), np.asarray(Image.open(path)))


def test_a_limit_of_pixels(tmp_path):
    content = io.BytesIO()
    Image.new("1", (5000, 5000)).save(content, "PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(content.getvalue())
    with pytest.raises(VideoReadingError, match="5000x5000 .*`max_pixels`"):
        load_picture(path, max_pixels=1_000_000)


def test_file_addresses():
    assert Path(path_of_file_address("file:///a%20b.mp4")) == Path("/a b.mp4")
    assert Path(path_of_file_address("file://localhost/a.mp4")) == Path("/a.mp4")
