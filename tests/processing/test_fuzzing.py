"""Damaged files end in one error or in right frames: 300 of them here, 5,000 among the nightly tests."""

import numpy as np
import pytest

from .fuzzing import FRAMES, SEEDS, damage, fuzz, judge, read_four, seed_file, whole


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(tmp_path, name):
    faults = []
    outcomes = fuzz(name, 300 // len(SEEDS), tmp_path, faults.append)
    assert not faults
    assert outcomes["refused"] and outcomes.total() == 300 // len(SEEDS)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SEEDS)
def test_many_damaged_files(tmp_path, name):
    faults = []
    fuzz(name, -(-5000 // len(SEEDS)), tmp_path, faults.append)
    assert not faults


def test_the_judge_sees_faults(tmp_path, monkeypatch):
    """Whole files are read; another exception, picture or number of frames is a fault."""
    name = "h264.mkv"
    assert len(whole(name)) == FRAMES
    assert judge(name, seed_file(name)) == "read" and judge(name, b"no video") == "refused"
    frames, asked = read_four(seed_file(name))
    for result, fault in (
        ((255 - frames, asked), "a picture that no plain decode shows"),
        ((frames[:3], asked), "uint8 (3, 64, 80, 3) for 4 frames"),
        ((frames / 255, asked), "float64 (4, 64, 80, 3) for 4 frames"),
    ):
        monkeypatch.setattr("tests.processing.fuzzing.read_four", lambda source, result=result: result)
        assert judge(name, seed_file(name)) == fault
    monkeypatch.setattr("tests.processing.fuzzing.read_four", lambda source: [][0])
    assert judge(name, seed_file(name), tmp_path / name) == "IndexError: list index out of range"


def test_damage_depends_on_the_seed_alone():
    data = bytes(range(256)) * 10
    mutants = [[damage(data, np.random.default_rng(seed)) for seed in range(30)] for _ in range(2)]
    assert mutants[0] == mutants[1] and len(set(mutants[0])) == 30 and data not in mutants[0]
