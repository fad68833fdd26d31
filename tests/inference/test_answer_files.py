"""Answers of several processes: nothing lost, nothing doubled, whoever was killed or merges when."""

import json
import shutil
import threading

import pytest

from vidlada_hf.inference.answer_files import AnswerFiles, write_lines

SETUP = {"model": "a"}


def line(id, answer="yes", error=None):
    return {"id": str(id), "video": f"{id}.mp4", "question": "?", "answer": answer, "error": error}


def lines_of(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_parts_are_merged_in_the_order_of_the_list(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", SETUP)
    for rank, ids in enumerate(((3, 1), (2,), ("left",))):
        with files.open_part(rank, 3) as part:
            write_lines(part, [line(id) for id in ids])
    order = [(str(id), "?") for id in (1, 2, 3)]
    assert files.merge(order) == files.read()
    assert [each["id"] for each in lines_of(files.path)] == ["1", "2", "3", "left"]
    for part in files.parts.glob("*.jsonl"):  # the file alone is enough
        part.unlink()
    assert len(AnswerFiles(files.path, SETUP).read()) == 4


def test_a_line_that_was_cut_off_is_due_again(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", SETUP)
    with files.open_part(0, 1) as part:
        write_lines(part, [line(1)])
        part.write(json.dumps(line(2))[:-9])
    assert list(files.read()) == [("1", "?")]
    with files.open_part(0, 1) as part:  # a file of its own: nothing is written behind half a line
        write_lines(part, [line(2)])
    assert list(files.merge([])) == [("1", "?"), ("2", "?")] or set(files.read()) == {("1", "?"), ("2", "?")}
    assert len(lines_of(files.path)) == 2


def test_an_answer_takes_the_place_of_an_error_and_is_not_doubled(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", SETUP)
    failed, right = line(1, None, "damaged"), line(1)
    for each in (failed, right, failed, right):
        with files.open_part(0, 1) as part:
            write_lines(part, [each])
        files.merge([])
    assert lines_of(files.path) == [right]


def test_of_several_errors_the_last_one_is_kept(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", SETUP)
    for number in range(5):
        with files.open_part(0, 1) as part:
            write_lines(part, [line(1, None, f"error {number}")])
        (newest,) = files.merge([]).values()
        assert newest["error"] == f"error {number}" and lines_of(files.path) == [newest]


def test_whoever_merges_last_has_it_all(tmp_path):
    """Processes end at any time, and each makes the file of what it finds."""
    files = [AnswerFiles(tmp_path / "out.jsonl", SETUP) for _ in range(4)]

    def work(rank):
        for number in range(5):
            with files[rank].open_part(rank, 4) as part:
                write_lines(part, [line(f"{rank}-{number}")])
            files[rank].merge([])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(files[0].path)) == 20
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_other_settings_and_other_files_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    AnswerFiles(path, {"model": "wrong"})  # nothing was answered, so nothing is kept of it
    files = AnswerFiles(path, SETUP)
    assert files.merge([]) == {} and not path.exists()
    with files.open_part(0, 1) as part:
        write_lines(part, [line(1)])
    with pytest.raises(ValueError, match="now it is 'b': .* delete .*out.jsonl and .*out.jsonl.parts"):
        AnswerFiles(path, {"model": "b"})
    (tmp_path / "notes.jsonl").write_text('{"video": "a.mp4"}\n')
    with pytest.raises(ValueError, match="notes.jsonl, line 1, is no answer: name another file"):
        AnswerFiles(tmp_path / "notes.jsonl", SETUP)


def test_places_where_nothing_can_be_written_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        AnswerFiles(tmp_path, SETUP)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Nothing can be written to .*file: name another file"):
        AnswerFiles(tmp_path / "file" / "out.jsonl", SETUP)
    AnswerFiles(tmp_path / "not" / "yet" / "out.jsonl", SETUP)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_that_are_no_text_are_kept(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", SETUP)
    with files.open_part(0, 1) as part:
        write_lines(part, [line("ä"), line("\udce4")])
    assert {id for id, _ in files.merge([])} == {"ä", "\udce4"}
    assert "ä" in files.path.read_text()


def test_answers_whose_settings_are_lost_are_not_gone_on_with(tmp_path):
    files = AnswerFiles(tmp_path / "out.jsonl", {"frames": 8})
    with files.open_part(0, 1) as part:
        write_lines(part, [line("a")])
    files.merge([("a", "?")])
    shutil.rmtree(files.parts)
    with pytest.raises(ValueError, match="out.jsonl is there, but .*settings.json.* is not: name another file"):
        AnswerFiles(tmp_path / "out.jsonl", {"frames": 4})
