"""Questions that are answered in sentences, one for each fact."""

import numpy as np

from ..facts import Fact, Interval, caption_of, facts_of, has_returning_shapes, order_evidence, shape_evidence
from ..scenes.scene import Scene
from ..vocabulary import ORDINALS
from .question import Question


def ask_caption(scene: Scene, rng: np.random.Generator, coin: float) -> Question:
    """Describe the video."""
    words = "describe video", "Describe the video."
    return _ask_facts("caption", words, caption_of(scene), order_evidence(scene), tuple(range(len(scene.shapes))))


def ask_detail(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Describe the red circle. Describe the second shape."""
    index = int(rng.integers(len(scene.shapes)))
    shape = scene.shapes[index]
    evidence = shape_evidence(shape)
    if coin < 0.5 and len(scene.shapes) > 1 and not has_returning_shapes(scene):
        words = f"describe {ORDINALS[index]}", f"Describe the {ORDINALS[index]} shape."
        evidence += order_evidence(scene)
    else:
        words = f"describe {shape.name}", f"Describe the {shape.name}."
    return _ask_facts("detail", words, facts_of(shape, scene), evidence, (index,))


def _ask_facts(
    type: str, words: tuple[str, str], facts: list[Fact], evidence: tuple[Interval, ...], shapes: tuple[int, ...]
) -> Question:
    """A question that is answered with these facts, and needs this evidence beside theirs."""
    sentences = tuple(fact.sentence for fact in facts)
    text = " ".join(sentences)
    of_facts = tuple(interval for fact in facts for interval in fact.evidence)
    return Question(type, words, (text, text), sentences, of_facts + evidence, shapes)


__all__ = ["ask_caption", "ask_detail"]
