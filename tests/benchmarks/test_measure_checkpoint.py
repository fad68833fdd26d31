import json
import subprocess

import pytest

from .conftest import load_module

SCRIPT = """
import json, sys
from pathlib import Path

path = Path(sys.argv[1])
data = json.loads(path.read_text()) if path.is_file() else {"setup": {"weights": "new"}, "runs": 0}
data["runs"] += 1
path.write_text(json.dumps(data))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The script, with studies that count how often they ran."""
    module = load_module("measure_checkpoint")
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


def runs(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["runs"]


def test_results_of_other_weights_are_measured_anew_and_others_gone_on_with(tmp_path, module):
    study = module.alone("study", "script.py", "{results}/study.json")
    (tmp_path / "study.json").write_text('{"setup": {"weights": "old"}, "runs": 7}')
    module.measure(study, tmp_path, "new")
    assert runs(tmp_path, "study") == 1
    module.measure(study, tmp_path, "new")
    assert runs(tmp_path, "study") == 2  # the script itself knows what it has


def test_results_that_are_written_at_the_end_are_done_once(tmp_path, module):
    study = module.alone("study", "script.py", "{results}/study.json", at_once=True)
    for _ in range(2):
        module.measure(study, tmp_path, "new")
    assert runs(tmp_path, "study") == 1


def test_the_weights_of_a_part_are_its_own(tmp_path, module):
    (tmp_path / "study.json").write_text('{"speed": {"setup": {}}, "choices": {"setup": {"weights": "old"}}}')
    assert module.weights_of(module.alone("study", "x.py", part="choices"), tmp_path) == "old"
    assert module.weights_of(module.alone("study", "x.py", part="speed"), tmp_path) is None
    assert module.weights_of(module.alone("other", "x.py"), tmp_path) is None


def test_a_failed_command_ends_it(tmp_path, module):
    (tmp_path / "failing.py").write_text("raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        module.run(("failing.py",))


def test_every_study_names_a_script_and_the_file_that_it_writes():
    module = load_module("measure_checkpoint")
    for study in module.STUDIES:
        for script, *rest in study.commands:
            assert (module.HERE / script).is_file()
            assert f"{{results}}/{study.name}.json" in rest
