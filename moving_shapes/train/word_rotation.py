"""Random rotations of the embeddings of one kind of words, so that a sequence has colors or shapes without names.

A cell is encoded in the embeddings of the words for its content. Where words and cells of a sequence are rotated alike,
they still match each other, but match none of the words of the vocabulary.
"""

import numpy as np
import torch


def draw_rotation(size: int, is_rotated: bool, rng: np.random.Generator) -> np.ndarray:
    """A random rotation of the space that `size` words span, float32 (size, size); the identity if not `is_rotated`."""
    if not is_rotated:
        return np.eye(size, dtype=np.float32)
    return np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)


def rotate_words(
    embeddings: torch.Tensor, is_rotated: torch.Tensor, words: torch.Tensor, rotations: torch.Tensor
) -> torch.Tensor:
    """Rotates the part of embeddings that lies in the span of one kind of words; the rest of them stays as it is.

    Args:
        embeddings: of cells and words, (batch, tokens, hidden).
        is_rotated: which of them to rotate, bool (batch, tokens).
        words: embeddings of the kind's words, (words, hidden).
        rotations: one for each sequence, of `draw_rotation`, (batch, words, words).

    Returns:
        (batch, tokens, hidden).
    """
    basis = torch.linalg.qr(words.detach().float().T).Q.to(embeddings.dtype)  # (hidden, words)
    change = (rotations - torch.eye(len(words), device=rotations.device)).to(embeddings.dtype)
    return embeddings + torch.where(is_rotated[..., None], embeddings @ basis @ change @ basis.T, 0)


__all__ = ["draw_rotation", "rotate_words"]
