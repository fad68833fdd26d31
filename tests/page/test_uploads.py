from pathlib import Path

import pytest

from tests.clips import encode
from vidlada_hf.page.uploads import check_upload


def test_a_short_video_is_taken_and_a_long_one_not(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "mine.mp4", frames=20, fps=10))
    check_upload(clip, 2.5)
    with pytest.raises(ValueError, match=r"^mine.mp4 lasts 2 seconds, and this page takes at most 1: cut it\.$"):
        check_upload(clip, 1)


def test_a_broken_file_is_named_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(ValueError, match="Cannot read the video 'mine.mp4'") as caught:
        check_upload(str(tmp_path / "mine.mp4"), 60)
    assert str(tmp_path) not in str(caught.value)
