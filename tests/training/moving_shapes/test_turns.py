import pytest

from tests.training.moving_shapes.conftest import lesson
from vidlada_hf.evaluation.moving_shapes.questions import CHOICE_TYPES, LONG_TYPES
from vidlada_hf.training.moving_shapes.turns import Turn


def listed_in(turn: Turn, names: dict[int, str]) -> list[str]:
    """What stands behind letters in a question."""
    said = [names[id] for id in turn.ids[: -turn.answer].tolist()]
    return [word for letter, word in zip(said, said[1:], strict=False) if letter.startswith("(")]


@pytest.mark.parametrize("distracted", [0.0, 1.0])
def test_questions_are_distracted_by_what_does_not_answer_them(parts, distracted):
    """The answers stay, as do the options of a multiple choice, which its answer is among."""
    task = lesson(parts, distracted=distracted)
    task.prepare(list(range(8)))
    names = {id: word for word, id in task.writer.word_ids.items()}
    found = set()
    for turns in task.turns.values():
        for turn in turns:
            listed, answer = listed_in(turn, names), [names[id] for id in turn.ids[-turn.answer :].tolist()]
            if turn.type in CHOICE_TYPES:
                assert len(listed) == 4 and answer[1] in listed
            elif turn.type in LONG_TYPES or not distracted:
                assert not listed
            else:
                assert len(set(listed)) == 4 and not set(answer) & set(listed)
            found.add(turn.type)
    assert len(found) > 15 and found & set(CHOICE_TYPES)
