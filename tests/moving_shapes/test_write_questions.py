import json
from pathlib import Path

import pytest

from moving_shapes import BENCHMARK_TYPES, MovingShapes
from moving_shapes.write_questions import main, write_questions
from vidlada_hf.evaluation.questions import load_questions


def test_the_package_reads_the_benchmark_from_files(tmp_path: Path) -> None:
    main([str(tmp_path / "made"), "--split", "validation", "--count", "4", "--size", "32", "--seed", "1"])
    questions = load_questions(tmp_path / "made" / "questions.jsonl")
    expected = list(MovingShapes("validation", 4, size=32, seed=1))
    assert [question.type for question in questions] == list(BENCHMARK_TYPES[:4])
    for question, example in zip(questions, expected, strict=True):
        assert (question.question, question.answers) == (example.question, example.details.answers)
        assert isinstance(question.video, Path) and question.video.is_file()
    assert len({question.video for question in questions}) == 4


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    main([str(tmp_path / "made"), "--count", "1", "--types", "caption", "--size", "16"])
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    (record,) = (json.loads(line) for line in (moved / "questions.jsonl").read_text().splitlines())
    assert set(record) == {"video", "question", "answers", "type"} and (moved / record["video"]).is_file()


def test_videos_elsewhere_are_an_error(tmp_path: Path) -> None:
    question = MovingShapes("test", 1)[0].as_question()
    with pytest.raises(ValueError, match="must be a file in"):
        write_questions([question], tmp_path / "questions.jsonl")
