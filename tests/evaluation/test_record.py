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
