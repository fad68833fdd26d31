"""Items made ahead: in order, at most one of them, and an error where its item would come."""

import threading

import pytest

from vidlada_hf.processing.read_ahead_vidlada import ReadAhead


def test_the_next_item_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(4)]

    def make():
        for number, event in enumerate(made):
            event.set()
            yield number

    used = []
    for number in ReadAhead(make()):
        used.append(number)
        if number < 3:
            assert made[number + 1].wait(20), "the next item waits for this one"
        assert not any(event.is_set() for event in made[number + 2 :]), "more than one is held"
    assert used == [0, 1, 2, 3]


def test_an_error_comes_where_its_item_would():
    def make():
        yield from (1, None)
        raise ValueError("the third")

    got, items = [], iter(ReadAhead(make()))
    with pytest.raises(ValueError, match="the third"):
        while True:
            got.append(next(items))
    assert got == [1, None]


def test_nothing_runs_on_behind_a_loop_that_was_left():
    threads = threading.active_count()
    for number in ReadAhead(range(10)):
        if number == 3:
            break
    assert threading.active_count() == threads


def test_it_is_as_long_as_its_items():
    assert len(ReadAhead([1, 2])) == 2 and list(ReadAhead([])) == []
    with pytest.raises(TypeError, match="does not say how many"):
        len(ReadAhead(iter([])))
