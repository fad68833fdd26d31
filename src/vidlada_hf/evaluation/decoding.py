"""What a benchmark compares: a cache strategy with an unmasking rule, and how it answers questions."""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..modeling.cache_strategies_vidlada import resolve_cache_strategy
from ..modeling.cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout
from ..modeling.unmasking_vidlada import UNMASKING_STRATEGIES, UnmaskingStrategy, resolve_unmasking
from .cost_model import StepCost, TextShape, cost_of_steps
from .counting import count_kept
from .questions import VideoQuestion

ENDINGS = ("stop", "block", "canvas")


@dataclass(frozen=True)
class DecodingSetup:
    """A cache strategy with an unmasking rule.

    Args:
        cache: its name.
        settings: its `cache_config`.
        unmasking: the rule's name.
        bound: the rule's number; None: its default.

    Raises:
        ValueError: a name or a setting that is unknown or impossible.
    """

    cache: str = "none"
    settings: dict[str, Any] = field(default_factory=dict)
    unmasking: str = "quota"
    bound: float | None = None

    def __post_init__(self) -> None:
        self.build()

    @property
    def name(self) -> str:
        """Such as `mars{"anchors": 8} + threshold:0.8`."""
        settings = json.dumps(self.settings) if self.settings else ""
        bound = "" if self.bound is None else f":{self.bound:g}"
        return f"{self.cache}{settings} + {self.unmasking}{bound}"

    def build(self) -> tuple[DenoisingCache, UnmaskingStrategy]:
        """New objects of both."""
        rule = resolve_unmasking(self.unmasking)
        if self.bound is not None:
            if UNMASKING_STRATEGIES[self.unmasking][1] is None:
                raise ValueError(f"The unmasking rule {self.unmasking!r} takes no number, got {self.bound:g}.")
            rule = UNMASKING_STRATEGIES[self.unmasking][0](self.bound)
        return resolve_cache_strategy(self.cache, self.settings or None), rule


EXACT = DecodingSetup()


