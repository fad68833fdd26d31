import pytest

from .conftest import load

pytestmark = pytest.mark.slow


def test_speed_on_a_cpu(results):
    data = load(results, "mars_speed_cpu")
    exact, mars = (data["results"][name] for name in ("exact", "mars"))
    assert exact["counts"]["steps_run"] == 2 and exact["counts"]["steps"] == 8 and "2 of 8" in data["setup"]["exact"]
    assert exact["counts"]["flops"] == pytest.approx(exact["counts"]["flops_planned"], rel=0.01)
    assert mars["counts"]["flops"] == pytest.approx(mars["counts"]["flops_planned"], rel=0.01)
    assert mars["summary"]["flops_saving"] > 1 and len(mars["seconds"]) == 2
    assert len(data["checks"]) == 4 and all(ratio > 0 for ratio in data["checks"].values())
