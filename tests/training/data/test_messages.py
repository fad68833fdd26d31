import json

import pytest

from vidlada_hf.training.data.messages import MessageConversations
from vidlada_hf.training.data.records import RecordError
from vidlada_hf.training.data.sources import build_dataset

PARTS = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Why?"}]
IN_PARTS = {"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": "Because."}]}
BESIDE = {
    "messages": [{"role": "user", "content": "<video>\nWhy?"}, {"role": "assistant", "content": "Because."}],
    "video": "a.mp4",
}
EXPECTED = [
    {"role": "user", "content": [{"type": "video", "video": "videos/a.mp4"}, PARTS[1]]},
    {"role": "assistant", "content": [{"type": "text", "text": "Because."}]},
]


def write(folder, *records) -> str:
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    return str(folder / "a.jsonl")


@pytest.mark.parametrize("record", [IN_PARTS, BESIDE], ids=["in parts", "beside"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_local_files(tmp_path, record, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        import datasets

        every = json.loads(json.dumps(record))
        for message in every["messages"]:  # a column has one type
            if record is IN_PARTS and isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        datasets.Dataset.from_list([every, every]).to_parquet(path)
    else:
        path.write_text(json.dumps([record, record]) if suffix == "json" else f"{json.dumps(record)}\n" * 2)
    dataset = build_dataset("messages", seed=0, path=str(path), video_folder="videos")
    assert [item["messages"] for item in dataset] == [EXPECTED] * 2
    assert dataset[1]["origin"] == f"{path}, {'line' if suffix == 'jsonl' else 'record'} 2"


def test_a_column_of_videos_is_not_decoded(tmp_path):
    import datasets

    (tmp_path / "a.mp4").write_bytes(b"the table holds these too, and the name")
    record = BESIDE | {"video": str(tmp_path / "a.mp4")}
    table = datasets.Dataset.from_list([record]).cast_column("video", datasets.Video())
    table.to_parquet(tmp_path / "a.parquet")
    assert MessageConversations(str(tmp_path / "a.parquet"), video_folder=str(tmp_path)).videos == [
        str(tmp_path / "a.mp4")
    ]


def test_content_in_the_table_is_refused(tmp_path):
    """A record keeps a path alone, and what a table holds would be lost."""
    import datasets

    row = BESIDE | {"video": {"bytes": b"content", "path": "a.mp4"}}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(RecordError, match="record 1 has its video's content in the table: write it into a file"):
        MessageConversations(str(tmp_path / "a.parquet"), video_folder=str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"content")
    assert MessageConversations(str(tmp_path / "a.parquet"), video_folder=str(tmp_path)).videos == [
        str(tmp_path / "a.mp4")
    ]


def test_addresses_and_whole_paths_stay(tmp_path):
    records = [BESIDE | {"video": video} for video in ("https://a.b/c.mp4", "/x/c.mp4")]
    dataset = MessageConversations(write(tmp_path, *records), video_folder="videos")
    assert dataset.videos == ["https://a.b/c.mp4", "/x/c.mp4"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"conversation": []}, "a.jsonl, line 2 has no `messages`, only conversation: name the column"),
        ({"messages": IN_PARTS["messages"][:1]}, "a.jsonl, line 2 does not end with an answer"),
        ({"messages": BESIDE["messages"]}, "a.jsonl, line 2 has no videos where one is needed"),
        (BESIDE | {"video": 3}, "a.jsonl, line 2 has a video that is no path: '3'"),
        ({"messages": "Why?"}, "a.jsonl, line 2 holds no messages but 'Why"),
    ],
)
def test_a_bad_record_is_named(tmp_path, record, message):
    with pytest.raises(RecordError, match=message):
        MessageConversations(write(tmp_path, BESIDE, record))


def test_files_that_are_not_there(tmp_path):
    for name in ("none.jsonl", "none.parquet"):
        with pytest.raises(FileNotFoundError, match=f"There is no file .*{name}"):
            MessageConversations(str(tmp_path / name))


def test_a_broken_table_is_named(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1x")
    with pytest.raises(RecordError, match="cut.parquet is no Parquet: .*Was its download cut short"):
        MessageConversations(str(tmp_path / "cut.parquet"))


def test_an_id_is_looked_up_on_the_hub(monkeypatch):
    import datasets

    asked = []

    def load(path, name, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([BESIDE])

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = MessageConversations("someone/videos", split="test", name="short", video_folder="videos")
    assert asked == [("someone/videos", "short", "test")]
    assert dataset[0] == {"messages": EXPECTED, "origin": "someone/videos (test), record 1"}


def test_a_folder_of_several_configurations_needs_the_name_of_one(tmp_path):
    card = "---\nconfigs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card)
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(BESIDE) + "\n")
    with pytest.raises(ValueError, match=r"(?s)cannot be read \(`name`, `split`\): .*['\"]a['\"]"):
        MessageConversations(str(tmp_path))
    assert len(MessageConversations(str(tmp_path), name="b")) == 1