def read_cache(text: str) -> tuple[str, dict[str, Any]]:
    """A strategy as it is typed: its name, or its name, a colon and its settings as JSON.

    Raises:
        ValueError: what follows the colon is no JSON object.
    """
    name, colon, rest = text.partition(":")
    try:
        settings = json.loads(rest) if colon else {}
    except ValueError as error:
        raise ValueError(f"The settings in {text!r} are no JSON ({error}): write {name}:{{...}}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"The settings in {text!r} must be a JSON object: write {name}:{{...}}.")
    return name, settings


def read_unmasking(text: str) -> tuple[str, float | None]:
    """A rule as it is typed: its name, or its name, a colon and its number."""
    name, colon, rest = text.partition(":")
    try:
        return name, float(rest) if colon else None
    except ValueError as error:
        raise ValueError(f"{rest!r} in {text!r} is no number: write {name}:0.9, say.") from error


def combine(caches: Sequence[str], rules: Sequence[str]) -> list[DecodingSetup]:
    """Every strategy with every rule, exact decoding first, none twice."""
    typed = [(read_cache(cache), read_unmasking(rule)) for cache in caches for rule in rules]
    found = [EXACT, *(DecodingSetup(*cache, *rule) for cache, rule in typed)]
    return list({contender.name: contender for contender in found}.values())


def prepare_inputs(processor: Any, questions: Sequence[VideoQuestion], num_frames: int) -> Any:
    """The inputs of `generate` for a batch of questions, `num_frames` of each video: a `BatchFeature`."""
    return processor.apply_chat_template(
        [question.messages() for question in questions],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": num_frames, "padding": True},
    )


def answer_questions(
    model: Any,
    processor: Any,
    questions: Sequence[VideoQuestion],
    num_frames: int = 8,
    batch_size: int = 16,
    **settings: Any,
) -> Iterator[list[str]]:
    """Answers questions as users get them: yields the texts of one batch after the other, in the questions' order.

    Args:
        settings: arguments of `generate`.
    """
    for start in range(0, len(questions), batch_size):
        inputs = prepare_inputs(processor, questions[start : start + batch_size], num_frames)
        inputs = inputs.to(model.device, model.dtype)
        with torch.no_grad():
            output = model.generate(**inputs, **settings)
        answers = output[:, inputs["input_ids"].shape[1] :]
        yield [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]


@dataclass(frozen=True)
class Encoded:
    """A batch of questions whose videos the tower has seen.

    Args:
        inputs: of `generate`, without pixels.
        features: (rows, hidden) of each video.
    """

    inputs: dict[str, Any]
    features: list[torch.Tensor]


@dataclass
class Watch:
    """What a run did, seen step by step. Pass `see` as a `step_callback`.

    Attributes:
        strategy: the one that ran, afterwards.
        layout: of the batch.
        steps: that ran.
        tokens: committed; forwards: summed over the examples that could commit any.
        kept: the most bytes that the strategy held after a step.
    """

    strategy: DenoisingCache
    layout: SequenceLayout | None = None
    steps: list[DenoisingStep] = field(default_factory=list)
    tokens: int = 0
    forwards: int = 0
    kept: int = 0

    def see(self, done: Any) -> None:
        """A step."""
        self.layout = self.strategy.layout
        self.steps.append(done.step)
        self.tokens += int(done.committed.sum())
        self.forwards += sum(done.step.active[: len(done.committed)])
        self.kept = max(self.kept, count_kept(self.strategy))

    def costs(self, shape: TextShape, element_size: int) -> list[StepCost] | None:
        """What its steps cost on paper, see `cost_of_steps`."""
        assert self.layout is not None
        return cost_of_steps(self.strategy, shape, self.layout, self.steps, element_size)


@dataclass(frozen=True)
class DecodingRunner:
    """Answers questions in one setting, so that only the contender differs.

    Args:
        model, processor: of one checkpoint.
        num_frames: of each video.
        ending: when an answer that has ended is left alone. "stop": at once, as users get it. "block": once its block
            is finished; what is committed before the end is then the same as with "canvas". "canvas": never, so that
            all steps run. The last two know end tokens only, no other stops.
        settings: arguments of `generate`.
    """

    model: Any
    processor: Any
    num_frames: int
    ending: str = "stop"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ending not in ENDINGS:
            raise ValueError(f"`ending` must be one of {', '.join(map(repr, ENDINGS))}, got {self.ending!r}.")
        self.config.blocks()

    @property
    def config(self) -> Any:
        """The generation config that `generate` will use."""
        config = type(self.model.generation_config).of(self.model.generation_config)
        config.update(**self.settings)
        return config

    @property
    def ends(self) -> set[int]:
        """Ids that end an answer."""
        text = self.model.config.get_text_config()
        ids = [self.config.eos_token_id, self.config.pad_token_id, text.eos_token_id, text.pad_token_id]
        return {i for each in ids if each is not None for i in (each if isinstance(each, list) else [each])}

    @torch.no_grad()
    def encode(self, questions: Sequence[VideoQuestion]) -> Encoded:
        """Reads the videos of a batch of questions and lets the tower see them, once for all contenders."""
        inputs = dict(
            prepare_inputs(self.processor, questions, self.num_frames).to(self.model.device, self.model.dtype)
        )
        pixels = inputs.pop("pixel_values_videos")
        return Encoded(inputs, self.model.get_video_features(pixels, inputs["video_num_frames"]))

    def answer(
        self, encoded: Encoded, contender: DecodingSetup, watch: Callable[[DenoisingCache], Any] | None = None
    ) -> Any:
        """(batch, columns), int64: the answers as `generate` leaves them; `take` cuts them.

        Args:
            watch: is given the strategy, and returns a `step_callback`.
        """
        strategy, rule = contender.build()
        settings = dict(self.settings)
        prompt = encoded.inputs["input_ids"].shape[1]
        if self.ending != "stop":
            settings |= {"eos_token_id": [], "stop_token_ids": None, "stop_strings": None}
        if self.ending == "block":
            config, mask = self.config, self.model.config.mask_token_id
            blocks = [slice(prompt + columns.start, prompt + columns.stop) for columns, _ in config.blocks()]
            settings["stopping_criteria"] = [FinishedBlock(blocks, sorted(self.ends), mask)]
        sequences = self.model.generate(
            **encoded.inputs,
            video_features=encoded.features,
            cache_strategy=strategy,
            unmasking=rule,
            step_callback=None if watch is None else watch(strategy),
            tokenizer=getattr(self.processor, "tokenizer", None),  # random weights come without a processor
            **({"return_dict_in_generate": False} | settings),
        )
        return sequences[:, prompt:]

    def take(self, answers: torch.Tensor) -> list[list[int]]:
        """The ids of each answer up to its end."""
        ends = self.ends
        return [row[: next((i for i, t in enumerate(row) if t in ends), len(row))] for row in answers.tolist()]

    def read(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The answers as texts."""
        return [self.processor.decode(row, skip_special_tokens=True).strip() for row in ids]


class Enough(Exception):
    """Raised between two steps: those so far are enough."""


def answer_partly(
    denoiser: DecodingRunner,
    encoded: Encoded,
    contender: DecodingSetup,
    limit: int | None = None,
    watch: Callable[[DenoisingCache], Any] | None = None,
) -> None:
    """`DecodingRunner.answer`, broken off after so many steps; None: all of them."""

    def limited(strategy: DenoisingCache) -> Callable[[Any], None]:
        see, numbers = watch and watch(strategy), itertools.count(1)

        def callback(done: Any) -> None:
            if see is not None:
                see(done)
            if next(numbers) == limit:
                raise Enough

        return callback

    with contextlib.suppress(Enough):
        denoiser.answer(encoded, contender, watch if limit is None else limited)


@dataclass(frozen=True)
class FinishedBlock:
    """A stopping criterion: some block has no masks left, and holds an end.

    Args:
        blocks: their columns in the sequences.
        ends: ids.
        mask: id.
    """

    blocks: list[slice]
    ends: list[int]
    mask: int

    def __call__(self, ids: torch.Tensor, scores: Any = None, **_: Any) -> torch.Tensor:
        """(batch, columns), int64 -> (batch,), bool."""
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for columns in self.blocks:
            block = ids[:, columns]
            has_end = torch.isin(block, ids.new_tensor(self.ends)).any(-1)
            ended |= has_end & (block != self.mask).all(-1)
        return ended


__all__ = [
    "EXACT",
    "DecodingSetup",
    "DecodingRunner",
    "Encoded",
    "FinishedBlock",
    "Watch",
    "answer_partly",
    "answer_questions",
    "combine",
    "prepare_inputs",
    "read_cache",
    "read_unmasking",
]
