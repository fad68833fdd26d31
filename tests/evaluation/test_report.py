import pytest

from vidlada_hf.evaluation.report import (
    bench_table,
    costs_table,
    draw_bench,
    format_digits,
    markdown_table,
    summarize_costs,
)

EXACT = {"counts": {"flops": 1000, "tokens": 8}, "seconds": [4.0, 4.0], "reference_seconds": [4.0, 4.0]}
COUNTS = {
    "flops": 10,
    "flops_planned": 12,
    "floor_seconds": 0.1,
    "tokens": 8,
    "forwards": 4,
    "kept_bytes": 3,
    "live_bytes": 5,
}
FAST = {"counts": COUNTS, "seconds": [0.5, 1.0], "reference_seconds": [4.0, 4.0], "peak_bytes": 7}


def test_figures_are_those_of_a_question():
    assert summarize_costs(FAST, EXACT, 2) == {
        "seconds": 0.375,
        "speedup": 6,
        "tokens_per_second": round(8 / 0.75, 3),
        "tokens_per_forward": 2,
        "flops": 5,
        "flops_planned": 6,
        "floor_seconds": 0.05,
        "flops_saving": 100,
        "kept_bytes": 3,
        "live_bytes": 5,
        "peak_bytes": 7,
    }


def test_what_is_not_known_yet_is_a_dash():
    results = {"exact": {}, "fast": {"counts": {"flops": 10}, "seconds": []}}
    for entry in results.values():
        entry["summary"] = summarize_costs(entry, {"counts": {"flops": 1000}})
    table = costs_table(results)
    assert "| exact | - | - | - | - | - | - | - | - |" in table
    assert "| fast | - | - | - | - | 1e-11 | 100.0x | - | - |" in table
    results = {"fast": FAST | {"summary": summarize_costs(FAST, EXACT)}}
    assert "| fast | 0.75 | 6.0x | 10.7 | 0.1 | 1e-11 | 100.0x | 0 | 0 |" in costs_table(results)


def test_markdown():
    assert markdown_table(["", "a"], [["x", "1"]]) == "| | a |\n|---|---:|\n| x | 1 |"
    assert markdown_table(["a", "b"], [], "rl").endswith("|---:|---|")


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (1234.5, "1,234"), (99.94, "99.9"), (0.012345, "0.0123")])
def test_three_digits(value, text):
    assert format_digits(value) == text


def bench_data(accuracy=True):
    results = {}
    for name, entry, right in (("none", EXACT, 1.0), ("dual", FAST, 0.5)):
        comparison = {"accuracy": right, "low": right - 0.1, "high": right, "lost": 1, "gained": 0, "p": 1.0}
        comparison |= {"difference": 100 * right - 100}
        results[f"{name} + quota"] = {
            "cache_strategy": name,
            "cache_config": {},
            "unmasking": "quota",
            "unmasking_value": None,
            "summary": summarize_costs(entry | {"counts": COUNTS}, EXACT)
            | {"agreement": {"tokens": right, "answers": right}}
            | {"accuracy": {"color": comparison, "all": comparison} if accuracy else None},
        }
    setup = {"questions": 2, "frames": 8, "device": "a machine"}
    return {"setup": setup, "results": results | {"mars + quota": {"ids": [], "texts": []}}}


@pytest.mark.parametrize("accuracy", [True, False])
def test_a_line_and_a_mark_for_each_finished_setup(accuracy, tmp_path):
    data = bench_data(accuracy)
    tables = [table.splitlines() for table in bench_table(data).split("\n\n")]
    assert [len(lines) for lines in tables] == [3, 3, 3]
    for head, *lines in tables[:2]:
        assert {len(line) for line in lines} == {len(head)}  # columns stand under their heads
    assert ("color -50.0" in tables[2][2]) == accuracy and "50.0 %" in tables[2][2]
    assert draw_bench(data, tmp_path / "new" / "plot.png").stat().st_size > 5000
