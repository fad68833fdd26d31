import pytest

from .conftest import load, run

pytestmark = pytest.mark.slow


def test_accuracy_is_compared_question_by_question(results):
    data = load(results, "mars_parts")
    exact, mars = (data["results"][name] for name in ("exact", "mars"))
    assert exact["accuracy"]["all"]["questions"] == 4 and exact["accuracy"]["all"]["lost"] == 0
    assert exact["agreement"] == {"tokens": 1, "answers": 1} and mars["flops_saving"] > 1
    assert list(data["results"]) == ["exact", "mars", "no anchors", "interval"]
    assert "points lost, worst type" in data["checks"]
    assert list(load(results, "mars_accuracy")["results"]) == ["exact", "mars"]


def test_parts_hold_each_question_once_and_join(results, tmp_path, capsys):
    files = ["--output", tmp_path / "joined.json", "--work", tmp_path / "parts"]
    arguments = ["parts", "--quick", "--only", "mars", *files]
    with pytest.raises(SystemExit, match="2of2.json is missing: run --part 2/2"):
        run("mars_accuracy", *arguments, "--part", "1/2")  # the first part alone cannot be joined
    run("mars_accuracy", *arguments, "--part", "2/2")
    joined, whole = load(tmp_path, "joined"), load(results, "mars_parts")
    for name in ("exact", "mars"):
        assert joined["results"][name]["accuracy"] == whole["results"][name]["accuracy"]
        assert joined["results"][name]["agreement"] == whole["results"][name]["agreement"]
