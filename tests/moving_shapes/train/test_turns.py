import numpy as np

from moving_shapes import MovingShapes, words
from moving_shapes.facts import is_sentence, split_facts
from moving_shapes.scenes.splits import get_split
from moving_shapes.train.turns import misstate

CAPTIONS = [example.details for example in MovingShapes("train", 30, types=("caption",))]


def test_wrong_predicates_are_facts_about_the_same_shapes():
    rng = np.random.default_rng(0)
    for caption in CAPTIONS:
        wrong, places = misstate(caption, 1.0, rng)
        told = words(wrong.training_answer)
        assert len(places) == len(wrong.facts) == len(caption.facts)
        assert all(is_sentence(sentence) for sentence in split_facts(wrong.training_answer))
        for (start, end), before, fact in zip(places, caption.facts, wrong.facts, strict=True):
            assert told[start - 3 : start] == words(before)[:3]
            assert told[start : end + 1] == words(fact)[3:]


def test_only_the_asked_share_is_wrong():
    rng = np.random.default_rng(0)
    assert misstate(CAPTIONS[0], 0.0, rng)[0] == CAPTIONS[0]
    count = sum(len(misstate(caption, 0.2, rng)[1]) for caption in CAPTIONS * 10)
    assert abs(count / sum(len(caption.facts) for caption in CAPTIONS * 10) - 0.2) < 0.05


def test_no_shape_turns_into_a_color_that_training_does_not_give_it():
    rng = np.random.default_rng(0)
    told = [sentence for caption in CAPTIONS * 5 for sentence in split_facts(misstate(caption, 1.0, rng)[0].answers[0])]
    turned = [(parts[4], parts[2]) for parts in map(str.split, told) if parts[3] == "turns"]
    assert len(turned) > 50 and set(turned) <= set(get_split("train").combinations)
