import pytest

from vidlada_hf.evaluation.record import Record


def test_a_record_goes_on_only_with_the_same_setup(tmp_path):
    path = tmp_path / "new" / "results.json"
    record = Record(path, {"frames": 8, "blocks": (1, 2)})
    record.data["results"] = [1]
    record.save()
    assert Record(path, {"frames": 8, "blocks": (1, 2)}).data["results"] == [1]
    with pytest.raises(ValueError, match="results.json was made with `frames` 8, and now it is 16: pass another"):
        Record(path, {"frames": 16})
    path.write_text("{")
    with pytest.raises(ValueError, match="results.json is no file of results"):
        Record(path, {"frames": 8})


def test_a_path_where_nothing_can_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        Record(tmp_path, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Nothing can be written to .*file: name another file"):
        Record(tmp_path / "file" / "results.json", {})
