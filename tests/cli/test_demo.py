import json
from pathlib import Path


def test_demo_prints_each_answer_and_a_verdict(vidlada, checkpoint: Path, tmp_path: Path) -> None:
    code, out, _ = vidlada("demo", "--output", tmp_path / "new", "--model", checkpoint)
    replies = json.loads((tmp_path / "new" / "answers.json").read_text())
    assert code == 0 and len(replies) >= 8 and f"Checkpoint: {checkpoint}" in out
    assert all(reply["question"] in out and reply["answer"] in out and reply["expected"] in out for reply in replies)
    assert out.count("[WRONG]") + out.count("[right]") + out.count("% of the sentences]") == len(replies)
    assert str(tmp_path / "new" / "denoising.png") in out and (tmp_path / "new" / "denoising.png").is_file()


def test_demo_without_a_checkpoint(vidlada, tmp_path: Path) -> None:
    code, out, message = vidlada("demo", "--output", tmp_path / "new", "--model", tmp_path)
    assert (code, out) == (1, "") and "holds no config.json" in message and not (tmp_path / "new").exists()
