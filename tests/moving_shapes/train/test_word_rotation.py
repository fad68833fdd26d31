import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from moving_shapes.train.word_rotation import draw_rotation, rotate_words


@given(seed=st.integers(0, 10**6))
def test_rotated_words_match_as_before_and_are_others(seed):
    """Cells and words of one sequence keep their dot products; what they encode of other kinds stays."""
    generator = torch.Generator().manual_seed(seed)
    words, tokens = torch.randn(6, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    tokens[0, 0] = words[2]
    is_rotated = torch.tensor([[True, True, True, True, False]] * 2)
    rng = np.random.default_rng(seed)
    rotations = torch.from_numpy(np.stack([draw_rotation(6, True, rng), draw_rotation(6, False, rng)]))
    after = rotate_words(tokens, is_rotated, words, rotations)
    assert torch.equal(after[1], tokens[1]) and torch.equal(after[0, 4], tokens[0, 4])
    assert torch.allclose(after[0, :4] @ after[0, :4].T, tokens[0, :4] @ tokens[0, :4].T, atol=1e-3)
    beside = torch.linalg.svd(words).Vh[6:]  # directions that no word of the kind has
    assert torch.allclose(after @ beside.T, tokens @ beside.T, atol=1e-4)
    assert (after[0, 0] - words[2]).norm() > 1e-2
