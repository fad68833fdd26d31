import pytest

from moving_shapes import BENCHMARK_TYPES
from moving_shapes.baselines.answer_priors import main, measure_prior


def test_priors_of_balanced_types() -> None:
    prior = measure_prior("train", "existence", 60)
    assert prior.answers == 2 and prior.prior < 0.6 and prior.text < 0.72
    assert measure_prior("test", "color", 30).prior < 0.3


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--questions", "2", "--split", "validation"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BENCHMARK_TYPES) + 2 and lines[2].startswith("| color |")
