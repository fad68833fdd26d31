"""Items made ahead: in order, at most one of them, and an error where its item would come."""

import threading

import pytest

from vidlada_hf.processing.read_ahead_vidlada import ReadAhead, map_ahead


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


def test_items_come_in_order_and_are_made_side_by_side():
    met = threading.Barrier(3, timeout=20)

    def make(number):
        if number < 3:
            met.wait()  # three threads must be here at a time
        return -number

    assert list(map_ahead(make, range(10), workers=3, ahead=4)) == [-number for number in range(10)]


def test_no_more_than_so_many_are_made_ahead():
    made, taken = [], 0
    for _ in map_ahead(made.append, range(20), workers=2, ahead=3):
        taken += 1
        assert len(made) <= taken + 3
    assert taken == len(made) == 20


def test_a_loop_that_is_left_makes_no_more():
    made, threads = [], threading.active_count()
    loop = map_ahead(made.append, range(1000), workers=2, ahead=5)
    next(loop)
    loop.close()
    assert threading.active_count() == threads and len(made) <= 6


def test_an_error_of_a_thread_comes_where_its_item_would():
    got = []
    with pytest.raises(ZeroDivisionError):
        for value in map_ahead(lambda number: 1 / number, (1, 2, 0, 4), workers=2, ahead=3):
            got.append(value)
    assert got == [1, 0.5]
