import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.inference.batching import batch_by_length, map_ahead


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


def test_an_error_comes_where_its_item_would():
    got = []
    with pytest.raises(ZeroDivisionError):
        for value in map_ahead(lambda number: 1 / number, (1, 2, 0, 4), workers=2, ahead=3):
            got.append(value)
    assert got == [1, 0.5]


@given(lengths=st.lists(st.integers(0, 5)), batch_size=st.integers(1, 4), window=st.integers(1, 9))
def test_every_item_is_in_one_batch(lengths, batch_size, window):
    items = list(enumerate(lengths))
    batches = list(batch_by_length(items, lambda item: item[1], batch_size, window))
    assert Counter(item for batch in batches for item in batch) == Counter(items)
    assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_batches_are_of_like_length_and_nobody_waits_for_ever():
    batches = batch_by_length([900, 1, 2, 901, 3, 902], int, batch_size=3, window=6)
    assert list(batches) == [[900, 901, 902], [1, 2, 3]]
    assert list(batch_by_length([5, 5, 5, 5, 5], int, batch_size=2, window=4)) == [[5, 5], [5, 5], [5]]
    first, *_ = batch_by_length([7, *[1] * 100], int, batch_size=2, window=4)
    assert 7 in first
