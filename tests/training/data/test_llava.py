import json

import pytest

from vidlada_hf.training.data.llava import LlavaConversations, sample_records
from vidlada_hf.training.data.records import RecordError
from vidlada_hf.training.data.sources import build_dataset


def record(number: int = 0, **changes) -> dict:
    turns = [{"from": "human", "value": f"<image>\nQuestion {number}?"}, {"from": "gpt", "value": "Yes."}]
    return {"id": number, "video": f"{number}.mp4", "data_source": "x", "conversations": turns} | changes


def write(folder, *records) -> str:
    (folder / "a.json").write_text(json.dumps(records))
    return str(folder / "a.json")


def questions(dataset) -> list[str]:
    return [item["messages"][0]["content"][1]["text"] for item in dataset]


def test_a_record_becomes_a_conversation_about_its_video(tmp_path):
    dataset = build_dataset("llava", seed=0, path=write(tmp_path, record(7)), video_folder="videos")
    assert dataset[0]["messages"] == [
        {
            "role": "user",
            "content": [{"type": "video", "video": "videos/7.mp4"}, {"type": "text", "text": "Question 7?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]


def test_a_list_says_how_much_of_each_file(tmp_path):
    write(tmp_path, *map(record, range(4)))
    lines = "\n".join(json.dumps(record(i)) for i in range(10, 15))
    (tmp_path / "b.JSONL").write_text(lines, encoding="utf-8-sig")  # as some editors write it
    (tmp_path / "list.yaml").write_text(
        "datasets:\n  - json_path: a.json\n    sampling_strategy: first:2\n"
        "  - json_path: b.JSONL\n    sampling_strategy: end:1\n    video_folder: other\n"
    )
    dataset = LlavaConversations(str(tmp_path / "list.yaml"), video_folder="videos")
    assert questions(dataset) == ["Question 0?", "Question 1?", "Question 14?"]
    assert dataset.videos == ["videos/0.mp4", "videos/1.mp4", f"{tmp_path}/other/14.mp4"]  # the list's are its own


def test_strategies():
    records = list(range(10))
    assert sample_records(records, "all", 0, "x") == records
    assert sample_records(records, "first:25%", 0, "x") == [0, 1, 2]  # rounded up, as in the official code
    assert sample_records(records, "end:2", 0, "x") == [8, 9] and sample_records(records, "end:0", 0, "x") == []
    assert sample_records(records, "first:99", 0, "x") == records
    drawn = sample_records(records, "random:50%", 1, "x")
    assert len(set(drawn)) == 5 and drawn == sample_records(records, "random:5", 1, "x") != sample_records(
        records, "random:5", 2, "x"
    )
    for wrong in ("some", "first", "first:-1", "first:1.5", "random:x%"):
        with pytest.raises(ValueError, match=f"Unknown sampling strategy '{wrong}' in list.yaml"):
            sample_records(records, wrong, 0, "list.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": None}, "a.json, record 2 has no `video`: add its path"),
        ({"conversations": None}, "a.json, record 2 has no list `conversations`"),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, "a.json, record 2 has a turn that is no `from`"),
        ({"conversations": [{"from": ["gpt"], "value": "Hi"}]}, "a.json, record 2 has a turn that is no `from`"),
        ({"conversations": record()["conversations"][:1]}, "a.json, record 2 does not end with an answer"),
        (
            {"conversations": [*record()["conversations"][:1], {"from": "gpt", "value": ""}]},
            "a.json, record 2 has an empty answer",
        ),
    ],
)
def test_a_bad_record_is_named(tmp_path, changes, message):
    with pytest.raises(RecordError, match=message):
        LlavaConversations(write(tmp_path, record(), record(1, **changes)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets:\n  - json_pth: a.json\n", "Entry 1 of .*list.yaml has no `json_path`"),
        ("datasets:\n  - json_path: a.json\n    sampling: all\n", "Unknown key `sampling` in entry 1 of .*list.yaml"),
        ("datasets:\n  - json_path: 5\n", "`json_path` in entry 1 of .*list.yaml must be a path, got 5"),
        ("datasets:\n  - {json_path: a.json, sampling_strategy: 'random:x%'}\n", "strategy 'random:x%' in entry 1 of"),
        ("- a.json\n", "list.yaml must hold `datasets:`"),
        ("datasets: [", "list.yaml is no YAML"),
        ("datasets:\n  - json_path: none.json\n", "There is no file .*none.json"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, text, message):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        LlavaConversations(str(tmp_path / "list.yaml"))


def test_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a.json holds no records"):
        LlavaConversations(write(tmp_path))
    with pytest.raises(FileNotFoundError, match="There is no list of datasets"):
        LlavaConversations(str(tmp_path / "none.yaml"))
