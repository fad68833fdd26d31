"""The benchmark as a sequence: the same at every visit, at every number of frames."""

from pathlib import Path

import numpy as np
import pytest

from moving_shapes import BENCHMARK_TYPES, QUESTION_TYPES, MovingShapes
from moving_shapes.scenes.scene import Scene


def test_an_example_is_always_the_same() -> None:
    dataset = MovingShapes("validation", 50)
    late = dataset[37]
    for example in (list(dataset)[37], MovingShapes("validation", 40)[37], dataset[-13]):
        assert (example.scene, example.details, example.answer) == (late.scene, late.details, late.answer)
        np.testing.assert_array_equal(example.frames, late.frames)
    assert late.frames is not None and late.frames.shape == (8, 64, 64, 3) and late.frames.dtype == np.uint8


def test_more_frames_show_the_same_scene_and_get_the_same_answer() -> None:
    few, more, many = (MovingShapes("test", 42, num_frames=n, types=QUESTION_TYPES) for n in (8, 16, 32))
    for i in range(42):
        assert few.draw(i) == more.draw(i) == many.draw(i)
    assert many[0].frames is not None and len(many[0].frames) == 32


def test_types_come_in_turn_and_slices_are_lists() -> None:
    dataset = MovingShapes("train", 2 * len(BENCHMARK_TYPES))
    assert [example.type for example in dataset] == [*BENCHMARK_TYPES] * 2
    assert [example.type for example in dataset[1:3]] == list(BENCHMARK_TYPES[1:3])


def test_splits_and_seeds_share_no_scene() -> None:
    seen: list[Scene] = []
    for split in ("train", "validation", "test"):
        for seed in (0, 1):
            dataset = MovingShapes(split, 30, seed=seed)
            seen += [dataset.draw(i)[0] for i in range(30)]
    assert len(set(seen)) == len(seen) == 180


def test_styles() -> None:
    compact = MovingShapes("train", 1, types=("color",), question_style="compact")[0]
    full = MovingShapes("train", 1, types=("color",))[0]
    assert compact.question == f"color {full.details.questions[0].split()[1]}" and compact.answer == full.answer
    assert full.details.answer("sentence").endswith(f"is {compact.answer}.") and full.question.endswith("?")


def test_videos_are_written_once(tmp_path: Path) -> None:
    dataset = MovingShapes("test", 3, video_folder=tmp_path)
    example = dataset[2]
    assert example.frames is None and example.path is not None and example.path.is_file()
    before = example.path.stat().st_mtime_ns
    assert dataset[2].path == example.path and example.path.stat().st_mtime_ns == before


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_few_frames_get_questions_that_they_determine(num_frames: int) -> None:
    dataset = MovingShapes("train", 20, num_frames=num_frames, types=("color", "existence", "counting", "shape"))
    for i in range(20):
        assert dataset.draw(i)[1].is_determined(dataset.times)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="no split 'dev'"):
        MovingShapes("dev")
    with pytest.raises(ValueError, match="no question type 'taste'"):
        MovingShapes("train", types=("color", "taste"))
    with pytest.raises(ValueError, match="`types` is empty"):
        MovingShapes("train", types=())
    with pytest.raises(ValueError, match="num_frames=0"):
        MovingShapes("train", num_frames=0)
    with pytest.raises(ValueError, match="no style"):
        MovingShapes("train", question_style="song")
    with pytest.raises(ValueError, match="length=-1"):
        MovingShapes("train", length=-1)
    with pytest.raises(ValueError, match="'motion' can be answered from 1 frames"):
        MovingShapes("train", num_frames=1, types=("motion",))[0]
    with pytest.raises(IndexError, match="length=5"):
        MovingShapes("train", 5)[5]


def test_an_example_is_a_question_of_the_package(tmp_path: Path) -> None:
    example = MovingShapes("test", 1)[0]
    question = example.as_question()
    assert question.video is example.frames and question.question == example.question and question.type == "color"
    assert question.answers == example.details.answers
    of_file = MovingShapes("test", 1, video_folder=tmp_path)[0].as_question()
    assert isinstance(of_file.video, Path) and of_file.video.parent == tmp_path
    caption = MovingShapes("test", 1, types=("caption",))[0].as_question()
    assert len(caption.answers) == 1  # both wordings are the same
