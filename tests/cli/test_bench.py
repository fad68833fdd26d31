import json
from pathlib import Path

import pytest

from .conftest import QUESTION


def test_bench_measures_and_goes_on(vidlada, checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"video": clip.name, "question": QUESTION, "answer": "none"}))
    options = ("--questions", questions, "--videos", clip.parent, "--frames", 3, "--max-new-tokens", 4, "--rounds", 1)
    options += ("--unmasking", "quota", "--output", tmp_path / "new" / "bench.json")
    code, out, _ = vidlada("bench", checkpoint, *options, "--cache-strategy", "dual")
    data = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert code == 0 and data["setup"]["model"] == str(checkpoint) and data["setup"]["frames"] == 3
    assert list(data["results"]) == ["none + quota", "dual + quota"]
    assert all(name in out for name in data["results"]) and "new/bench.png" in out
    assert (tmp_path / "new" / "bench.png").stat().st_size > 5000

    mars = '{"visual_intervals": [2], "text_intervals": [2]}'
    code, out, _ = vidlada("bench", checkpoint, *options, "--cache-strategy", f"mars:{mars}")
    more = json.loads((tmp_path / "new" / "bench.json").read_text())["results"]
    assert code == 0 and list(more)[2] == f"mars{mars} + quota"
    assert more["dual + quota"] == data["results"]["dual + quota"]  # not run again


def test_bench_asks_the_shipped_questions_by_default(vidlada, checkpoint: Path, tmp_path: Path) -> None:
    options = ("--count", 1, "--max-new-tokens", 4, "--rounds", 1, "--cache-strategy", "none", "--unmasking", "quota")
    code, _, _ = vidlada("bench", checkpoint, *options, "--output", tmp_path / "bench.json")
    (question,) = json.loads((tmp_path / "bench.json").read_text())["questions"]
    assert code == 0 and question["question"] == "What color is the cross?"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--cache-strategy", "mras"), "'mras'"),
        (("--unmasking", "threshold:x"), "threshold:x"),
        (("--questions", "none.jsonl"), "none.jsonl"),
        (("--stop-after", "never"), "`stop_after`"),
        (("--output", "bench.png"), "name another file"),
        (("--rounds", 0), "`rounds` must be at least 1, got 0"),
        (("--max-new-tokens", 9, "--block-length", 4), "`block_length` (4)"),
    ],
)
def test_bench_refuses_in_a_line(vidlada, checkpoint: Path, tmp_path: Path, options, reason: str) -> None:
    code, out, message = vidlada("bench", checkpoint, "--count", 1, "--output", tmp_path / "bench.json", *options)
    assert (code, out, message.count("\n")) == (1, "", 0) and reason in message
    assert not (tmp_path / "bench.json").exists()
