import os

import jupytext
import pytest

from tests.examples.scripts import EXAMPLES, load


def test_the_notebook_is_that_of_the_script_and_holds_no_outputs():
    script, notebook = (jupytext.read(EXAMPLES / f"quickstart.{suffix}") for suffix in ("py", "ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (script, notebook)]
    remedy = "run jupytext --update --to ipynb examples/quickstart.py"
    assert cells[0] == cells[1], remedy
    assert not any(cell.get("outputs") for cell in notebook.cells), remedy


def test_its_links_lead_somewhere():
    cells = jupytext.read(EXAMPLES / "quickstart.py").cells
    links = [part.partition(")")[0] for cell in cells for part in cell.source.split("](")[1:]]
    assert len(links) >= 5 and all((EXAMPLES / link).is_file() for link in links)


@pytest.mark.slow
def test_it_runs_as_a_script(capsys):
    module = load("quickstart")
    assert module.answers == ["cross", "green"]
    assert sorted(os.listdir(module.pictures)) == ["denoising.png", "schedule.png"]
    exact, mars, own = (line for line in capsys.readouterr().out.splitlines() if "GFLOP" in line)
    operations = [float(line.split(": ")[1].split()[0]) for line in (exact, mars, own)]
    assert operations[0] > 2 * operations[1] and operations[0] > 2 * operations[2]
    assert "100% of the tokens" in exact
