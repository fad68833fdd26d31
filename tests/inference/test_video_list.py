import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.inference.video_list import Process, Request, list_requests, stable_hash


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos" / "more").mkdir(parents=True)
    for name in ("b.mp4", "more/a.MKV", "notes.txt", ".hidden.mp4"):
        (tmp_path / "videos" / name).touch()
    return tmp_path


def write(path, *records):
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def test_a_folder_and_a_list_of_paths_say_the_same(folder):
    videos = folder / "videos"
    expected = [
        Request(name, str(videos / name), question)
        for name in ("b.mp4", "more/a.MKV")
        for question in ("What?", "Who?")
    ]
    assert list_requests(videos, ["What?", "Who?"]) == expected
    paths = write(folder / "list.txt", "b.mp4", "", "more/a.MKV")
    assert list_requests(paths, ["What?", "Who?"], videos) == expected
    paths.write_bytes(b"\xef\xbb\xbfb.mp4\r\nmore/a.MKV\r\n")  # as a program of Windows writes it
    assert list_requests(paths, ["What?", "Who?", "What?"], videos) == expected
    with pytest.raises(ValueError, match="A question is empty"):
        list_requests(paths, ["What?", " "], videos)


def test_records_have_questions_and_ids_of_their_own(folder):
    records = write(
        folder / "list.jsonl",
        {"video": "videos/b.mp4", "question": "Own?", "answer": "a file of questions for bench", "type": "x"},
        {"video": "videos/b.mp4"},
        {"video": "gone.mp4", "id": "7"},
    )
    asked = [(each.id, each.question) for each in list_requests(records, ["General?"])]
    assert asked == [("videos/b.mp4", "Own?"), ("videos/b.mp4", "General?"), ("7", "General?")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "list.jsonl, line 2: no JSON"),
        ('["a.mp4"]', "line 2: a record has the keys `video` .* got list"),
        ('{"video": "a.mp4", "quesiton": "?"}', "got .'quesiton', 'video'."),
        ('{"video": 3}', "`video` must be a text that is not empty, got 3"),
        ('{"video": "a.mp4", "question": " "}', "`question` must be a text that is not empty"),
        ('{"video": "a.mp4"}', "line 2: what is asked about 'a.mp4'"),
        ('{"video": "http://x/a.mp4", "question": "?"}', "line 2: the video 'http://x/a.mp4' is an address"),
        ('{"video": "videos/b.mp4", "question": "Own?"}', "line 2: 'Own.' is asked about 'videos/b.mp4' twice"),
    ],
)
def test_mistakes_of_a_list_are_named(folder, line, problem):
    records = write(folder / "list.jsonl", {"video": "videos/b.mp4", "question": "Own?"}, line)
    with pytest.raises(ValueError, match=problem):
        list_requests(records)


def test_lists_without_videos_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such is neither a folder of videos nor a list"):
        list_requests(tmp_path / "no-such", ["What?"])
    with pytest.raises(ValueError, match="holds no videos"):
        list_requests(write(folder / "empty.txt"), ["What?"])
    with pytest.raises(FileNotFoundError, match="None of the videos of .* is there, .*b.mp4 first: .*--videos"):
        list_requests(write(folder / "list.txt", "b.mp4"), ["What?"])
    (address,) = list_requests(write(folder / "list.txt", "http://x/a.mp4"), ["What?"], allow_urls=True)
    assert address.video == "http://x/a.mp4"


def test_torchrun_says_which_process_this_is():
    assert Process.current({}) == Process(0, 1)
    assert Process.current({"RANK": "2", "WORLD_SIZE": "3"}) == Process(2, 3)
    for environment in ({"RANK": "3", "WORLD_SIZE": "3"}, {"RANK": "one"}):
        with pytest.raises(ValueError, match="`RANK`"):
            Process.current(environment)


@given(ids=st.lists(st.text(min_size=1), unique=True), world=st.integers(1, 9))
def test_processes_share_a_list_without_gaps_or_doubles(ids, world):
    requests = [Request(id, "v", question) for id in ids for question in ("What?", "Who?")]
    shares = [Process(rank, world).share(requests) for rank in range(world)]
    assert sorted(each.key for share in shares for each in share) == sorted(each.key for each in requests)
    assert all(len({each.id for each in share}) * 2 == len(share) for share in shares)  # an id is in one process


def test_shares_are_alike_and_the_same_everywhere():
    requests = [Request(f"{number}.mp4", "v", "What?") for number in range(3000)]
    assert all(900 < len(Process(rank, 3).share(requests)) < 1100 for rank in range(3))
    code = "from vidlada_hf.inference.video_list import stable_hash; print(stable_hash('ä.mp4'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == stable_hash("ä.mp4")
