import json
from pathlib import Path

import numpy as np
import pytest

from vidlada_hf.evaluation.questions import (
    VideoQuestion,
    are_right,
    is_right,
    load_questions,
    score_answer,
    sentence_share,
)
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.processing.addresses_vidlada import AllowedAddress


def write(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def test_a_users_own_questions(tmp_path):
    (tmp_path / "a.mp4").touch()
    record = {"video": "a.mp4", "question": "What?", "answer": "A red  Disc.", "type": "color"}
    source = write(tmp_path / "q.jsonl", record, "", {"video": "a.mp4", "question": "Why?"})
    first, second = load_questions(source)
    assert (first.video, first.question, first.type) == (tmp_path / "a.mp4", "What?", "color")
    assert is_right(first, "a red disc") and not is_right(first, "a blue disc") and is_right(second, "all") is None
    assert are_right([first, first], ["a red disc", ""]) == [True, False]
    assert are_right([first, second], ["a red disc", ""]) is None
    assert len(load_questions(source, 1)) == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = write(elsewhere / "q.jsonl", record)
    assert load_questions(moved, videos=tmp_path)[0].video == tmp_path / "a.mp4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ('["a.mp4"]', "line 2: a question has the keys `video` and `question`"),
        ('{"video": "a.mp4"}', "line 2: a question has the keys"),
        ('{"video": "a.mp4", "question": "?", "anwser": "x"}', "line 2: a question has the keys.*anwser"),
        ('{"video": "a.mp4", "question": "a\\ud83d?"}', "line 2: `question` holds half a character"),
        ('{"video": "a.mp4", "question": 3}', "line 2: `question` must be a text, got 3"),
        ('{"video": "a.mp4", "question": "?", "answer": 3}', "line 2: `answer` must be a text, got 3"),
        ('{"video": "a.mp4", "question": "?", "answers": "x"}', "line 2: `answers` must be a list of texts, got 'x'"),
        ('{"video": null, "question": "?"}', "line 2: `video` must be a text, got None"),
        ('{"video": "b.mp4", "question": "?"}', "line 2: there is no video .*b.mp4"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, line, message):
    (tmp_path / "a.mp4").touch()
    source = write(tmp_path / "q.jsonl", {"video": "a.mp4", "question": "?"}, line)
    with pytest.raises(ValueError, match=message):
        load_questions(source)


def test_unknown_answers_may_be_null_and_lines_end_at_line_feeds_alone(tmp_path):
    (tmp_path / "a.mp4").touch()
    source = tmp_path / "q.jsonl"
    source.write_text('{"video": "a.mp4", "question": "one\u2028two", "answer": null}\n', encoding="utf-8")
    (question,) = load_questions(source)
    assert question.answers == () and question.question == "one\u2028two"


def test_no_questions(tmp_path):
    with pytest.raises(ValueError, match="q.jsonl holds no questions"):
        load_questions(write(tmp_path / "q.jsonl"))
    with pytest.raises(ValueError, match="At least one question must be asked, got 0"):
        load_questions(None, 0)
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        load_questions(tmp_path / "none.jsonl")
    (tmp_path / "clip.mp4").write_bytes(b"\x00\xff")
    with pytest.raises(ValueError, match="clip.mp4 is no text file"):
        load_questions(tmp_path / "clip.mp4")


def test_the_shipped_questions_are_the_default():
    questions = load_questions(None, 3)
    assert len({question.type for question in questions}) == 3
    assert {question.video for question in questions} == {EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"}
    for wording in (0, -1):
        assert are_right(questions, [question.answers[wording] for question in questions]) == [True] * 3


@pytest.mark.parametrize("kind", ["parquet", "folder of parquet", "saved to disk", "splits saved to disk"])
def test_datasets_data(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.mp4").touch()
    columns = {
        "id": [1, 2, 3],
        "video": ["a.mp4"] * 3,
        "question": ["What?", "Why?", "How?"],
        "answers": [["a disc", "disc"], None, []],
        "type": ["shape", None, "motion"],
    }
    table = datasets.Dataset.from_dict(columns)
    source = tmp_path / "data"
    if kind == "parquet":
        source = tmp_path / "questions.parquet"
        table.to_parquet(source)
    elif kind == "folder of parquet":
        table.to_parquet(source / "test.parquet")
    elif kind == "saved to disk":
        table.save_to_disk(source)
    else:
        datasets.DatasetDict({"train": table.select([2]), "test": table}).save_to_disk(source)
    questions = load_questions(source, videos=tmp_path)
    assert questions == [
        VideoQuestion(tmp_path / "a.mp4", "What?", ("a disc", "disc"), "shape"),
        VideoQuestion(tmp_path / "a.mp4", "Why?"),
        VideoQuestion(tmp_path / "a.mp4", "How?", (), "motion"),
    ]
    assert load_questions(str(source), 1, tmp_path) == questions[:1]


def test_mistakes_in_datasets_data(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"video": ["b.mp4"], "question": ["?"]}).to_parquet(tmp_path / "q.parquet")
    with pytest.raises(ValueError, match="q.parquet, record 1: there is no video .*b.mp4"):
        load_questions(tmp_path / "q.parquet")
    datasets.Dataset.from_dict({"clip": ["b.mp4"], "question": ["?"]}).to_parquet(tmp_path / "q.parquet")
    with pytest.raises(ValueError, match="record 1: a question has the keys `video` and `question`"):
        load_questions(tmp_path / "q.parquet")
    with pytest.raises(ValueError, match="none.parquet' cannot be read"):
        load_questions(tmp_path / "none.parquet")


def test_videos_inside_datasets_data(tmp_path):
    datasets = pytest.importorskip("datasets")
    clip = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
    columns = {"video": [{"bytes": clip.read_bytes(), "path": "clip.mp4"}], "question": ["?"]}
    features = datasets.Features({"video": datasets.Video(decode=False), "question": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "q.parquet")
    (question,) = load_questions(tmp_path / "q.parquet")
    assert question.video == clip.read_bytes()


def test_an_address_is_taken_only_if_allowed(tmp_path):
    record = {"video": "https://example.com/a.mp4", "question": "What?"}
    source = write(tmp_path / "q.jsonl", record)
    with pytest.raises(ValueError, match="line 1: the video 'https://example.com/a.mp4' is an address.*`--allow-urls`"):
        load_questions(source)
    (question,) = load_questions(source, allow_urls=True)
    assert isinstance(question.video, AllowedAddress)
    assert question.messages()[0]["content"][0]["video"] is question.video
    with pytest.raises(ValueError, match="there is no video"):
        load_questions(write(tmp_path / "q.jsonl", record | {"video": "concat:a.mp4"}), allow_urls=True)


def made_questions() -> list[VideoQuestion]:
    return [VideoQuestion(Path("a.mp4"), "What?"), VideoQuestion(Path("a.mp4"), "Why?")]


def test_questions_of_a_function():
    assert load_questions(f"{__name__}:made_questions") == made_questions()
    assert load_questions(f"{__name__}:made_questions", 1) == made_questions()[:1]
    for name in (f"{__name__}:none", "no_such.module:none"):
        with pytest.raises(ValueError, match=f"There is no function '{name}' to take questions from"):
            load_questions(name)
    for name in ("json:loads", "time:time_ns", "builtins:dict"):
        with pytest.raises(ValueError, match=f"'{name}' must be a function without arguments that returns a list"):
            load_questions(name)


def test_a_question_as_a_conversation():
    question = VideoQuestion(Path("a.mp4"), "What?")
    user = {"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What?"}]}
    assert question.messages() == [user]
    assert question.messages("A disc.") == [user, {"role": "assistant", "content": "A disc."}]
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert VideoQuestion(frames, "?").messages()[0]["content"][0]["video"] is frames


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("The disc is red. The disc moves left. The disc disappears.", 1),
        ("the disc  moves left. the disc is red. the disc disappears", 1),
        ("the disc is red. the disc is red.", 1 / 3),
        ("the disc is red. the disc moves left. the disc disappears. the bar is red.", 3 / 4),
        ("", 0),
    ],
)
def test_the_share_of_sentences(text, share):
    question = VideoQuestion(Path("a.mp4"), "?", ("the disc is red. the disc moves left. the disc disappears.",))
    assert sentence_share(question, text) == score_answer(question, text) == pytest.approx(share)


def test_short_answers_score_all_or_nothing():
    question = VideoQuestion(Path("a.mp4"), "?", ("yes", "yes, it does."))
    assert [score_answer(question, text) for text in ("Yes", "yes, it  does", "yes. no.", "no")] == [1, 1, 0, 0]
    assert sentence_share(question, "yes. no.") == 0.5
    unknown = VideoQuestion(Path("a.mp4"), "?")
    assert score_answer(unknown, "yes") is sentence_share(unknown, "yes") is None
