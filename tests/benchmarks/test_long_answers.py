import pytest

from moving_shapes import MovingShapes
from moving_shapes.questions import LONG_TYPES

from .conftest import load, load_module, run


def test_repetition_is_the_share_of_runs_of_words_that_stood_before():
    repetition = load_module("long_answers").repetition
    assert repetition("the red circle moves left") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # abcd, bcda, cdab, dabc, abcd
    assert repetition("no") == 0


def test_facts_are_compared_question_by_question():
    script = load_module("long_answers")
    examples = list(MovingShapes("test", 12, types=LONG_TYPES))
    right, nothing = [example.answer for example in examples], [""] * 12
    assert script.points_apart(examples, right, right) == [0, 0, 0]
    assert script.points_apart(examples, right, nothing) == [100, 100, 100]
    difference, low, high = script.points_apart(examples, [*right[:6], *nothing[:6]], nothing)
    assert low < difference < high and high - low > 20


@pytest.mark.slow
def test_every_rule_is_compared_with_every_cache(tmp_path):
    for _ in range(2):  # the second finds all there
        module = run("long_answers", "--quick", "--output", tmp_path / "long_answers.json")
    data = load(tmp_path, "long_answers")
    assert {entry["cache_strategy"] for entry in data["results"].values()} == set(module.CACHES)
    expected = data["expected"]
    assert expected["facts"] == expected["told_right"] == 1 and expected["broken"] == 0
    for entry in data["results"].values():
        difference, low, high = entry["answers"]["points"]
        shares = [value for name, value in entry["answers"].items() if name != "points"]
        assert low <= difference <= high and all(0 <= share <= 1 for share in shares)
    assert module.table(data).count("\n") == len(data["results"]) + 1
