import json
import shutil
import time

import pytest
import torch

from vidlada_hf import MARSCache, MARSCacheConfig, VidLaDAGenerationConfig
from vidlada_hf.evaluation.random_model import TINY_TEXT
from vidlada_hf.evaluation.record import Record

from .conftest import load, load_module, run

CPU = torch.device("cpu")


@pytest.mark.slow
def test_speed_of_a_gpu_on_whatever_is_there(results):
    data = load(results, "mars_speed_gpu")
    groups = data["groups"]
    assert data["missing"] == [] and list(data["finished"]) == list(groups)
    assert all(len(entry["rounds"]) == 3 for group in groups.values() for entry in group.values())
    for name in ("mars", "twin", "full recompute", "strategies"):
        for entry in groups[name].values():
            assert entry["median"]["seconds"] > 0 and entry["floor_seconds"] > 0 and entry["tokens"] in (8, 16)
    assert len(groups["mars"]) == 12 and groups["mars"]["compiled, 2 steps, batch 2"]["tokens"] == 16
    assert all(entry["steps_run"] == 2 for entry in groups["full recompute"].values())
    kinds = {"first step": 1, "quiet step": 4, "text refresh": 2, "visual refresh, 2 layers": 1}
    assert all(entry["steps"] == kinds and entry["kept_bytes"] > 0 for entry in groups["steps"].values())
    parts = groups["video file"]["answer"]["median"]
    assert {"reading", "resizing", "upload", "tower", "denoising: first step", "total"} <= parts.keys()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(results, tmp_path):
    path = tmp_path / "mars_speed_gpu.json"
    run("mars_speed_gpu", "--quick", "--budget", 0, "--output", path)
    groups = list(load(results, "mars_speed_gpu")["groups"])
    assert load(tmp_path, "mars_speed_gpu")["missing"] == groups

    shutil.copy(results / "mars_speed_gpu.json", path)
    before = load(tmp_path, "mars_speed_gpu")
    lost = json.loads(json.dumps(before))
    del lost["finished"]["twin"]
    lost["groups"]["twin"]["own generate"]["rounds"].pop()
    path.write_text(json.dumps(lost))
    run("mars_speed_gpu", "--quick", "--output", path)
    after = load(tmp_path, "mars_speed_gpu")
    measured = [data["groups"]["twin"].pop("own generate")["rounds"] for data in (before, after)]
    assert measured[0][:2] == measured[1][:2] and len(measured[1]) == 3
    assert before["groups"] == after["groups"] and after["missing"] == []


def test_a_set_up_that_fails_is_noted_and_the_others_are_measured(tmp_path):
    module = load_module("gpu_session")
    record = Record(tmp_path / "results.json", {})
    record.data |= {"groups": {}, "finished": {}}
    session = module.Session(module.QUICK, None, 2, record, None, time.perf_counter())
    runs = {"bad": lambda: 1 / 0, "good": lambda: {"seconds": 1.0}}
    session.time_in_turns("group", runs)
    session.finish("group")
    stored = load(tmp_path, "results")
    assert stored["groups"]["group"]["good"] == {"rounds": [{"seconds": 1.0}] * 2, "median": {"seconds": 1.0}}
    assert "ZeroDivisionError" in stored["groups"]["group"]["bad"]["error"] and not session.is_finished("group")

    session.time_in_turns("group", runs | {"bad": runs["good"]})
    session.finish("group")
    assert "error" not in session.results("group")["bad"] and session.is_finished("group")


@torch.no_grad()
def test_the_captured_decode_gives_the_tokens_of_llamas_own_generate():
    twin = load_module("gpu_twin")
    llama = twin.build_llama(TINY_TEXT, CPU, torch.float32)
    for parameter in llama.parameters():  # larger weights, so that tokens depend on what came before
        parameter.mul_(10 if parameter.ndim == 2 else 1)
    prompt = torch.randint(1, 64, (1, 50), generator=torch.Generator().manual_seed(0))
    expected = twin.OwnGenerate(llama, prompt, 20).run()
    captured = twin.CapturedDecode(llama, prompt, 20)
    assert expected.unique().numel() > 5
    for _ in range(2):  # a second answer finds nothing of the first
        assert torch.equal(captured.run(), expected)


def test_kinds_of_steps_follow_the_schedule():
    steps = VidLaDAGenerationConfig(max_new_tokens=128, max_denoising_steps=128).planned_steps()
    kinds = load_module("gpu_steps").kinds_of_steps(MARSCache(), steps, 32)
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    visual = {f"visual refresh, {layers} layers": count for layers, count in {8: 4, 16: 2, 24: 1}.items()}
    assert counts == {"first step": 1, "quiet step": 112, "text refresh": 8} | visual
    never = MARSCache(MARSCacheConfig(visual_intervals=(None,), text_intervals=(None,)))
    assert load_module("gpu_steps").kinds_of_steps(never, steps, 32)[32] == "first of a block"


def test_without_a_gpu_its_benchmark_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="torch sees none"):
        run("mars_speed_gpu")
