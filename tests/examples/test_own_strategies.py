from tests.examples.scripts import load


def test_a_cache_strategy_of_ones_own_saves_operations(capsys):
    (exact, answer), (operations, similar), _ = load("own_cache_strategy").main(frames=16).values()
    assert operations < exact / 2 and answer.startswith("the yellow cross") and similar.startswith("the yellow cross")
    assert "WindowCache" in capsys.readouterr().out


def test_an_unmasking_rule_of_ones_own_needs_fewer_steps(capsys):
    (steps, _), _, (fewer, answer) = load("own_unmasking_rule").main().values()
    assert 1 < fewer < steps / 2 and answer.startswith("the yellow cross")
    assert "MarginUnmasking" in capsys.readouterr().out
