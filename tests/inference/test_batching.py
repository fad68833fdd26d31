from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.inference.batching import batch_by_length


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
