from typing import Any

import pytest

from vidlada_hf.training.schema import Count, Counts, check_arguments, refuse_unknown


def take(name: str, size: Count = 1, sizes: Counts = (1,), thing: Any = None) -> None: ...


def pass_on(size: Count = 1, **others: Any) -> None: ...


def test_arguments_that_fit_are_accepted():
    check_arguments({"name": "a", "size": 2, "sizes": [1, 2], "thing": object()}, take, "`options`")
    check_arguments({"size": 2, "whatever": 3}, pass_on, "`options`")
    check_arguments({"size": 2, "known": 3}, pass_on, "`options`", more=("known",))
    check_arguments({}, take, "`options`", besides=("name",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], r"`options` must be a mapping of keys to values, got \[1\]"),
        ({}, "`options` lacks the key `name`"),
        ({"nam": "a"}, "Unknown key `nam` in `options`: did you mean `name`"),
        ({"xyz": "a"}, "Unknown key `xyz` in `options`: known are name, size, sizes, thing"),
        ({"name": 3}, "`name` in `options` is 3: .* valid string"),
        ({"name": "a", "size": 0}, "`size` in `options` is 0: .* greater than or equal to 1"),
        ({"name": "a", "size": "2"}, "`size` in `options` is '2'"),
        ({"name": "a", "sizes": []}, r"`sizes` in `options` is \[\]: .* at least 1 item"),
    ],
)
def test_what_does_not_fit_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        check_arguments(given, take, "`options`")


def test_names_that_are_passed_on_are_known_too():
    with pytest.raises(ValueError, match="Unknown key `knwon` in `options`: did you mean `known`"):
        check_arguments({"knwon": 3}, pass_on, "`options`", more=("known",))
    with pytest.raises(ValueError, match="Unknown key `b` in a file"):
        refuse_unknown(["b"], ["a"], "a file")
