import json
import os
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from tests.clips import encode
from tests.llava_files import write_llava
from tests.processing.servers import content, serve
from tests.tiny_models import IMAGE_SIZE, build_tiny
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.llava import LlavaConversations
from vidlada_hf.training.data.records import RecordError
from vidlada_hf.training.data.video_dataset import (
    FrameReader,
    VideoRecords,
    count_skipped,
    seconds_of,
    with_frame_options,
)


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


@pytest.fixture
def clips(tmp_path):
    """Three files, of which the second is broken."""
    path = write_llava(tmp_path, 3)
    records = json.loads(path.read_text())
    (tmp_path / records[1]["video"]).write_bytes(b"no video")
    return path


def task(parts, path, **options) -> ConversationTask:
    made = ConversationTask(
        *parts,
        data={"source": "llava", "path": str(path), "video_folder": str(path.parent)},
        **({"processor_options": {"num_frames": 4}} | options),
    )
    made.folder = path.parent
    return made


def test_frames_read_ahead_give_the_processors_own_inputs(parts, clips):
    """By workers, as in training, and by the processor from the file's path."""
    made = task(parts, clips)
    loader = DataLoader(made.dataset(), 1, collate_fn=made.collate, num_workers=1, sampler=[2, 0])
    for number, batch in zip((2, 0), loader, strict=True):
        path = LlavaConversations(str(clips), str(clips.parent))[number]
        processor = with_frame_options(parts[1], {"num_frames": 4})[0]
        expected = processor.apply_chat_template(path["messages"], tokenize=True, return_dict=True, return_tensors="pt")
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"][None])
        assert batch["num_frames_per_video"].tolist() == [[4]]


@pytest.mark.parametrize("options", [{"resample": 0}, {"size": {"height": 96, "width": 96}}])
def test_frames_are_resized_as_the_recipe_says(parts, clips, options):
    made = task(parts, clips, processor_options={"num_frames": 2} | options)
    pixels = made.collate([made.dataset()[0]])["pixel_values_videos"]
    path = LlavaConversations(str(clips), str(clips.parent))[0]["messages"][0]["content"][0]["video"]
    expected = parts[1].video_processor(path, num_frames=2, **options)["pixel_values_videos"]
    assert torch.equal(pixels, expected[None])


def test_the_time_sentence_is_that_of_the_file(parts, clips):
    """Which needs the metadata of frames that were read before."""
    options = {"add_time_instruction": True}
    sampled = with_frame_options(parts[1], {"fps": 2})[0]
    records = LlavaConversations(str(clips), str(clips.parent))
    read = VideoRecords(records, FrameReader(sampled.video_processor), encode=dict)[0]
    assert read["processor_kwargs"]["video_metadata"][0].total_num_frames == 64
    by_path = records[0]["messages"]
    for timestamps in ("seconds", "ordinal"):
        options["timestamps"] = timestamps
        texts = [
            sampled.apply_chat_template(messages, tokenize=True, return_dict=True, processor_kwargs=options | extra)[
                "input_ids"
            ]
            for messages, extra in ((by_path, {}), (read["messages"], read["processor_kwargs"]))
        ]
        assert texts[0] == texts[1]


def test_a_bad_video_is_replaced_counted_and_reported(parts, clips):
    made = task(parts, clips)
    dataset, skipped = made.dataset(), clips.parent / "skipped.jsonl"
    assert dataset[1]["origin"] in [dataset[0]["origin"], dataset[2]["origin"]]
    assert dataset[1]["origin"] == made.dataset()[1]["origin"]  # drawn by the index alone
    assert count_skipped(skipped) == {"bad video": 1}
    assert made.report() == [f"1 records were skipped (bad video): see {skipped}."]
    line = json.loads(skipped.read_text().splitlines()[0])
    assert line["origin"].endswith("records.json, record 2") and "mp4" in line["error"]


def test_a_record_that_is_too_long_stops_the_run_or_is_left_out(parts, clips):
    """Record 2 is broken; record 3 is made longer than record 1."""
    records = json.loads(clips.read_text())
    records[2]["conversations"][1]["value"] = "red " * 50
    clips.write_text(json.dumps(records))
    longest = len(task(parts, clips).dataset()[0]["input_ids"])
    with pytest.raises(RecordError, match="record 3 takes .* tokens, more than `max_length` .*`too_long: skip`"):
        task(parts, clips, labels={"max_length": longest}).dataset()[2]
    made = task(parts, clips, labels={"max_length": longest}, too_long="skip")
    assert made.dataset()[2]["origin"].endswith("record 1") and made.dataset()[1]["origin"].endswith("record 1")
    assert [line.partition(": see")[0] for line in made.report()] == [
        "1 records were skipped (too long)",
        "1 records were skipped (bad video)",
    ]
    with pytest.raises(
        RecordError, match="100 records in a row cannot be used.*record [123] takes .* not too many frames"
    ):
        task(parts, clips, labels={"max_length": longest - 1}, too_long="skip").dataset()[0]


def test_or_it_stops_the_run_with_one_clear_error(parts, clips):
    """Raised by a worker, whose traceback would hide it."""
    made = task(parts, clips, bad_videos="stop")
    loader = DataLoader(made.dataset(), 1, collate_fn=made.collate, num_workers=1, sampler=[1])
    with pytest.raises(RecordError, match=r"^[^\n]*records.json, record 2: [^\n]*`bad_videos: skip` leaves it out.\)$"):
        list(loader)
    assert made.report() == []


