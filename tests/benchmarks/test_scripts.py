"""Each script of benchmarks/ at its smallest, so that none can rot, and the README tables made from what they write."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from vidlada_hf.modeling.objective_vidlada import draw_mask_probabilities

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: object):
    """The script's module, after its `main`."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A folder with what the scripts wrote."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("mars_speed_cpu", "mars_speed_gpu", "mars_scaling"):
        run(name, "--quick", "--output", folder / f"{name}.json", *(["--threads", 1] if "gpu" not in name else []))
    run("mars_accuracy", "whole", "--quick", "--output", folder / "mars_accuracy.json", "--work", folder / "whole")
    files = ("--output", folder / "mars_parts.json", "--work", folder / "parts")
    run("mars_accuracy", "parts", "--quick", *files, "--only", "no anchors", "interval")
    return folder


def load(results: Path, name: str) -> dict:
    return json.loads((results / f"{name}.json").read_text())


def test_speed_on_a_cpu(results):
    data = load(results, "mars_speed_cpu")
    exact, mars = (data["contenders"][name] for name in ("exact", "mars"))
    assert exact["counts"]["steps_run"] == 2 and exact["counts"]["steps"] == 8 and "2 of 8" in data["setup"]["exact"]
    assert exact["counts"]["flops"] == pytest.approx(exact["counts"]["flops_planned"], rel=0.01)
    assert mars["counts"]["flops"] == pytest.approx(mars["counts"]["flops_planned"], rel=0.01)
    assert mars["summary"]["flops_saving"] > 1 and len(mars["seconds"]) == 2
    assert len(data["checks"]) == 4 and all(ratio > 0 for ratio in data["checks"].values())


def test_speed_of_a_gpu_on_whatever_is_there(results):
    found = load(results, "mars_speed_gpu")["contenders"]
    assert {"full recompute", "official style", "mars", "interval", "autoregressive Llama"} <= found.keys()
    assert all(entry["summary"]["floor_seconds"] > 0 and entry["summary"]["seconds"] > 0 for entry in found.values())
    llama = found["autoregressive Llama"]["counts"]
    assert llama["tokens"] == 8 and 0 < llama["flops"] < found["full recompute"]["counts"]["flops"]


def test_scaling_is_drawn(results):
    assert list(load(results, "mars_scaling")["by_frames"]) == ["3", "6"]
    assert (results / "mars_scaling.png").stat().st_size > 5000


def test_accuracy_is_compared_question_by_question(results):
    data = load(results, "mars_parts")
    exact, mars = (data["contenders"][name] for name in ("exact", "mars"))
    assert exact["accuracy"]["all"]["questions"] == 4 and exact["accuracy"]["all"]["lost"] == 0
    assert exact["agreement"] == {"tokens": 1, "answers": 1} and mars["flops_saving"] > 1
    assert list(data["contenders"]) == ["exact", "mars", "no anchors", "interval"]
    assert "points lost, worst type" in data["checks"]
    assert list(load(results, "mars_accuracy")["contenders"]) == ["exact", "mars"]


def test_parts_hold_each_question_once_and_join(results, tmp_path, capsys):
    files = ["--output", tmp_path / "joined.json", "--work", tmp_path / "parts"]
    arguments = ["parts", "--quick", "--only", "mars", *files]
    with pytest.raises(SystemExit, match="2of2.json is missing: run --part 2/2"):
        run("mars_accuracy", *arguments, "--part", "1/2")  # the first part alone cannot be joined
    run("mars_accuracy", *arguments, "--part", "2/2")
    joined, whole = (json.loads(path.read_text()) for path in (tmp_path / "joined.json", results / "mars_parts.json"))
    for name in ("exact", "mars"):
        assert joined["contenders"][name]["accuracy"] == whole["contenders"][name]["accuracy"]
        assert joined["contenders"][name]["agreement"] == whole["contenders"][name]["agreement"]


def test_the_readmes_tables_are_made_and_checked(results, tmp_path):
    readme = tmp_path / "README.md"
    names = ("mars_accuracy", "mars_parts", "mars_speed_cpu", "mars_speed_gpu", "mars_scaling")
    readme.write_text("".join(f"# {name}\n<!-- table {name} -->\n<!-- end -->\nText.\n" for name in names))
    options = ["--readme", readme, "--results", results]
    with pytest.raises(SystemExit, match="out of date: run python benchmarks/tables.py"):
        run("tables", *options, "--check")
    run("tables", *options)
    run("tables", *options, "--check")
    text = readme.read_text()
    assert text.count("Text.\n") == 5 and "| autoregressive Llama |" in text and "| no anchors |" in text
    readme.write_text("<!-- table nothing -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="There is no table 'nothing'"):
        run("tables", *options)


def test_the_readme_of_this_repository_is_up_to_date():
    run("tables", "--check")


def test_without_a_gpu_its_benchmark_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="torch sees none"):
        run("mars_speed_gpu")


def test_the_embedded_checkpoints_accuracy_and_errors(tmp_path):
    run("tiny_accuracy", "--questions", 21, "--only", "8 frames, gray video", "--output", tmp_path / "accuracy.json")
    found = json.loads((tmp_path / "accuracy.json").read_text())
    assert found["8 frames, gray video"]["scores"]["all"]["questions"] == 10
    errors = run("tiny_errors", "--questions", 2, "--output", tmp_path / "errors.json")
    found = json.loads((tmp_path / "errors.json").read_text())
    for split in ("test", "train"):
        assert all(errors.total(of_type)[1] == 2 for of_type in found[split].values())
        assert all(of_type["held out"][1] + of_type["shown"][1] == 2 for of_type in found[split].values())
    assert all(of_type["held out"] == [0, 0] for of_type in found["train"].values())
    assert any(of_type["held out"][1] for of_type in found["test"].values())


def test_loaders_are_timed_beside_training(tmp_path):
    run("data_loading", "--quick", "--output", tmp_path / "loading.json")
    speeds = json.loads((tmp_path / "loading.json").read_text())["samples_per_second"]
    assert {"files, 0 workers", "files, 2 workers", "kept frames, 0 workers"} <= speeds["reading"].keys()
    assert "alone, frames in memory" in speeds["training"]
    assert all(speed > 0 for kind in speeds.values() for speed in kind.values())


def test_the_rates_part_of_the_losss_variance(tmp_path):
    script = run("loss_variance", "--draws", 3, "--types", "color", "--output", tmp_path / "variance.json")
    assert len(json.loads((tmp_path / "variance.json").read_text())["types"]["color"]["loss_by_rate"]) == script.BATCH

    generator = torch.Generator().manual_seed(0)
    losses, rates = {}, {}
    for sampling in ("independent", "antithetic", "stratified"):
        drawn = torch.stack([draw_mask_probabilities(16, torch.device("cpu"), generator, sampling) for _ in range(8000)])
        noise = torch.randn(drawn.shape, generator=generator)
        losses[sampling], rates[sampling] = drawn.square() + 0.3 * noise, drawn
    found = script.split_variance(losses["stratified"], rates["stratified"])
    plain = losses["independent"].mean(-1).var()
    for sampling in ("stratified", "antithetic"):  # the shares are what the variance of a whole batch's loss falls by
        assert 1 - losses[sampling].mean(-1).var() / plain == pytest.approx(found[sampling], abs=0.04)
    assert found["stratified"] == pytest.approx(0.497, abs=0.03)
