import json
import shutil

import pytest

from .conftest import FOLDER, run


@pytest.mark.slow
def test_tables_are_made_from_what_the_scripts_write_and_checked(results, tmp_path):
    page = tmp_path / "page.md"
    names = ("mars_accuracy", "mars_parts", "mars_speed_cpu", "mars_speed_gpu", "mars_scaling")
    names += ("mars_steps_gpu", "chunk_attention_gpu", "video_file_gpu")
    page.write_text("".join(f"# {name}\n<!-- table {name} -->\n<!-- end -->\nText.\n" for name in names))
    options = [page, "--results", results]
    with pytest.raises(SystemExit, match="out of date: run python benchmarks/tables.py"):
        run("tables", *options, "--check")
    run("tables", *options)
    run("tables", *options, "--check")
    text = page.read_text()
    assert text.count("Text.\n") == 8 and "| no anchors |" in text
    for row in ("mars, captured, 8 steps", "autoregressive Llama, own generate", "quiet step", "6 frames", "tower"):
        assert f"\n| {row} |" in text


def test_a_table_of_an_unknown_name_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table nothing -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="There is no table 'nothing'"):
        run("tables", page)


def test_the_committed_results_make_the_tables(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text("<!-- table mars_parts -->\n<!-- end -->\n<!-- table mars_speed_cpu -->\nold\n<!-- end -->\n")
    other.write_text("<!-- table mars_scaling -->\n<!-- end -->\n<!-- table batch_videos -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="page.md is out of date"):
        run("tables", page, other, "--check")
    run("tables", page, other)
    run("tables", page, other, "--check")
    text = page.read_text()
    right = json.loads((FOLDER / "mars_parts.json").read_text())["results"]["no anchors"]["accuracy"]["all"]["accuracy"]
    assert f"| no anchors | {100 * right:.2f} % |" in text and "| mars | 47.1 | 32.9x |" in text and "old" not in text
    assert (
        "| faster | 12.6x |" in other.read_text() and "| batch of 1 | 200 | 24.8 s | 8.06 | 66x |" in other.read_text()
    )


def test_a_table_without_results_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table mars_parts -->\nold\n<!-- end -->\n")
    run("tables", page, "--results", tmp_path)
    assert "old" in page.read_text()
    shutil.copy(FOLDER / "mars_parts.json", tmp_path)
    run("tables", page, "--results", tmp_path)
    assert "old" not in page.read_text()


def test_a_table_of_a_group_that_was_not_measured_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table mars_speed_gpu -->\nold\n<!-- end -->\n")
    (tmp_path / "mars_speed_gpu.json").write_text('{"groups": {"mars": {"eager, 8 steps": {"rounds": []}}}}')
    run("tables", page, "--results", tmp_path)
    assert "old" in page.read_text()


def test_the_documents_of_this_repository_are_up_to_date():
    run("tables", "--check")
