"""`vidlada batch`: a list answered once, in one process or in several, whatever was killed before."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import processes

from .conftest import QUESTION

VIDLADA = Path(sys.executable).with_name("vidlada")


@pytest.fixture
def videos(clip: Path, tmp_path: Path) -> Path:
    """Six videos, one of which is none."""
    (tmp_path / "videos").mkdir()
    for number in range(5):
        shutil.copy(clip, tmp_path / "videos" / f"{number}.mp4")
    (tmp_path / "videos" / "5.mp4").write_bytes(b"no video" * 99)
    return tmp_path / "videos"


@pytest.fixture
def batch(vidlada, videos: Path, checkpoint: Path, tmp_path: Path):
    """Runs the command: (code, stdout, stderr, lines of the output)."""
    out = tmp_path / "answers.jsonl"

    def run(*options: object):
        base = ("--question", QUESTION, "--out", out, "--model", checkpoint, "--frames", 2, "--batch-size", 2)
        done = vidlada("batch", videos, *base, *options)
        return *done, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


def test_a_folder_is_answered_once(batch, videos: Path) -> None:
    code, out, message, lines = batch()
    assert code == 0 and [line["id"] for line in lines] == [f"{number}.mp4" for number in range(6)]
    assert all((line["answer"] is None) == (line["id"] == "5.mp4") for line in lines)
    assert "5.mp4" in lines[5]["error"] and "6 lines" in out and "1 with an error" in out
    assert "6 of 6 answers are due" in message
    code, _, message, again = batch()
    assert (code, again) == (0, lines) and "0 of 6 answers are due" in message

    shutil.copy(videos / "0.mp4", videos / "5.mp4")
    shutil.copy(videos / "0.mp4", videos / "6.mp4")
    code, out, _, more = batch("--retry-errors")
    assert code == 0 and more[:5] == lines[:5] and "0 with an error" in out
    assert more[5]["answer"] == more[6]["answer"] == lines[0]["answer"]
    code, _, message, _ = batch("--temperature", 1)
    assert code == 1 and "was made with `settings`" in message


def test_several_processes_share_the_list(batch, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    kept = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        code, out, _, lines = batch()
        kept.append(len(lines))
        assert code == 0 and ("answers are due" in out) == (rank == 1)
    assert 0 < kept[0] < kept[1] == 6 == len({line["id"] for line in lines})


def test_ctrl_c_keeps_what_is_there(batch, monkeypatch) -> None:
    from vidlada_hf.inference.answering import VideoAnswerer

    answer = VideoAnswerer.answer

    def interrupted(self, requests):
        yield next(answer(self, requests))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VideoAnswerer, "answer", interrupted)
        code, _, message, lines = batch()
    assert code == 130 and "Stopped. The answers so far are in" in message and len(lines) == 2
    assert len(batch()[3]) == 6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--batch-size", 0), "`batch_size` must be at least 1"),
        (("--max-new-tokens", 99999), "`max_new_tokens` (99999) leaves no room for a prompt"),
        (("--frames", 0), "`num_frames=0` is impossible"),
        (("--cache-strategy", "nars"), "'nars'"),
        (("--unmasking", "quota:3"), "'quota' takes no number"),
        (("--device", "gpu"), "no device 'gpu'"),
        (("--dtype", "int3"), "`dtype` must be one of"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(batch, tmp_path: Path, options, reason: str) -> None:
    code, out, message, lines = batch(*options)
    assert (code, out, lines) == (1, "", []) and reason in message
    assert not (tmp_path / "answers.jsonl.parts").exists()


def test_nothing_heavy_is_imported_where_nothing_is_due(vidlada, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(str(clip))
    arguments = ["batch", str(tmp_path / "list.txt"), "--question", QUESTION, "--out", str(tmp_path / "out.jsonl")]
    assert vidlada(*arguments)[0] == 0
    code = (
        "import sys, vidlada_hf.cli\n"
        f"assert not vidlada_hf.cli.app({arguments}, standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and "All 1 lines" in ran.stdout, ran.stderr


@pytest.mark.slow
def test_two_hundred_videos_by_two_processes_one_of_them_killed_then_by_three(
    clip: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(200):
        os.link(clip, tmp_path / "videos" / f"{number:03}.mp4")
    out = tmp_path / "answers.jsonl"
    command = ["batch", tmp_path / "videos", "--question", QUESTION, "--out", out, "--model", checkpoint]
    command += ["--frames", 4, "--batch-size", 4]
    two = [
        processes.start([VIDLADA, *command], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in range(2)
    ]
    try:
        while not any(part.read_bytes().count(b"\n") >= 20 for part in Path(f"{out}.parts").glob("1-of-2-*")):
            assert all(process.poll() is None for process in two)
            time.sleep(0.02)
        two[1].kill()
        two[1].wait()
        assert two[0].wait(600) == 0
    finally:
        for process in two:
            processes.end(process)
    before = out.read_text().splitlines()
    assert 100 < len(before) < 200

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "--no-python"]
    done = processes.run([*torchrun, VIDLADA, *command], timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 200 and {line["id"] for line in lines} == {f"{number:03}.mp4" for number in range(200)}
    assert len({line["answer"] for line in lines}) == 1 and lines[0]["answer"]
    assert set(before) <= set(out.read_text().splitlines())
