"""The clip and the questions that the page begins with: those that the embedded checkpoint answers rightly."""

from ..evaluation.questions import load_questions

_QUESTIONS = load_questions()
SAMPLE_VIDEO = str(_QUESTIONS[0].video)
SAMPLE_QUESTIONS = ("Describe the first shape.", *(q.question for q in _QUESTIONS if q.type != "caption"))

__all__ = ["SAMPLE_QUESTIONS", "SAMPLE_VIDEO"]
