"""Questions with their answers as rows of a sequence: what the chat template makes of them behind a video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import BENCHMARK_TYPES, Question, Scene, ask, words
from ..questions import HELPER_TYPES, LONG_TYPES
from .combinations import KINDS, code_answer
from .options import draw_options
from .timelines import TIMELINES, UNKNOWN, forget, life_of

SHORT_TYPES = tuple(type for type in (*BENCHMARK_TYPES, *HELPER_TYPES) if type not in LONG_TYPES)


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Args:
        type: of the question.
        ids: (rows,), the last `answer` of them to be learned.
        codes: (rows,), of `code_answer`.
        life: (timelines,), of the shape that it is about; -1 where it is about none.
        asked: the only place of the answer to be masked; None: any.
    """

    type: str
    ids: np.ndarray
    answer: int
    codes: np.ndarray
    life: np.ndarray
    asked: int | None = None


class TurnWriter:
    """Draws questions about a scene and spells them.

    Args:
        tokenizer: of the model.
        repeat: type -> how many questions of it are tried for each scene; 2 of types that are not named, 1 of captions.
        sentences: how many questions are whole sentences, 0..1; the others are a few words.
    """

    def __init__(self, tokenizer: Any, repeat: Mapping[str, int], sentences: float) -> None:
        tries = dict.fromkeys(SHORT_TYPES, 2) | {"caption": 1, "detail": 2} | dict(repeat)
        self.tried = [type for type, times in tries.items() for _ in range(times)]
        self.sentences = sentences
        self.word_ids = tokenizer.get_vocab()
        self.kinds = {kind: [self.word_ids[name] for name in names] for kind, names in KINDS.items()}
        header, end_header, end_of_turn = tokenizer.convert_tokens_to_ids(
            ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        )
        self.end_of_turn, self.pad = end_of_turn, tokenizer.pad_token_id
        self.opening = [tokenizer.bos_token_id, header, self.word_ids["user"], end_header]
        self.between = [end_of_turn, header, self.word_ids["assistant"], end_header]

    def ask(self, scene: Scene, first: Question, times: np.ndarray, rng: np.random.Generator) -> list[Turn]:
        """A scene's own question and different others."""
        asked = {first.questions[0]: first}
        for type in self.tried:
            question = ask(scene, type, rng)
            if question is not None:
                asked.setdefault(question.questions[0], question)
        return [
            self._turn(question, question.questions[int(rng.random() < self.sentences)], scene, times)
            for question in asked.values()
        ]

    def list_options(self, rng: np.random.Generator) -> Turn:
        """Options and one of them with its letter, see `draw_options`."""
        listed, told, asked = draw_options(rng)
        ids, answer = self._spell(listed, told)
        return Turn("options", ids, answer, np.zeros(len(ids), np.int64), np.full(len(TIMELINES), UNKNOWN), asked)

    def without(self, turns: list[Turn], kind: str | None) -> list[Turn]:
        """Those turns whose answers name nothing of a kind."""
        if kind is None:
            return turns
        return [
            replace(turn, codes=np.zeros_like(turn.codes), life=forget(turn.life, kind))
            for turn in turns
            if not np.isin(turn.ids[-turn.answer :], self.kinds[kind]).any()
        ]

    def _turn(self, question: Question, text: str, scene: Scene, times: np.ndarray) -> Turn:
        ids, answer = self._spell(words(text), words(question.taught))
        codes = np.zeros(len(ids), np.int64)
        codes[-answer:-1] = code_answer(question, scene)
        life = life_of(scene, question.shapes[0], times) if question.shapes else np.full(len(TIMELINES), UNKNOWN)
        return Turn(question.type, ids, answer, codes, life)

    def _spell(self, asked: Sequence[str], said: Sequence[str]) -> tuple[np.ndarray, int]:
        """The ids of a turn, and how many of them are the answer's with its end of turn."""
        question, answer = ([self.word_ids[word] for word in part] for part in (asked, said))
        return np.array(question + self.between + answer + [self.end_of_turn]), len(answer) + 1


__all__ = ["Turn", "TurnWriter"]
