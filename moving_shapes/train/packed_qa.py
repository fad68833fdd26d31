"""Packed questions about a video (see `packing`), with dense labels beside their answers.

The video attends to itself and, in most sequences, to one of the turns, as it attends to the whole prompt at inference.
(Through the video, the words of that turn reach the other turns: about one answer in twenty, and part of it masked.)
The tower is frozen, and its features of a scene are kept, also for later stages.

There are four kinds of dense labels:
- cell labels: what happens to the shape in a cell over the clip (`dense_labels`);
- grounding: the same labels of the shape that a question is about, at the first token of the answer; in captions and
  descriptions, of the shape that each sentence is about, at its first token;
- letters: the letter of an option, at the option's word. Where options are listed it is one token back; in an answer
  the word has to be looked up in the list;
- correct options: whether an option is the answer. Without these labels the model preferred any shape of the video
  among the options.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import Dataset

from vidlada_hf.training.schema import Amount, Count, Counts, Share, Weight
from vidlada_hf.training.task import Task, accuracy

from ..questions import CHOICE_TYPES, LONG_TYPES, check_type
from ..scenes.sampling import KINDS as SCENE_KINDS
from ..vocabulary import LETTERS
from .combinations import KINDS, excluded_words, training_combinations
from .dense_labels import LABELS, LATE_LABELS, UNKNOWN, remove_kind
from .packing import NEWLINE, Packer, packed_attention_mask, stack_sequences
from .scene_pool import ScenePool, render_scene
from .turns import Turn, TurnWriter
from .word_rotation import draw_rotation, rotate_words

_EPOCHS = 10**6  # at most
# Label -> the kinds and the labels of what it is combined with in one shape.
COMBINED_WITH = {
    "first_color": (("shape", "shape"),),
    "last_color": (("shape", "shape"),),
    "shape": (("color", "first_color"), ("color", "last_color")),
    "next_color": (("shape", "next_shape"),),
    "next_shape": (("color", "next_color"),),
}


@dataclass(frozen=True)
class PackedQAOptions:
    """Options of `PackedQATask`.

    Args:
        scenes: size of the pool. Each epoch goes through all its scenes, with other questions.
        kinds: kind of scenes -> share of the pool that is of it, 0..1 together; the others are those of the benchmark's
            questions, in turn. Of many events are few of these, and only they have long captions.
        group: scenes in a row with the same number of frames: a multiple of the batch size of a process, so that little
            is padded.
        frames: how many frames a group may have, each as likely: repeat a number for more weight.
        text_tokens: tokens of questions and answers in a sequence, at most; 0 for cell labels alone.
        option_turns: turns in a sequence that list options without a question (`option_lists`).
        long_answers: share of the sequences with captions or descriptions, 0..1.
        long_turns: how many such a sequence has, as far as there is room.
        block_masks: share of the captions and descriptions that are masked as in the middle of decoding, 0..1; the
            others, and all other answers, at a uniform rate.
        new_shapes: weight, in captions and descriptions, of the words that name a shape that the sentence before is not
            about.
        questions_per_type: type -> how many questions of it are tried for each scene (2 if not named, 1 of captions).
            What one type alone teaches, such as to find a shape by its color, needs more.
        attended_turn: share of the sequences in which the video attends to one of the turns, 0..1. Where it never did,
            a last stage in which it does undid what the visual tokens had computed.
        rotated_words: kind of words ("color", "shape") -> share of the sequences in which they are rotated
            (`word_rotation`), 0..1 together. No answer holds such a word then.
        sentences: share of the questions that are whole sentences, 0..1; the others are a few words.
        kept_empty: share of the empty cells and newlines that are in the sequence, 0..1.
        canvas: lengths of canvases: each answer is padded to one of them, each as likely; 0 for no padding. Without
            padding the number of masks gives away an answer's length, and longer canvases fail.
        padding: padding tokens of an answer that are in the sequence, at most.
        cell_labels, late_labels, grounding, letters, correct_options: weights of the dense labels in the loss. Late
            labels are cell labels that follow from others (`LATE_LABELS`).
        depth: the layer of the text model whose output has to give the cell labels. Correct options take one layer
            more, late labels, grounding, and letters in answers, two more, letters in lists half as many.

    Raises:
        ValueError: scenes that make no whole groups, an unknown question type, an unknown kind of words or scenes, or
            shares of kinds above 1 in all.
    """

    scenes: Count = 15_360
    kinds: Mapping[str, Share] = field(default_factory=dict)
    group: Count = 192
    frames: Counts = (8,)
    text_tokens: Amount = 144
    option_turns: Amount = 0
    long_answers: Share = 0.4
    long_turns: Count = 1
    block_masks: Share = 0.0
    new_shapes: Weight = 1.0
    questions_per_type: Mapping[str, Amount] = field(default_factory=dict)
    attended_turn: Share = 0.0
    rotated_words: Mapping[str, Share] = field(default_factory=dict)
    sentences: Share = 0.5
    kept_empty: Share = 0.15
    canvas: Annotated[Sequence[Amount], Field(min_length=1)] = (0,)
    padding: Count = 8
    cell_labels: Weight = 1.0
    late_labels: Weight = 0.0
    grounding: Weight = 0.0
    letters: Weight = 0.0
    correct_options: Weight = 0.0
    depth: Count = 4

    def __post_init__(self) -> None:
        if self.scenes % self.group:
            raise ValueError(f"`scenes` ({self.scenes}) must be a multiple of `group` ({self.group}).")
        for type in self.questions_per_type:
            check_type(type)
        self._check_shares("rotated_words", "words", KINDS)
        self._check_shares("kinds", "scenes", SCENE_KINDS)

    def _check_shares(self, name: str, what: str, known: Collection[str]) -> None:
        """Raises for an unknown kind, or shares above 1 in all."""
        shares: Mapping[str, float] = getattr(self, name)
        for kind in shares:
            if kind not in known:
                raise ValueError(f"`{name}` has {kind!r}: the kinds of {what} are {', '.join(known)}.")
        total = sum(shares.values())
        if total > 1:
            raise ValueError(f"The shares of `{name}` are {total:g} together, and must be at most 1.")

    @property
    def deepest(self) -> int:
        """The last layer of the text model whose output has dense labels."""
        return self.depth + (2 if self.late_labels or self.grounding or self.letters else bool(self.correct_options))


class PackedQATask(Task):
    """Cell labels and packed questions about a pool of scenes.

    Args:
        model, processor, seed: as of `Task`.
        options: fields of `PackedQAOptions`.

    Raises:
        ValueError: dense labels beyond the last layer of the model.
    """

    Options = PackedQAOptions
    excluded_words: torch.Tensor
    in_training: torch.Tensor

    def __init__(self, model: Any, processor: Any, seed: int = 0, **options: Any) -> None:
        super().__init__(model, processor, seed)
        self.options = settings = PackedQAOptions(**options)
        text_config = model.config.text_config
        if settings.deepest > text_config.num_hidden_layers:
            layers = text_config.num_hidden_layers
            raise ValueError(
                f"`depth` is {settings.depth}: labels would follow layer {settings.deepest} of {layers}. Lower it."
            )
        self.writer = TurnWriter(
            processor.tokenizer, settings.questions_per_type, settings.sentences, settings.new_shapes
        )
        self.packer = Packer(
            self.writer,
            settings.text_tokens,
            settings.option_turns,
            settings.long_answers,
            settings.long_turns,
            settings.block_masks,
            settings.kept_empty,
            settings.canvas,
            settings.padding,
        )
        heads = {
            "cell_labels": (settings.cell_labels, sum(LABELS.values())),
            "late_labels": (settings.late_labels, sum(LABELS.values())),
            "grounding": (settings.grounding, sum(LABELS.values())),
            "letters": (settings.letters, len(LETTERS)),
            "correct_options": (settings.correct_options, 2),
        }
        for name, (weight, classes) in heads.items():
            if weight:
                self.heads[name] = nn.Linear(text_config.hidden_size, classes)
        self.pool = ScenePool(model, settings.scenes, settings.group, settings.frames, settings.kinds)
        self.turns: dict[int, list[Turn]] = {}
        self.register_buffer("excluded_words", excluded_words(self.writer.word_ids), persistent=False)
        # With a class for no shape, which goes with all.
        in_training = nn.functional.pad(training_combinations(), (0, 1, 0, 1), value=True)
        self.register_buffer("in_training", in_training, persistent=False)
        self.letter_ids = torch.tensor([self.writer.word_ids[letter] for letter in LETTERS])

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        contents = super().check(options, seed)
        PackedQAOptions(**options)
        return contents

    def dataset(self) -> Dataset:
        """Items: numbers of sequences. Sequence i is about scene i modulo the size of the pool."""
        return _Numbers(self.pool.size * _EPOCHS)

    # Batches

    def prepare(self, numbers: list[int]) -> None:
        """Draws the questions that this stage has not drawn yet, and encodes the scenes that no stage has."""
        drawn = {number: self.pool.draw(number) for number in numbers if number not in self.turns}
        self.turns |= {number: self.writer.ask(*scene) for number, scene in drawn.items()}
        missing = {number: scene for number, scene in drawn.items() if number not in self.pool}
        self.pool.encode({number: render_scene(scene, times) for number, (scene, _, times, _) in missing.items()})

    def prepare_for_workers(self, workers: int) -> None:
        """Encodes all scenes of the pool."""
        self.pool.encode_all(workers)

    def collate(self, examples: list[int]) -> dict[str, Any]:
        """Packs a sequence for each number, and draws its masks: always the same for the same numbers.

        Returns:
            The tensors of `Packer.pack`, and `features` (batch, tokens, hidden), `cell_labels` (batch, tokens, labels),
            `letter_before` (batch, tokens), `shape_labels` (sentences, labels), `is_correct` (batch, tokens)
            with `correct_options`, `attended_turn` (batch,), `rotations`: for each kind of words (batch, words, words),
            and `types`: a list for each sequence.
        """
        scenes = [number % self.pool.size for number in examples]
        self.prepare(scenes)
        rng = np.random.default_rng((self.seed, 2, examples[0]))
        kinds = [self._draw_rotated_kind(rng) for _ in scenes]
        sequences = [
            self.packer.pack(self.pool[scene], self.turns[scene], kind, rng)
            for scene, kind in zip(scenes, kinds, strict=True)
        ]
        batch = stack_sequences(sequences)
        batch |= self._gather_cells(batch["cell"], scenes, kinds)
        batch["letter_before"] = find_letter_before(batch["input_ids"], self.letter_ids)
        batch["shape_labels"] = torch.from_numpy(np.concatenate([sequence["shape_labels"] for sequence in sequences]))
        types = [sequence["types"] for sequence in sequences]
        if self.options.correct_options:
            batch["is_correct"] = label_options(batch, types)
        batch["attended_turn"] = torch.tensor([self._draw_attended_turn(len(turns), rng) for turns in types])
        rotations = {
            kind: torch.from_numpy(np.stack([draw_rotation(len(ids), kind == rotated, rng) for rotated in kinds]))
            for kind, ids in self.writer.kinds.items()
        }
        return batch | {"rotations": rotations, "types": types}

    def _gather_cells(self, cell: torch.Tensor, scenes: list[int], kinds: list[str | None]) -> dict[str, torch.Tensor]:
        """`features` (batch, tokens, hidden) and `cell_labels` (batch, tokens, labels) of the tokens that are cells."""
        features = torch.zeros(*cell.shape, self.model.config.text_config.hidden_size)
        labels = torch.full((*cell.shape, len(LABELS)), UNKNOWN)
        for i, number in enumerate(scenes):
            scene, is_cell = self.pool[number], cell[i] >= 0
            features[i, is_cell] = scene.features[cell[i, is_cell]].float()
            of_cells = scene.labels[cell[i, is_cell].numpy()].astype(np.int64)
            labels[i, is_cell] = torch.from_numpy(remove_kind(of_cells, kinds[i]))
        return {"features": features, "cell_labels": labels}

    def _draw_attended_turn(self, turns: int, rng: np.random.Generator) -> int:
        """The number of the turn that the video attends to, from 1; 0 for none."""
        return int(rng.integers(turns)) + 1 if turns and rng.random() < self.options.attended_turn else 0

    def _draw_rotated_kind(self, rng: np.random.Generator) -> str | None:
        """The kind of words that is rotated in a sequence."""
        if not any(self.options.rotated_words.values()):
            return None
        drawn = rng.random()
        shares = [self.options.rotated_words.get(kind, 0.0) for kind in KINDS]
        return next((kind for kind, below in zip(KINDS, np.cumsum(shares), strict=True) if drawn < below), None)

    # The loss

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Cross entropy of the masked tokens, each turn weighted by the root of its length, and of the dense labels."""
        masked = batch["loss_weight"] > 0
        outputs = self.model.model.language_model(
            inputs_embeds=self._embed(batch, masked),
            attention_mask=self._attention_mask(batch),
            position_ids=batch["position_ids"],
            output_hidden_states=True,
        )
        loss, metrics = self._loss_of_labels(outputs.hidden_states, batch, masked)
        if masked.any():
            answers, scores = self._loss_of_answers(outputs.last_hidden_state, batch, masked)
            loss = loss + answers
            metrics |= scores | {"answers_loss": answers.item()}
        return {"loss": loss, "metrics": metrics}

    def _attention_mask(self, batch: dict[str, Any]) -> torch.Tensor:
        """Which tokens attend to which: bool (batch, 1, tokens, tokens)."""
        return packed_attention_mask(batch["segment"], batch["attended_turn"])

    def _targets(self, batch: dict[str, Any]) -> torch.Tensor:
        """What is predicted at each token: ids, (batch, tokens)."""
        return batch["input_ids"]

    def _embed(self, batch: dict[str, Any], masked: torch.Tensor) -> torch.Tensor:
        """Embeddings of the words, masks, cells and newlines: (batch, tokens, hidden)."""
        network = self.model.model
        embeddings: Any = network.get_input_embeddings()
        is_cell = batch["cell"] >= 0
        ids = batch["input_ids"].masked_fill(masked, self.model.config.mask_token_id)
        embedded = torch.where(is_cell[..., None], batch["features"], embeddings(ids))
        for kind, rotations in batch["rotations"].items():
            words = torch.tensor(self.writer.kinds[kind], device=ids.device)
            embedded = rotate_words(embedded, is_cell | torch.isin(ids, words), embeddings.weight[words], rotations)
        return torch.where((batch["cell"] == NEWLINE)[..., None], network.image_newline.weight, embedded)

    def _loss_of_labels(
        self, hidden: Sequence[torch.Tensor], batch: dict[str, Any], masked: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Weighted loss and accuracies of all dense labels; `hidden` is that of each layer, (batch, tokens, hidden)."""
        options, labels = self.options, batch["cell_labels"]
        is_labeled = (labels >= 0).any(-1)
        early = [name for name in LABELS if name not in LATE_LABELS]
        loss, metrics = self._classify("cell_labels", hidden[options.depth][is_labeled], labels[is_labeled], early)
        loss = options.cell_labels * loss
        if options.late_labels:
            own, scores = self._classify(
                "late_labels", hidden[options.depth + 2][is_labeled], labels[is_labeled], LATE_LABELS
            )
            loss, metrics = loss + options.late_labels * own, metrics | scores
        if not masked.any():
            return loss, metrics
        if options.grounding:
            starts = batch["begins_sentence"]
            is_hidden = masked[starts]  # the first word of a short answer would give its shape away
            own, scores = self._classify(
                "grounding",
                hidden[options.depth + 2][starts][is_hidden],
                batch["shape_labels"][is_hidden],
                tuple(LABELS),
            )
            loss, metrics = loss + options.grounding * own, metrics | scores
        if options.letters:
            own, scores = self._classify_letters(hidden, batch["letter_before"], batch["in_answer"])
            loss, metrics = loss + options.letters * own, metrics | scores
        if options.correct_options:
            own, scores = self._classify_options(hidden[options.depth + 1], batch["is_correct"])
            loss, metrics = loss + options.correct_options * own, metrics | scores
        return loss, metrics

    def _classify(
        self, head: str, hidden: torch.Tensor, labels: torch.Tensor, names: Sequence[str]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracies of some of `LABELS`, among the combinations of training: hidden (tokens, hidden), labels
        (tokens, labels)."""
        scores_of_all = self.heads[head](rms_normalize(hidden))
        logits = scores_of_all.split(list(LABELS.values()), -1)
        by_name = dict(zip(LABELS, labels.unbind(-1), strict=True))
        loss, metrics = 0 * scores_of_all.sum(), {}  # the head takes part also where no label is defined
        for (name, label), scores in zip(by_name.items(), logits, strict=True):
            is_defined = label >= 0
            if name not in names or not is_defined.any():
                continue
            for kind, other in COMBINED_WITH.get(name, ()):
                scores = scores.masked_fill(
                    ~self._in_training_with(kind, by_name[other])[:, : LABELS[name]], -torch.inf
                )
            loss = loss + nn.functional.cross_entropy(scores[is_defined], label[is_defined])
            metrics[f"{head}/{name}"] = accuracy(scores, label)
        return loss / len(names), metrics

    def _in_training_with(self, kind: str, label: torch.Tensor) -> torch.Tensor:
        """Which classes, and none, training combines with these colors or shapes: bool (tokens, classes + 1). All of
        them with `UNKNOWN` and with none."""
        table = self.in_training if kind == "color" else self.in_training.T
        return table[label] | (label == UNKNOWN)[:, None]

    def _classify_letters(
        self, hidden: Sequence[torch.Tensor], letter_before: torch.Tensor, in_answer: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracies of the letters before words: in early layers where they are listed, late in answers."""
        options = self.options
        loss, metrics = hidden[0].new_zeros(()), {}
        for name, tokens, depth in (
            ("listed", ~in_answer, options.depth // 2),
            ("answered", in_answer, options.depth + 2),
        ):
            tokens = tokens & (letter_before >= 0)
            scores = self.heads["letters"](rms_normalize(hidden[depth][tokens]))
            if not tokens.any():  # the head still takes part: processes wait for the gradients of each
                loss = loss + scores.sum()
                continue
            loss = loss + nn.functional.cross_entropy(scores, letter_before[tokens])
            metrics[f"letters/{name}"] = accuracy(scores, letter_before[tokens])
        return loss, metrics

    def _classify_options(
        self, hidden: torch.Tensor, is_correct: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracy of whether an option is the answer."""
        tokens = is_correct >= 0
        scores = self.heads["correct_options"](rms_normalize(hidden[tokens]))
        if not tokens.any():  # the head still takes part: processes wait for the gradients of each
            return scores.sum(), {}
        accuracies = {"correct_options": accuracy(scores, is_correct[tokens])}
        return nn.functional.cross_entropy(scores, is_correct[tokens]), accuracies

    def _loss_of_answers(
        self, hidden: torch.Tensor, batch: dict[str, Any], masked: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of the masked tokens, and the accuracies of first words."""
        targets = self._targets(batch)[masked]
        logits = self.model.lm_head(hidden[masked])
        is_right = logits.argmax(-1) == targets
        logits = logits.masked_fill(self.excluded_words[batch["exclusion_codes"][masked]], -torch.inf)
        entropy = nn.functional.cross_entropy(logits, targets, reduction="none")
        total = (entropy * batch["loss_weight"][masked]).sum() / batch["answer_length"].float().sqrt().sum()
        return total, score_first_words(is_right, masked, batch)


class _Numbers(Dataset):
    in_order = True  # shuffled, groups would fall apart

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def find_letter_before(ids: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """The index of the letter one token before each token, -1 where there is none: (batch, tokens), int64."""
    is_letter = ids[..., None] == letters
    number = torch.where(is_letter.any(-1), is_letter.int().argmax(-1), -1)
    return nn.functional.pad(number, (1, 0), value=-1)[:, :-1]


def label_options(batch: dict[str, torch.Tensor], types: Sequence[Sequence[str]]) -> torch.Tensor:
    """Whether the listed options of multiple choices are the answer, where its letter and its word are masked.

    Returns:
        (batch, tokens), int64: 1 or 0 at the words of these options, -1 at all other tokens.
    """
    labels = torch.full_like(batch["input_ids"], -1)
    for i, first in (batch["answer_length"] > 0).nonzero().tolist():
        turn = batch["segment"][i, first]
        if types[i][int(turn) - 1] in CHOICE_TYPES and (batch["loss_weight"][i, first : first + 2] > 0).all():
            letters = batch["letter_before"][i]
            listed = (batch["segment"][i] == turn) & (letters >= 0) & ~batch["in_answer"][i]
            labels[i, listed] = (letters[listed] == letters[first + 1]).long()
    return labels


def score_first_words(is_right: torch.Tensor, masked: torch.Tensor, batch: dict[str, Any]) -> dict[str, float]:
    """Accuracy of the first word of answers where it is masked, by type, and over all short answers.

    Args:
        is_right: of each masked token, (masked tokens,), bool.
        masked: (batch, tokens), bool.
    """
    is_first = (batch["answer_length"] > 0)[masked]
    sequences = masked.nonzero()[:, 0][is_first].tolist()
    turns, values = batch["segment"][masked][is_first].tolist(), is_right[is_first].tolist()
    by_type: dict[str, list[bool]] = {}
    for sequence, turn, value in zip(sequences, turns, values, strict=True):
        by_type.setdefault(batch["types"][sequence][turn - 1], []).append(value)
    short = [value for type, values in by_type.items() if type not in LONG_TYPES for value in values]
    scores = {f"first_word/{type}": float(np.mean(values)) for type, values in by_type.items()}
    return scores | {"first_word": float(np.mean(short)) if short else float("nan")}


def rms_normalize(hidden: torch.Tensor) -> torch.Tensor:
    """The input of a head: (..., hidden), each of root mean square 1."""
    return nn.functional.rms_norm(hidden, hidden.shape[-1:])


__all__ = ["PackedQAOptions", "PackedQATask"]
