import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from moving_shapes.train.combinations import draw_turn, turn_words


@given(seed=st.integers(0, 10**6))
def test_turned_words_match_as_before_and_are_others(seed):
    """Cells and words of one sequence keep their likeness; what they say of other kinds is left as it is."""
    generator = torch.Generator().manual_seed(seed)
    words, rows = torch.randn(6, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    rows[0, 0] = words[2]
    told = torch.tensor([[True, True, True, True, False]] * 2)
    rng = np.random.default_rng(seed)
    turned = torch.from_numpy(np.stack([draw_turn(6, True, rng), draw_turn(6, False, rng)]))
    after = turn_words(rows, told, words, turned)
    assert torch.equal(after[1], rows[1]) and torch.equal(after[0, 4], rows[0, 4])
    assert torch.allclose(after[0, :4] @ after[0, :4].T, rows[0, :4] @ rows[0, :4].T, atol=1e-3)
    beside = torch.linalg.svd(words).Vh[6:]  # what no word of the kind says
    assert torch.allclose(after @ beside.T, rows @ beside.T, atol=1e-4)
    assert (after[0, 0] - words[2]).norm() > 1e-2
