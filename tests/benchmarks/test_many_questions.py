import pytest

from .conftest import load, run


@pytest.mark.slow
def test_one_more_question_and_choices_are_measured(tmp_path):
    output = tmp_path / "many_questions.json"
    run("many_questions", "speed", "--quick", "--threads", 1, "--output", output)
    run("many_questions", "choices", "--quick", "--output", output)
    run("many_questions", "choices", "--quick", "--output", output)  # finds all there
    data = load(tmp_path, "many_questions")
    assert len(data["speed"]["rounds"]) == 2 and data["speed"]["summary"]["one more / the first"] > 0
    summary = data["choices"]["summary"]
    assert {entry["questions"] for entry in summary.values()} == {4}
    assert "letters with options, shared video" in summary
    assert len(data["choices"]["answers"]) == 4 and summary["letters"]["seconds"] > 0
