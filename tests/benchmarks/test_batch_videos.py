import json

import pytest

from .conftest import run


@pytest.mark.slow
def test_each_way_answers_all_videos(tmp_path):
    run("batch_videos", "--quick", "--output", tmp_path / "out.json")
    ways = json.loads((tmp_path / "out.json").read_text())["ways"]
    assert list(ways) == ["ask", "batch of 1", "batch", "two processes"]
    assert all(way["videos_per_second"] > 0 for way in ways.values())
