import pytest

from .conftest import load, load_module, run


@pytest.mark.slow
def test_twins_are_measured_and_their_tables_are_made(tmp_path):
    output, page = tmp_path / "twins.json", tmp_path / "page.md"
    for _ in range(2):  # the second finds all there
        run("twins", "--quick", "--threads", 1, "--output", output)
    data = load(tmp_path, "twins")
    twins = {"full", "causal", "autoregressive"}
    assert twins == set(data["accuracy"]) == set(data["training"]["seconds"]) == set(data["setup"]["weights"])
    for scores in data["accuracy"].values():
        assert [scores[step]["scores"]["all"]["questions"] for step in ("1", "2")] == [3, 3]
    assert all(len(rounds) == 1 and min(rounds[0]) > 0 for rounds in data["answers"]["seconds"].values())
    page.write_text(
        "".join(f"<!-- table {name} -->\n<!-- end -->\n" for name in ("twins", "twins_types", "twins_answers"))
    )
    run("tables", page, "--results", tmp_path)
    assert "\n| full, mars |" in page.read_text() and "\n| color |" in page.read_text()


def test_equal_seconds_take_the_last_checkpoint_within_them():
    """At the time in which the quickest twin does 200 steps, one that is half as quick has done 100."""
    module = load_module("twins")

    def scores(share: float) -> dict:
        return {"scores": {"all": {"accuracy": share, "low": 0.0, "high": 1.0}}}

    steps = {"100": scores(0.1), "200": scores(0.2), "300": scores(0.3)}
    data = {
        "setup": {"questions": 21},
        "accuracy": dict.fromkeys(module.TWINS, steps),
        "training": {"seconds": {"full": [2.0], "causal": [1.9, 2.0, 3.0], "autoregressive": [1.0]}},
    }
    row = next(line for line in module.table(data).splitlines() if line.startswith("| 200 |"))
    shares = [cell.split()[0] for cell in row.strip("| ").split(" | ")[1:]]
    assert shares == ["20.0"] * 3 + ["10.0", "10.0", "20.0"]
    assert "| 100 |" in module.table(data) and " - | - | 10.0" in module.table(data)


def test_twins_that_are_not_trained_are_an_error(tmp_path):
    with pytest.raises(SystemExit, match="21 checkpoints are missing, .*checkpoint-200 first: train the twins"):
        run("twins", "--runs", tmp_path, "--output", tmp_path / "twins.json")
