import numpy as np

from moving_shapes import BENCHMARK_TYPES, MovingShapes
from vidlada_hf.evaluation.questions import load_questions


def test_training_is_evaluated_on_five_questions_of_each_type_of_the_validation_split():
    questions = load_questions("moving_shapes.train.validation:validation_questions")
    assert [question.type for question in questions] == [*BENCHMARK_TYPES] * 5
    expected = MovingShapes("validation", 1050)
    for i in (0, 20, 104):
        assert questions[i].question == expected[i].question
        np.testing.assert_array_equal(questions[i].video, expected[i].frames)
