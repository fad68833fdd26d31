"""Packed questions about a video (see `packing`), and the timelines of its shapes as dense labels.

The video sees itself and, in most lessons, one of the turns, as it does in the end. (Through the video, the words of
the turn that it sees reach the other turns: one answer in about twenty, and part of that masked.) The tower is frozen,
and what it makes of a scene is kept, also for later stages.

Dense labels say more than answers do: those of visual rows what happens to the shape that they show, and those of an
answer's first row what is true of the shape that the question is about ("grounding"). Those of the words behind letters
which letter it is: first to look one row back, then where else the word stands, then what it answers; and those of the
options whether they are the answer ("verdicts"): without, a shape among them was taken for what the question is about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from vidlada_hf.training.schema import Amount, Count, Counts, Share, Weight
from vidlada_hf.training.task import Task, accuracy

from .. import BENCHMARK_TYPES, Question, Scene, frame_times
from ..dataset import draw_question
from ..questions import CHOICE_TYPES, HELPER_TYPES, LONG_TYPES, check_type
from ..scenes.cells import label_cells
from ..scenes.rendering import render
from ..vocabulary import LETTERS
from .cells import GRID, encode_cells, normalize
from .combinations import KINDS, draw_turn, left_out, shown_together, turn_words
from .packing import Material, Packer, stack, who_sees_whom
from .timelines import TIMELINES, UNKNOWN, forget, label_timelines
from .turns import Turn, TurnWriter

_POOL_SEED = 77
_VISITS = 10**6  # of each scene, at most
# What the towers of this process made of scenes: tower's fingerprint -> (scene's number, frames) -> material.
_BANKS: dict[float, dict[tuple[int, int], Material]] = {}


class PackedQATask(Task):
    """Timelines and packed questions about a pool of scenes.

    Args:
        scenes: how many there are in the pool, the same in all stages; lessons go through it again and again, with
            other questions.
        group: scenes in a row with the same number of frames: a multiple of the batch size of a process, so that
            little is padded.
        frames: how many frames a group may have, each as likely: repeat a number for more weight.
        text_rows: rows of questions and answers in a lesson, at most; 0 for timelines alone.
        options: turns in a lesson that list options and tell a letter by its word or a word by its letter.
        long_turns: captions or descriptions in a lesson, one or none: how likely there is one.
        repeat: type -> how many questions of it are tried for each scene (2 if not named, 1 of captions). What one type
            alone teaches, such as to find a shape by its color, needs more.
        seen: in how many lessons the video sees one of the turns, 0..1. Where it never did, a last stage in which it
            does undid what its rows had computed.
        nameless: kind of words ("color", "shape") -> in how many lessons they have no names, 0..1 together: see
            `combinations.turn_words`. Their names are then not asked for.
        sentences: how many questions are whole sentences, 0..1; the others are a few words.
        kept: how many empty cells and newlines are in the sequence, 0..1.
        canvas: lengths of canvases: each answer is padded to one of them, as likely as the others; 0 for no padding.
            Without it a model knows an answer's length by its masks, and fails on canvases that are longer.
        padding: rows of an answer's padding that are in the sequence, at most.
        timelines, grounding, letters, verdicts: weights of the dense labels.
        depth: how many layers of the text model have to know the timelines; verdicts take one more, grounding, and
            letters in answers, two more, letters in lists half as many.
    """

    left_out: torch.Tensor
    shown: torch.Tensor

    def __init__(
        self,
        model: Any,
        processor: Any,
        seed: int = 0,
        scenes: Count = 15_360,
        group: Count = 192,
        frames: Counts = (8,),
        text_rows: Amount = 144,
        options: Amount = 0,
        long_turns: Share = 0.4,
        repeat: Mapping[str, Amount] | None = None,
        seen: Share = 0.0,
        nameless: Mapping[str, Share] | None = None,
        sentences: Share = 0.5,
        kept: Share = 0.15,
        canvas: Annotated[Sequence[Amount], Field(min_length=1)] = (0,),
        padding: Count = 8,
        timelines: Weight = 1.0,
        grounding: Weight = 0.0,
        letters: Weight = 0.0,
        verdicts: Weight = 0.0,
        depth: Count = 4,
    ) -> None:
        super().__init__(model, processor, seed)
        check_options(scenes, group, repeat or {}, nameless or {})
        deepest = depth + (2 if grounding or letters else bool(verdicts))
        layers = model.config.text_config.num_hidden_layers
        if deepest > layers:
            raise ValueError(f"`depth` is {depth}: labels would follow layer {deepest} of {layers}. Lower it.")
        self.scenes, self.group, self.frames = scenes, group, tuple(frames)
        self.seen, self.nameless = seen, dict(nameless or {})
        self.timelines, self.grounding, self.letters, self.verdicts = timelines, grounding, letters, verdicts
        self.depth = depth
        self.writer = TurnWriter(processor.tokenizer, repeat or {}, sentences)
        self.packer = Packer(self.writer, text_rows, options, long_turns, kept, canvas, padding)
        labels = sum(TIMELINES.values())
        heads = {
            "timelines": (timelines, labels),
            "grounding": (grounding, labels),
            "letters": (letters, len(LETTERS)),
            "verdicts": (verdicts, 2),
        }
        for name, (weight, classes) in heads.items():
            if weight:
                self.heads[name] = nn.Linear(model.config.text_config.hidden_size, classes)
        frozen = (*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters())
        self.bank = _BANKS.setdefault(sum(p.double().sum().item() for p in frozen), {})
        self.turns: dict[int, list[Turn]] = {}
        self.register_buffer("left_out", left_out(self.writer.word_ids), persistent=False)
        self.register_buffer("shown", shown_together(), persistent=False)
        self.letter_ids = torch.tensor([self.writer.word_ids[letter] for letter in LETTERS])

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises a ValueError for unknown and impossible options."""
        contents = super().check(options, seed)
        given = {name: parameter.default for name, parameter in signature(cls).parameters.items()} | options
        check_options(given["scenes"], given["group"], given["repeat"] or {}, given["nameless"] or {})
        return contents

    def dataset(self) -> Dataset:
        """Items: numbers of lessons, whose scenes are those of the pool again and again."""
        return _Numbers(self.scenes * _VISITS)

    # What there is to learn about a scene

    def prepare(self, numbers: list[int]) -> None:
        """Draws the questions that this stage has not drawn yet, and encodes the scenes that no stage has."""
        drawn = {number: self._draw(number) for number in numbers if number not in self.turns}
        self.turns |= {number: self.writer.ask(*scene) for number, scene in drawn.items()}
        fresh = {number: scene for number, scene in drawn.items() if self._key(number) not in self.bank}
        if fresh:
            self._keep({number: view(scene, times) for number, (scene, _, times, _) in fresh.items()})

    def prepare_for_workers(self, workers: int) -> None:
        """Encodes all scenes of the pool, which so many workers render."""
        missing = [number for number in range(self.scenes) if self._key(number) not in self.bank]
        if not missing:  # an earlier stage has encoded them: no workers are started
            return
        loader = DataLoader(_Views(self, missing), self.group, num_workers=workers, collate_fn=dict)
        for views in tqdm(loader, f"Encoding {len(missing)} scenes", leave=False):
            self._keep(views)

    def _keep(self, views: dict[int, "_View"]) -> None:
        """Encodes scenes, by their numbers, into the bank."""
        pixels = normalize(torch.from_numpy(np.concatenate([seen.pixels for seen in views.values()])))
        with torch.no_grad():
            features = encode_cells(self.model, pixels.to(self.model.device))
        parts = features.half().cpu().flatten(1, 2).split([len(seen.pixels) for seen in views.values()])
        for (number, seen), part in zip(views.items(), parts, strict=True):
            self.bank[self._key(number)] = Material(part.flatten(0, 1), seen.labels, seen.filled, len(seen.pixels))

    def _key(self, number: int) -> tuple[int, int]:
        """The scene's number and how many of its frames are shown."""
        rng = np.random.default_rng((_POOL_SEED, number // self.group))
        return number, int(self.frames[rng.integers(len(self.frames))])

    def _draw(self, number: int) -> tuple[Scene, Question, np.ndarray, np.random.Generator]:
        """The scene with its own question, when its frames are, and what its other questions are drawn with."""
        times = frame_times(self._key(number)[1])
        rng = np.random.default_rng((_POOL_SEED, 1, number))
        types = (*BENCHMARK_TYPES, *HELPER_TYPES)
        scene, first = draw_question(rng, "train", types[number % len(types)], times)
        return scene, first, times, rng

    # Batches

    def collate(self, examples: list[int]) -> dict[str, Any]:
        """Packs a lesson for each number and draws what is masked in it: the same whenever a run comes by."""
        scenes = [number % self.scenes for number in examples]
        self.prepare(scenes)
        rng = np.random.default_rng((self.seed, 2, examples[0]))
        kinds = [self._draw_nameless(rng) for _ in scenes]
        sequences = [
            self.packer.pack(self.bank[self._key(scene)], self.turns[scene], kind, rng)
            for scene, kind in zip(scenes, kinds, strict=True)
        ]
        batch = stack(sequences)
        batch |= self._show(batch["cell"], scenes, kinds)
        batch["behind"] = behind_letters(batch["ids"], self.letter_ids)
        batch["lives"] = torch.from_numpy(np.concatenate([sequence["lives"] for sequence in sequences]))
        types = [sequence["types"] for sequence in sequences]
        if self.verdicts:
            batch["verdicts"] = judge_options(batch, types)
        batch["seen"] = torch.tensor([self._draw_seen(len(asked), rng) for asked in types])
        turned = {
            kind: torch.from_numpy(np.stack([draw_turn(len(ids), kind == nameless, rng) for nameless in kinds]))
            for kind, ids in self.writer.kinds.items()
        }
        return batch | {"turned": turned, "types": types}

    def _show(self, cell: torch.Tensor, scenes: list[int], kinds: list[str | None]) -> dict[str, torch.Tensor]:
        """`features` (batch, rows, hidden) and `labels` (batch, rows, timelines) of the rows that are cells."""
        features = torch.zeros(*cell.shape, self.model.config.text_config.hidden_size)
        labels = torch.full((*cell.shape, len(TIMELINES)), UNKNOWN)
        for i, scene in enumerate(scenes):
            material, shown = self.bank[self._key(scene)], cell[i] >= 0
            features[i, shown] = material.features[cell[i, shown]].float()
            known = forget(material.labels[cell[i, shown].numpy()].astype(np.int64), kinds[i])
            labels[i, shown] = torch.from_numpy(known)
        return {"features": features, "labels": labels}

    def _draw_seen(self, turns: int, rng: np.random.Generator) -> int:
        """The number of the turn that the video sees, from 1; 0 for none."""
        return int(rng.integers(turns)) + 1 if turns and rng.random() < self.seen else 0

    def _draw_nameless(self, rng: np.random.Generator) -> str | None:
        """Which kind of words has no meaning in a lesson."""
        if not any(self.nameless.values()):
            return None
        drawn = rng.random()
        shares = [self.nameless.get(kind, 0.0) for kind in KINDS]
        return next((kind for kind, below in zip(KINDS, np.cumsum(shares), strict=True) if drawn < below), None)

    # The loss

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Cross entropy of the masked tokens, each turn weighted by the root of its length, and of the timelines."""
        segment, weight = batch["segment"], batch["weight"]
        network = self.model.model
        masked = weight > 0
        ids = batch["ids"].masked_fill(masked, self.model.config.mask_token_id)
        rows = network.get_input_embeddings()(ids)
        rows = torch.where((batch["cell"] >= 0)[..., None], batch["features"], rows)
        for kind, turned in batch["turned"].items():
            words = torch.tensor(self.writer.kinds[kind], device=ids.device)
            told = (batch["cell"] >= 0) | torch.isin(ids, words)
            rows = turn_words(rows, told, network.get_input_embeddings().weight[words], turned)
        rows = torch.where((batch["cell"] == -2)[..., None], network.image_newline.weight, rows)
        outputs = network.language_model(
            inputs_embeds=rows,
            attention_mask=who_sees_whom(segment, batch["seen"]),
            position_ids=batch["position"],
            output_hidden_states=True,
        )
        labels = batch["labels"]
        shown = (labels >= 0).any(-1)
        loss, metrics = self._tell("timelines", outputs.hidden_states[self.depth][shown], labels[shown])
        loss = self.timelines * loss
        if masked.any():
            if self.grounding:
                asked = batch["answers"] > 0
                covered = masked[asked]  # an answer's word that is not masked would give its shape away
                told, found = self._tell(
                    "grounding", outputs.hidden_states[self.depth + 2][asked][covered], batch["lives"][covered]
                )
                loss, metrics = loss + self.grounding * told, metrics | found
            if self.letters:
                told, found = self._tell_letters(outputs.hidden_states, batch["behind"], batch["said"])
                loss, metrics = loss + self.letters * told, metrics | found
            if self.verdicts:
                told, found = self._tell_verdicts(outputs.hidden_states[self.depth + 1], batch["verdicts"])
                loss, metrics = loss + self.verdicts * told, metrics | found
            logits = self.model.lm_head(outputs.last_hidden_state[masked])
            right = logits.argmax(-1) == batch["ids"][masked]
            logits = logits.masked_fill(self.left_out[batch["codes"][masked]], -torch.inf)
            entropy = nn.functional.cross_entropy(logits, batch["ids"][masked], reduction="none")
            answers = (entropy * weight[masked]).sum() / batch["answers"].float().sqrt().sum()
            loss = loss + answers
            metrics |= self._score(right, masked, batch)
            metrics["answers_loss"] = answers.item()
        return {"loss": loss, "metrics": metrics}

    def _tell(self, head: str, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracies of dense labels, among what can be told apart: hidden (rows, hidden), labels (rows,
        timelines)."""
        logits = self.heads[head](normed(hidden)).split(list(TIMELINES.values()), -1)
        by_name = dict(zip(TIMELINES, labels.unbind(-1), strict=True))
        loss, metrics = hidden.new_zeros(()), {}
        for (name, label), scores in zip(by_name.items(), logits, strict=True):
            defined = label >= 0
            if not defined.any():
                continue
            if name.endswith("_color"):
                scores = scores.masked_fill(~self._shown_with("shape", by_name["shape"]), -torch.inf)
            if name == "shape":
                colors = by_name["first_color"], by_name["last_color"]
                shown = self._shown_with("color", colors[0]) & self._shown_with("color", colors[1])
                scores = scores.masked_fill(~shown, -torch.inf)
            loss = loss + nn.functional.cross_entropy(scores[defined], label[defined])
            metrics[f"{head}/{name}"] = accuracy(scores, label)
        return loss / len(TIMELINES), metrics

    def _shown_with(self, kind: str, label: torch.Tensor) -> torch.Tensor:
        """What training shows with these shapes or in these colors, all with an unknown one: (rows, classes), bool."""
        table = self.shown if kind == "color" else self.shown.T
        return table[label] | (label == UNKNOWN)[:, None]

    def _tell_letters(
        self, hidden: Sequence[torch.Tensor], behind: torch.Tensor, said: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracies of the letters before words: early where they are listed, late in answers."""
        loss, metrics = hidden[0].new_zeros(()), {}
        for name, rows, depth in (("listed", ~said, self.depth // 2), ("answered", said, self.depth + 2)):
            rows = rows & (behind >= 0)
            if rows.any():
                scores = self.heads["letters"](normed(hidden[depth][rows]))
                loss = loss + nn.functional.cross_entropy(scores, behind[rows])
                metrics[f"letters/{name}"] = accuracy(scores, behind[rows])
        return loss, metrics

    def _tell_verdicts(self, hidden: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and accuracy of whether an option is what the question asks for."""
        rows = right >= 0
        scores = self.heads["verdicts"](normed(hidden[rows]))
        if not rows.any():  # the head still takes part: processes wait for the gradients of each
            return scores.sum(), {}
        return nn.functional.cross_entropy(scores, right[rows]), {"verdicts": accuracy(scores, right[rows])}

    def _score(self, right: torch.Tensor, masked: torch.Tensor, batch: dict[str, Any]) -> dict[str, float]:
        """Accuracy of the first word of short answers where it was masked, by type."""
        found: dict[str, list[bool]] = {}
        first = (batch["answers"] > 0)[masked]
        lessons = masked.nonzero()[:, 0][first].tolist()
        turns, values = batch["segment"][masked][first].tolist(), right[first].tolist()
        for lesson, turn, value in zip(lessons, turns, values, strict=True):
            found.setdefault(batch["types"][lesson][turn - 1], []).append(value)
        short = [one for type, values in found.items() if type not in LONG_TYPES for one in values]
        scores = {f"first_word/{type}": float(np.mean(values)) for type, values in found.items()}
        return scores | {"first_word": float(np.mean(short)) if short else float("nan")}


def check_options(scenes: int, group: int, repeat: Mapping[str, int], nameless: Mapping[str, float]) -> None:
    """Raises a ValueError for scenes that make no whole groups, for unknown question types, and for words without names
    of unknown kinds or in more than all lessons."""
    if scenes % group:
        raise ValueError(f"`scenes` ({scenes}) must be a multiple of `group` ({group}).")
    for type in repeat:
        check_type(type)
    for kind in nameless:
        if kind not in KINDS:
            raise ValueError(f"`nameless` has {kind!r}: words without names are of {', '.join(KINDS)}.")
    if sum(nameless.values()) > 1:
        raise ValueError(f"The shares of `nameless` are {sum(nameless.values()):g} together, and must be at most 1.")


@dataclass(frozen=True)
class _View:
    """A scene as the tower sees it, uint8 (frames, side, side, 3), and what its cells show, see `Material`."""

    pixels: np.ndarray
    labels: np.ndarray
    filled: np.ndarray


def view(scene: Scene, times: np.ndarray) -> _View:
    """Renders and labels a scene."""
    cells = label_cells(scene, times, GRID)
    labels = label_timelines(scene, times, cells).reshape(-1, len(TIMELINES)).astype(np.int8)
    return _View(render(scene, times), labels, cells.identity.reshape(-1) >= 0)


class _Views(Dataset):
    """Some of the scenes of the pool: (number, what is seen of it)."""

    def __init__(self, lessons: PackedQATask, numbers: list[int]) -> None:
        self.lessons, self.numbers = lessons, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[int, _View]:
        scene, _, times, _ = self.lessons._draw(self.numbers[index])
        return self.numbers[index], view(scene, times)


class _Numbers(Dataset):
    in_order = True  # shuffled, groups would fall apart

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def behind_letters(ids: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """For each row the number of the letter that stands one row before, -1 where none does: (batch, rows), int64."""
    found = ids[..., None] == letters
    number = torch.where(found.any(-1), found.int().argmax(-1), -1)
    return nn.functional.pad(number, (1, 0), value=-1)[:, :-1]


def judge_options(batch: dict[str, torch.Tensor], types: Sequence[Sequence[str]]) -> torch.Tensor:
    """For each option of a multiple choice 1 if it is the answer and 0 if not, where the answer shows neither its
    letter nor its word; -1 for all other rows: (batch, rows), int64."""
    right = torch.full_like(batch["ids"], -1)
    for i, first in (batch["answers"] > 0).nonzero().tolist():
        turn = batch["segment"][i, first]
        if types[i][int(turn) - 1] in CHOICE_TYPES and (batch["weight"][i, first : first + 2] > 0).all():
            listed = (batch["segment"][i] == turn) & (batch["behind"][i] >= 0) & ~batch["said"][i]
            right[i, listed] = (batch["behind"][i, listed] == batch["behind"][i, first + 1]).long()
    return right


def normed(hidden: torch.Tensor) -> torch.Tensor:
    """What a head reads: (..., hidden), each of size 1."""
    return nn.functional.rms_norm(hidden, hidden.shape[-1:])


__all__ = ["PackedQATask"]
