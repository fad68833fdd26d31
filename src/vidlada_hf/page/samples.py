"""The clip and the questions that the page begins with: those that the embedded checkpoint answers rightly."""

from ..evaluation.questions import load_questions

_QUESTIONS = load_questions()
SAMPLE_VIDEO = str(_QUESTIONS[0].video)
# The last one first, a caption: the longest answer.
SAMPLE_QUESTIONS = tuple(question.question for question in (_QUESTIONS[-1], *_QUESTIONS[:-1]))

__all__ = ["SAMPLE_QUESTIONS", "SAMPLE_VIDEO"]
