"""Questions with their answers as tokens of a sequence: what the chat template makes of them behind a video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import BENCHMARK_TYPES, Question, Scene, ask, words
from ..questions import HELPER_TYPES, LONG_TYPES
from .combinations import KINDS, exclusion_codes
from .dense_labels import LABELS, UNKNOWN, label_shape, remove_kind
from .option_lists import draw_option_list
from .tiny_model import BOS, END_HEADER, END_OF_TURN, HEADER

NO_SHAPE = np.zeros(1, np.int64), np.full((1, len(LABELS)), UNKNOWN)  # sentences, and their labels
SHORT_TYPES = tuple(type for type in (*BENCHMARK_TYPES, *HELPER_TYPES) if type not in LONG_TYPES)


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Args:
        type: of the question.
        input_ids: (tokens,), int64.
        answer_length: how many of them, the last ones, are the answer and its end of turn.
        exclusion_codes: (tokens,), int64, of `exclusion_codes`.
        sentences: where each sentence of the answer begins, from 0, int64 (sentences,); a short answer is one.
        shape_labels: (sentences, labels), int64, of the shape that a sentence is about; `UNKNOWN` where it is about
            none.
        emphasis: what each token of the answer weighs in the loss beside the others, float (answer_length,).
        masked_token: the only token of the answer that is masked, from 0; None: any.
    """

    type: str
    input_ids: np.ndarray
    answer_length: int
    exclusion_codes: np.ndarray
    sentences: np.ndarray
    shape_labels: np.ndarray
    emphasis: np.ndarray
    masked_token: int | None = None


class TurnWriter:
    """Draws questions about a scene and writes them as tokens.

    Args:
        tokenizer: of the model.
        questions_per_type: type -> how many questions of it are tried for each scene; 2 of types that are not named, 1
            of captions.
        sentences: share of the questions that are whole sentences, 0..1; the others are a few words.
        new_shapes: weight of the words that name a shape which the sentence before is not about.
    """

    def __init__(
        self, tokenizer: Any, questions_per_type: Mapping[str, int], sentences: float, new_shapes: float = 1.0
    ) -> None:
        tries = dict.fromkeys(SHORT_TYPES, 2) | {"caption": 1, "detail": 2} | dict(questions_per_type)
        self.tried_types = [type for type, times in tries.items() for _ in range(times)]
        self.sentences, self.new_shapes = sentences, new_shapes
        self.word_ids = tokenizer.get_vocab()
        self.kinds = {kind: [self.word_ids[name] for name in names] for kind, names in KINDS.items()}
        bos, header, end_header, self.end_of_turn = tokenizer.convert_tokens_to_ids(
            [BOS, HEADER, END_HEADER, END_OF_TURN]
        )
        self.pad = tokenizer.pad_token_id
        self.opening = [bos, header, self.word_ids["user"], end_header]
        self.between = [self.end_of_turn, header, self.word_ids["assistant"], end_header]

    def ask(self, scene: Scene, first: Question, times: np.ndarray, rng: np.random.Generator) -> list[Turn]:
        """The question `first` and others, all different."""
        questions = {first.questions[0]: first}
        for type in self.tried_types:
            question = ask(scene, type, rng)
            if question is not None:
                questions.setdefault(question.questions[0], question)
        return [
            self._write(question, question.questions[int(rng.random() < self.sentences)], scene, times)
            for question in questions.values()
        ]

    def list_options(self, rng: np.random.Generator) -> Turn:
        """A turn of the type "options", see `draw_option_list`."""
        listed, answer, masked_token = draw_option_list(rng)
        ids, length = self._encode(listed, answer)
        return Turn("options", ids, length, np.zeros(len(ids), np.int64), *NO_SHAPE, np.ones(length), masked_token)

    def without_kind(self, turns: list[Turn], kind: str | None) -> list[Turn]:
        """Those turns whose answers hold no word of a kind; None: all of them."""
        if kind is None:
            return turns
        return [
            replace(
                turn,
                exclusion_codes=np.zeros_like(turn.exclusion_codes),
                shape_labels=remove_kind(turn.shape_labels, kind),
            )
            for turn in turns
            if not np.isin(turn.input_ids[-turn.answer_length :], self.kinds[kind]).any()
        ]

    def _write(self, question: Question, text: str, scene: Scene, times: np.ndarray) -> Turn:
        ids, length = self._encode(words(text), words(question.training_answer))
        codes = np.zeros(len(ids), np.int64)
        codes[-length:-1] = exclusion_codes(question, scene)
        emphasis = np.ones(length)
        if question.type in LONG_TYPES:
            emphasis[find_new_names(question)] = self.new_shapes
        return Turn(question.type, ids, length, codes, *label_sentences(question, scene, times), emphasis)

    def _encode(self, question: Sequence[str], answer: Sequence[str]) -> tuple[np.ndarray, int]:
        """The ids of a turn, and how many of them are the answer's with its end of turn."""
        question_ids, answer_ids = ([self.word_ids[word] for word in part] for part in (question, answer))
        return np.array(question_ids + self.between + answer_ids + [self.end_of_turn]), len(answer_ids) + 1


def label_sentences(question: Question, scene: Scene, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`sentences` and `shape_labels` of a turn. Each sentence of a caption names its shape."""
    if not question.shapes:
        return NO_SHAPE
    if question.type not in LONG_TYPES:
        return np.zeros(1, np.int64), label_shape(scene, question.shapes[0], times)[None]
    written = [words(fact) for fact in question.facts]
    names = [shape.name for shape in scene.shapes]
    labels = [label_shape(scene, names.index(" ".join(sentence[1:3])), times) for sentence in written]
    starts = np.cumsum([0, *(len(sentence) for sentence in written[:-1])])
    return starts, np.stack(labels)


def find_new_names(question: Question) -> list[int]:
    """Of a caption, the words of names of shapes that the sentence before is not about, from 0.

    Most sentences are about the shape of the one before. A model that copies its name is right so often that it hardly
    learned to go on to the next shape.
    """
    found, start, before = [], 0, list[str]()
    for sentence in map(words, question.facts):
        if sentence[1:3] != before:
            found += [start + 1, start + 2]
        start, before = start + len(sentence), sentence[1:3]
    return found


__all__ = ["Turn", "TurnWriter", "find_new_names", "label_sentences"]
