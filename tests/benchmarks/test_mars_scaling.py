import pytest

from .conftest import load

pytestmark = pytest.mark.slow


def test_scaling_is_drawn(results):
    assert list(load(results, "mars_scaling")["by_frames"]) == ["3", "6"]
    assert (results / "mars_scaling.png").stat().st_size > 5000
