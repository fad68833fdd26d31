import numpy as np

from moving_shapes.train.demo import TYPES, draw_demo, write_demo
from vidlada_hf.evaluation.questions import load_questions
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.processing.video_reading_vidlada import read_video

SHIPPED = EMBEDDED_CHECKPOINT / "demo"


def test_the_shipped_demo_is_the_one_that_is_made(tmp_path):
    write_demo(tmp_path)
    assert (tmp_path / "questions.jsonl").read_text() == (SHIPPED / "questions.jsonl").read_text()
    made, shipped = (
        read_video(str(folder / "clip.mp4"), lambda metadata: range(metadata.total_num_frames))[0]
        for folder in (tmp_path, SHIPPED)
    )
    assert made.shape == shipped.shape == (64, 256, 256, 3)
    assert np.abs(np.asarray(made, float) - np.asarray(shipped, float)).mean() < 2  # another encoder may differ a bit


def test_the_shipped_questions_are_the_default_ones():
    _, questions = draw_demo()
    shipped = load_questions()
    assert tuple(question.type for question in shipped) == TYPES
    assert [question.question for question in shipped] == [question.question() for question in questions]
    assert all(set(a.answers) == set(b.answers) for a, b in zip(shipped, questions, strict=True))