def test_no_record_stands_in_for_a_whole_folder_of_bad_ones(parts, tmp_path):
    """And each bad one is read once."""
    made = task(parts, write_llava(tmp_path, 12))
    for file in sorted(tmp_path.glob("*.mp4"))[:9]:
        file.write_bytes(b"no video")
    dataset = made.dataset()
    shown = Counter(dataset[i]["origin"] for i in range(12))
    assert len(shown) == 3 and max(shown.values()) < 9
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == len(dataset.unusable) == 9


def test_a_missing_video_stops_the_run_before_it_starts(parts, clips):
    next(clips.parent.glob("*.mp4")).unlink()
    data = {"source": "llava", "path": str(clips), "video_folder": str(clips.parent)}
    with pytest.raises(RecordError, match="record [13]: there is no video .*mp4. Is `video_folder` right"):
        ConversationTask.check({"data": data, "bad_videos": "stop"})
    ConversationTask.check({"data": data})


def test_an_address_is_fetched_only_if_the_recipe_allows_it(parts, clips):
    records = json.loads(clips.read_text())
    with serve({"/a.mp4": content((clips.parent / records[0]["video"]).read_bytes())}) as host:
        records[0]["video"] = f"{host}/a.mp4"
        clips.write_text(json.dumps(records[:1]))
        data = {"source": "llava", "path": str(clips), "video_folder": str(clips.parent)}
        with pytest.raises(RecordError, match=r"record 1: the video http.* is an address.*allow_urls: true"):
            ConversationTask.check({"data": data})
        ConversationTask.check({"data": data, "processor_options": {"allow_urls": True}})
        sampling = {"num_frames": 4, "allow_urls": True}
        with pytest.raises(RecordError, match="`allow_private_urls=True`"):
            task(parts, clips, processor_options=sampling, bad_videos="stop").dataset()[0]
        made = task(parts, clips, processor_options=sampling | {"allow_private_urls": True}, bad_videos="stop")
        assert len(made.dataset()[0]["pixel_values_videos"]) == 4
        with pytest.raises(RecordError, match="allow_urls=True"):  # whatever else let it through
            task(parts, clips, bad_videos="stop").dataset()[0]


def test_seconds_of_what_is_no_plain_file(tmp_path):
    clip = encode(tmp_path / "clip.avi", "mpeg4", frames=20, fps=10, bf="0")
    assert seconds_of(str(clip)) == 2
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{clip}\n#EXT-X-ENDLIST\n")
    (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ("list.m3u8", "script.mp4", "pipe.mp4", ".", "missing.mp4")
    assert [seconds_of(str(tmp_path / name)) for name in names] == [0] * 5
    assert seconds_of("http://127.0.0.1:1/a.mp4") == seconds_of("concat:a.mp4") == 0


def test_a_wrong_folder_is_found_out(parts, clips):
    for file in clips.parent.glob("*.mp4"):
        file.unlink()
    with pytest.raises(RecordError, match="100 records in a row cannot be used.* Is `video_folder` right"):
        task(parts, clips).dataset()[0]


def test_frames_are_kept_on_disk_until_file_or_settings_change(parts, clips, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    file = next(clips.parent.glob("*color*.mp4"))
    first = FrameReader(parts[1].video_processor, cache)
    frames, metadata = first(str(file))
    assert frames.dtype == torch.uint8 and frames.shape == (4, 3, IMAGE_SIZE, IMAGE_SIZE)  # 4 seconds at 1 fps
    assert len(list(cache.iterdir())) == 1

    monkeypatch.setattr(FrameReader, "_read", lambda *_: pytest.fail("read again"))
    again, known = FrameReader(parts[1].video_processor, cache)(str(file))
    assert torch.equal(again, frames) and known.frames_indices == metadata.frames_indices and known.fps == metadata.fps
    monkeypatch.undo()

    kept = next(cache.iterdir())
    kept.write_bytes(b"x")  # as after a full disk
    assert torch.equal(first(str(file))[0], frames) and kept.stat().st_size > frames.numel()

    other = with_frame_options(parts[1], {"num_frames": 2})[0].video_processor
    assert len(FrameReader(other, cache)(str(file))[0]) == 2
    os.utime(file, (0, 0))
    first(str(file))
    assert len(list(cache.iterdir())) == 3
    assert all(path.suffix == ".safetensors" for path in cache.iterdir())
    with pytest.raises(VideoReadingError):
        first(str(tmp_path / "none.mp4"))


def test_they_can_be_gone_through_once(parts, clips):
    assert len(list(task(parts, clips).dataset())) == 3


def test_lengths_follow_the_texts_where_all_have_as_many_frames(parts, clips):
    lengths = task(parts, clips).dataset().lengths
    assert len(lengths) == 3 and all(10 < length < 100 for length in lengths)


def test_lengths_count_the_frames_that_a_rate_samples(parts, clips):
    """The second file is broken, and has none."""
    records = json.loads(clips.read_text())
    encode(clips.parent / records[2]["video"], frames=30, fps=1)
    given = task(parts, clips, processor_options={"fps": 0.5, "max_frames": 5})
    texts, lengths = task(parts, clips).dataset().lengths, given.dataset().lengths
    per_frame = parts[0].model.tokens_per_frame
    frames = [(longer - text) / per_frame for longer, text in zip(lengths, texts, strict=True)]
    assert frames == [2, 0, 5]  # of 4 and of 30 seconds
