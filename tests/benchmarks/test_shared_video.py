import pytest

from .conftest import load, run


@pytest.mark.slow
def test_answers_with_a_video_cache_are_compared_with_exact_ones(tmp_path):
    output = tmp_path / "shared_video.json"
    for _ in range(2):  # the second finds all there
        run("shared_video", "--questions", 22, "--frames", 8, "--output", output)
    summary = load(tmp_path, "shared_video")["by_frames"]["8"]["summary"]
    assert summary["questions"] == 22 == summary["comparison"]["questions"]
    assert set(summary["right"]) == {"exact", "shared"} and summary["median_seconds"]["shared"] > 0
    assert sum(kind["lost"] for kind in summary["by_type"].values()) == summary["comparison"]["lost"]
