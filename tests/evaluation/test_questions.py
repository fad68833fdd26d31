import json

import pytest

from vidlada_hf.evaluation.questions import judge, judge_all, load_questions


def write(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def test_a_users_own_questions(tmp_path):
    (tmp_path / "a.mp4").touch()
    record = {"video": "a.mp4", "question": "What?", "answer": "A red  Disc.", "type": "color"}
    source = write(tmp_path / "q.jsonl", record, "", {"video": "a.mp4", "question": "Why?"})
    first, second = load_questions(source, None, 8)
    assert (first.path, first.question, first.type) == (tmp_path / "a.mp4", "What?", "color")
    assert judge(first, "a red disc") and not judge(first, "a blue disc") and judge(second, "anything") is None
    assert judge_all([first, first], ["a red disc", ""]) == [True, False]
    assert judge_all([first, second], ["a red disc", ""]) is None
    assert len(load_questions(source, 1, 8)) == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = write(elsewhere / "q.jsonl", record)
    assert load_questions(moved, None, 8, tmp_path)[0].path == tmp_path / "a.mp4"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON"),
        ('["a.mp4"]', "line 2: wanted are the keys `video` and `question`"),
        ('{"video": "a.mp4"}', "line 2: wanted are the keys"),
        ('{"video": "a.mp4", "question": "?", "anwser": "x"}', "line 2: wanted are the keys.*anwser"),
        ('{"video": "a.mp4", "question": 3}', "line 2: `question` must be a text, got 3"),
        ('{"video": "b.mp4", "question": "?"}', "line 2: there is no video .*b.mp4"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, line, told):
    (tmp_path / "a.mp4").touch()
    source = write(tmp_path / "q.jsonl", {"video": "a.mp4", "question": "?"}, line)
    with pytest.raises(ValueError, match=told):
        load_questions(source, None, 8)


def test_unknown_answers_may_be_null_and_lines_end_at_line_feeds_alone(tmp_path):
    (tmp_path / "a.mp4").touch()
    source = tmp_path / "q.jsonl"
    source.write_text('{"video": "a.mp4", "question": "one\u2028two", "answer": null}\n', encoding="utf-8")
    (item,) = load_questions(source, None, 8)
    assert item.answer is None and item.question == "one\u2028two"


def test_nothing_to_ask(tmp_path):
    with pytest.raises(ValueError, match="q.jsonl holds no questions"):
        load_questions(write(tmp_path / "q.jsonl"), None, 8)
    with pytest.raises(ValueError, match="At least one question must be asked, got 0"):
        load_questions(None, 0, 8)


def test_moving_shapes_by_default():
    items = load_questions(None, 3, 8)
    assert len({item.type for item in items}) == 3
    assert judge_all(items, [item.answer for item in items]) == [True] * 3
