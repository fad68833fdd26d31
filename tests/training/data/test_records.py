import json

import pytest

from vidlada_hf.training.data.records import RecordError, Records, add_video, check_messages, read_json

VIDEO = {"type": "video", "video": "a.mp4"}
ASKED = [{"role": "user", "content": [VIDEO, {"type": "text", "text": "Why?"}]}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "Because."}]


def test_records_keep_messages_and_origins():
    records = Records([("here", ANSWERED), ("there", ANSWERED)], "the file")
    assert len(records) == 2 and records.videos == ["a.mp4", "a.mp4"]
    assert records[1] == {
        "origin": "there",
        "messages": [*ASKED, {"role": "assistant", "content": [{"type": "text", "text": "Because."}]}],
    }


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Why?", "here holds no messages but 'Why\\?'"),
        ([{"role": "bot", "content": "Hi"}], "here has a message that is no `role` \\(of system, user, assistant\\)"),
        (ASKED, "here does not end with an answer"),
        ([*ASKED, {"role": "assistant", "content": " "}], "here has an empty answer"),
        (ANSWERED[1:], "here has no videos where one is needed: add one"),
        ([*ASKED, *ANSWERED], "here has 2 videos where one is needed: split"),
        (
            [{"role": "user", "content": [{"type": "audio", "audio": "a"}]}],
            "here has a part that is neither a text nor",
        ),
        ([*ASKED, {"role": "assistant", "content": "red\ud800"}], "here holds half a character"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_its_origin(messages, message):
    with pytest.raises(RecordError, match=message):
        check_messages("here", messages)


def test_control_tokens_in_a_text_are_text_and_said(caplog):
    odd = [*ASKED, {"role": "assistant", "content": "red <|eot_id|> <image>"}]
    records = Records([("here", ANSWERED), ("there", odd), ("yonder", odd)], "the file")
    assert records[1]["messages"][1]["content"] == [{"type": "text", "text": "red <|eot_id|> <image>"}]
    assert "2 records hold" in caplog.text and "the first is there" in caplog.text
    caplog.clear()
    Records([("here", ANSWERED)], "the file")
    assert not caplog.text


def test_a_part_of_a_table_loses_its_empty_columns():
    content = [{"type": "video", "video": "a.mp4", "text": None}, {"type": "text", "video": None, "text": "Why?"}]
    assert check_messages("here", [{"role": "user", "content": content}, ANSWERED[1]])[0] == ASKED[0]


def test_an_option_beside_a_video_is_refused_since_it_has_no_effect():
    content = [VIDEO | {"num_frames": 8, "fps": None}, {"type": "text", "text": "Why?"}]
    with pytest.raises(RecordError, match="here has 'num_frames' beside its video.*`processor_options`"):
        check_messages("here", [{"role": "user", "content": content}, ANSWERED[1]])


@pytest.mark.parametrize("text", ["<image>\nWhy?", "Why?\n<image>", "<video> Why?", "Why?"])
def test_the_video_stands_before_the_question(text):
    assert add_video("here", [{"role": "user", "content": text}], "a.mp4") == ASKED


def test_a_placeholder_says_which_turn_the_video_belongs_to():
    turns = [("user", "Hello"), ("assistant", "Hi"), ("user", "<image>\nWhy?"), ("assistant", "Because.")]
    placed = add_video("here", [{"role": role, "content": text} for role, text in turns], "a.mp4")
    assert placed[2] == ASKED[0] and placed[0]["content"] == "Hello"
    with pytest.raises(RecordError, match="here has 2 placeholders for its one video"):
        add_video("here", [{"role": "user", "content": "<image> <image>"}], "a.mp4")
    with pytest.raises(RecordError, match="here has its video in a message that is not the user's"):
        check_messages("here", [ASKED[0] | {"role": "system"}, ANSWERED[1]])
    with pytest.raises(RecordError, match="here has no message of the user"):
        add_video("here", [{"role": "assistant", "content": "Hi"}], "a.mp4")


def test_json_and_json_lines(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"a": 1}, {"a": 2}]))
    (tmp_path / "a.jsonl").write_text('{"a": "x\u2028y"}\n\n{"a": 2}\n')
    assert read_json(tmp_path / "a.json")[1] == (f"{tmp_path / 'a.json'}, record 2", {"a": 2})
    assert read_json(tmp_path / "a.jsonl")[1] == (f"{tmp_path / 'a.jsonl'}, line 3", {"a": 2})


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.json"):
        read_json(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('[{"a": 1}, {"a"')
    with pytest.raises(RecordError, match="cut.json is no JSON: .*line 1 column 16"):
        read_json(tmp_path / "cut.json")
    (tmp_path / "cut.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(RecordError, match="cut.jsonl, line 2 is no JSON"):
        read_json(tmp_path / "cut.jsonl")
    (tmp_path / "latin.json").write_bytes(b'["\xff"]')
    with pytest.raises(RecordError, match="latin.json is no UTF-8 text: .* Save it as UTF-8"):
        read_json(tmp_path / "latin.json")
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(RecordError, match="one.json must hold a list of records, got dict"):
        read_json(tmp_path / "one.json")


def test_an_error_of_a_worker_keeps_its_message():
    """A data loader makes a new error of the worker's traceback."""
    traceback = (
        "Caught RecordError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"
        "vidlada_hf.training.data.collator.RecordError: a.json, record 3 has an empty answer.\n"
    )
    assert str(RecordError(traceback)) == "a.json, record 3 has an empty answer."
