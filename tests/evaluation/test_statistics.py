import pytest

from vidlada_hf.evaluation.statistics import (
    compare_answers,
    compare_by_type,
    compare_right,
    sign_test,
    speedup,
    token_agreement,
)


@pytest.mark.parametrize(
    ("answer", "exact", "share"),
    [([], [], 1), ([1, 2], [1, 2], 1), ([1, 2, 3], [1, 2], 2 / 3), ([], [5], 0), ([2, 1], [1, 2], 0)],
)
def test_tokens_agree_position_by_position_over_the_longer_answer(answer, exact, share):
    assert token_agreement(answer, exact) == token_agreement(exact, answer) == pytest.approx(share)


def test_answers_agree_as_a_whole_or_not():
    agreement = compare_answers([[1, 2], [1], []], [[1, 3], [1], []])
    assert agreement.tokens == pytest.approx(2.5 / 3, abs=1e-4) and agreement.answers == pytest.approx(2 / 3, abs=1e-4)


def test_pairs_are_compared_question_by_question():
    """Equal accuracy hides that two questions were lost and two won."""
    exact = [True, True, False, False, True, True]
    found = compare_right([False, False, True, True, True, True], exact)
    assert (found.accuracy, found.lost, found.gained, found.difference, found.p) == (0.6667, 2, 2, 0, 1)
    same = compare_right(exact, exact)
    assert (same.lost, same.gained, same.difference_low, same.difference_high) == (0, 0, 0, 0)


def test_the_interval_of_a_difference():
    """100 questions, 10 lost, 2 gained: -8 points, standard error sqrt(12 - 64 / 100) / 100."""
    exact, right = [True] * 10 + [False] * 2 + [True] * 88, [False] * 10 + [True] * 2 + [True] * 88
    found = compare_right(right, exact)
    assert (found.difference, found.accuracy) == (-8, 0.9)
    assert found.difference_high == pytest.approx(-8 + 1.96 * (12 - 0.64) ** 0.5, abs=0.01)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12, abs=1e-4)


def test_coins():
    assert sign_test(0, 0) == 1 and sign_test(5, 5) == 1
    assert sign_test(0, 5) == sign_test(5, 0) == 2 / 32


def test_types_apart_and_all_together():
    found = compare_by_type(["a", "b", "a"], [True, False, True], [True, True, True])
    assert list(found) == ["a", "b", "all"]
    assert (found["a"]["accuracy"], found["b"]["lost"], found["all"]["questions"]) == (1, 1, 3)


def test_the_speedup_is_taken_within_rounds():
    """A machine that slows down in the second round does not favor either."""
    assert speedup([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 2
