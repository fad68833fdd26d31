import pytest
import torch

from vidlada_hf.evaluation.timing import Record, Times, alternate, clock, describe_machine, measure_machine


def contenders(order, **seconds):
    def make(name):
        def run():
            order.append(name)
            return seconds[name]

        return run

    return {name: make(name) for name in seconds}


def test_contenders_take_turns():
    order, done, saved = [], {}, []
    alternate(contenders(order, exact=8.0, fast=2.0), "exact", 3, done, lambda: saved.append(len(order)))
    assert order == ["exact", "fast"] * 3 and saved == [2, 4, 6]
    assert (done["fast"].median, done["fast"].speedup, done["exact"].speedup) == (2, 4, 1)


def test_what_is_done_is_not_timed_again_and_a_newcomer_meets_the_reference():
    order = []
    done = {"exact": Times([8.0] * 2, [8.0] * 2), "fast": Times([2.0], [8.0])}
    alternate(contenders(order, exact=6.0, fast=3.0, late=1.0), "exact", 2, done)
    assert order == ["exact", "fast", "late", "exact", "late"]
    assert done["exact"].seconds == [8, 8]
    assert done["fast"] == Times([2.0, 3.0], [8.0, 6.0]) and done["late"].speedup == 6
    order.clear()
    alternate(contenders(order, exact=6.0, fast=3.0, late=1.0), "exact", 2, done)
    assert order == []


def test_the_speedup_is_taken_within_rounds():
    """A machine that slows down in the second round does not favor either."""
    assert Times([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]).speedup == 2


def test_the_machine_is_measured_and_named():
    cpu = torch.device("cpu")
    machine = measure_machine(cpu, torch.float32, quick=True)
    assert machine.flops > 1e6 and machine.bytes > 1e6
    assert describe_machine(cpu)["torch"] == torch.__version__ and describe_machine(cpu)["device"]
    assert 0 < clock(lambda: sum(range(1000)), cpu) < 10


def test_a_record_goes_on_only_with_the_same_setup(tmp_path):
    path = tmp_path / "new" / "results.json"
    record = Record(path, {"frames": 8, "blocks": (1, 2)})
    record.data["found"] = [1]
    record.save()
    assert Record(path, {"frames": 8, "blocks": (1, 2)}).data["found"] == [1]
    with pytest.raises(ValueError, match="results.json was measured with `frames` 8, and now it is 16: pass another"):
        Record(path, {"frames": 16})
    path.write_text("{")
    with pytest.raises(ValueError, match="results.json is no file of results"):
        Record(path, {"frames": 8})
