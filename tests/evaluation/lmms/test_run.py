import pytest

from vidlada_hf.evaluation.lmms.benchmarks import BENCHMARKS
from vidlada_hf.evaluation.lmms.published import MODELS, PUBLISHED, SOURCES, published_cells
from vidlada_hf.evaluation.lmms.run import summarize, table

RESULTS = {
    "results": {
        "mvbench": {"alias": "mvbench", " ": " "},
        "mvbench_a": {"alias": "a", "mvbench_accuracy,none": 50.0, "mvbench_accuracy_stderr,none": 1.0},
        "mvbench_b": {"alias": "b", "mvbench_accuracy,none": 70.0, "mvbench_accuracy_stderr,none": "N/A"},
    },
    "n-samples": {"mvbench_a": {"original": 200, "effective": 10}, "mvbench_b": {"original": 200, "effective": 20}},
    "samples": {"mvbench_a": [{"doc_id": 0, "target": "A", "filtered_resps": ["B"], "doc": object()}]},
}


def test_a_groups_score_is_the_mean_of_its_tasks() -> None:
    found = summarize("mvbench", RESULTS)
    assert found["score"] == 60.0 and found["questions"] == {"mvbench_a": 10, "mvbench_b": 20}
    assert found["metrics"]["mvbench_b"] == {"mvbench_accuracy": 70.0}
    assert found["samples"]["mvbench_a"] == [{"doc_id": 0, "target": "A", "filtered_resps": ["B"]}]


def test_scores_of_known_benchmarks_are_percent() -> None:
    results = {"results": {"lvbench": {"lvbench_score,none": 0.447}}, "n-samples": {"lvbench": {"effective": 3}}}
    assert summarize("lvbench", results)["score"] == pytest.approx(44.7)
    results = {"results": {"mine": {"right,none": 0.5}}, "n-samples": {"mine": {"effective": 3}}}
    assert summarize("mine", results)["score"] == 0.5


def test_known_benchmarks_stand_beside_published_scores() -> None:
    data = {"mvbench": summarize("mvbench", RESULTS), "mine": {"score": 0.5, "questions": {"mine": 1200}}}
    head, _, known, own, *sources = table(data).splitlines()
    assert head == "| benchmark | questions | this model | " + " | ".join(MODELS) + " |"
    assert known.startswith("| MVBench | 30 | 60.0 | 59.4 (a) |") and own.startswith("| mine | 1,200 | 0.5000 |")
    assert len(sources) == 1 + len(SOURCES)
    assert "published" not in table({"mine": data["mine"]}) and "VidLaDA-8B" not in table({"mine": data["mine"]})


def test_published_scores_have_a_source() -> None:
    scores = [score for by_model in PUBLISHED.values() for score in by_model.values()]
    assert {score.source for score in scores} == set(SOURCES) and all(0 < score.value < 100 for score in scores)
    assert set(PUBLISHED) <= set(BENCHMARKS) and {model for by in PUBLISHED.values() for model in by} == set(MODELS)
    assert published_cells("mlvu_test") == ["53.4 (a)", "-", "-", "50.4 (e)", "-"]
