"""How questions are answered: by one cache strategy and one unmasking rule, on one model, in one setting."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..hub.loading import load_network, resolve_device
from ..hub.locate import find_checkpoint
from ..modeling.cache_strategies_vidlada import CACHE_STRATEGIES, refuse_unserved, resolve_cache_strategy, serves
from ..modeling.cache_vidlada import DenoisingCache
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.observers_vidlada import StepOutput
from ..modeling.unmasking_vidlada import UNMASKING_STRATEGIES, UnmaskingStrategy, resolve_unmasking
from ..modeling.video_cache_vidlada import VideoCache
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.read_ahead_vidlada import ReadAhead
from ..setting_names import parse_cache, parse_unmasking
from .questions import VideoQuestion

STOP_AFTER = ("answer", "block", "canvas")


@dataclass(frozen=True)
class DecodingSetup:
    """A cache strategy and an unmasking rule.

    Args:
        cache_strategy, cache_config: the strategy's name and its settings.
        unmasking: the rule's name.
        unmasking_value: the rule's number, such as its threshold; None: its default.
        share_video: the video's keys and values are there, and do not see the question: answers are not exact.

    Raises:
        ValueError: a name or a setting that is unknown or impossible, or a strategy that does not serve the rule.
    """

    cache_strategy: str = "none"
    cache_config: dict[str, Any] = field(default_factory=dict)
    unmasking: str = "quota"
    unmasking_value: float | None = None
    share_video: bool = False

    def __post_init__(self) -> None:
        self.build()

    @property
    def name(self) -> str:
        """Such as `mars{"anchors": 8} + threshold:0.8`."""
        return f"{self.cache_name} + {self.unmasking_name}"

    @property
    def cache_name(self) -> str:
        """Such as `mars{"anchors": 8}`, or `mars, shared video`."""
        settings = json.dumps(self.cache_config) if self.cache_config else ""
        return self.cache_strategy + settings + (", shared video" if self.share_video else "")

    @property
    def unmasking_name(self) -> str:
        """Such as `threshold:0.8`."""
        return self.unmasking + ("" if self.unmasking_value is None else f":{self.unmasking_value:g}")

    def build(self) -> tuple[DenoisingCache, UnmaskingStrategy]:
        """New objects of both."""
        rule = resolve_unmasking(self.unmasking)
        if self.unmasking_value is not None:
            build, fields = UNMASKING_STRATEGIES[self.unmasking]
            if not fields:
                raise ValueError(
                    f"The unmasking rule {self.unmasking!r} takes no number, got {self.unmasking_value:g}."
                )
            rule = build(self.unmasking_value)
        cache = resolve_cache_strategy(self.cache_strategy, self.cache_config or None)
        refuse_unserved(cache, rule)
        return cache, rule


EXACT = DecodingSetup()


def combine_setups(
    caches: Sequence[str] | None = None, rules: Sequence[str] | None = None, share_video: bool = False
) -> list[DecodingSetup]:
    """Every strategy with every rule, both as they are typed; exact decoding first, none twice. None: all of them that
    go with the others.

    Raises:
        ValueError: see `DecodingSetup`.
    """
    parsed_caches = [parse_cache(cache) for cache in caches or CACHE_STRATEGIES]
    parsed_rules = [parse_unmasking(rule) for rule in rules or UNMASKING_STRATEGIES]
    pairs = [(cache, rule) for cache in parsed_caches for rule in parsed_rules]
    if not (caches and rules):
        pairs = [(c, r) for c, r in pairs if serves(resolve_cache_strategy(c[0]), resolve_unmasking(r[0]))]
    return unique_setups([EXACT, *(DecodingSetup(*cache, *rule, share_video) for cache, rule in pairs)])


def unique_setups(setups: Sequence[DecodingSetup]) -> list[DecodingSetup]:
    """Each name once, in the order in which they come."""
    return list({setup.name: setup for setup in setups}.values())


def video_key(question: VideoQuestion) -> Any:
    """The same of questions about one video."""
    video = question.video
    return id(video) if isinstance(video, np.ndarray) else (type(video), video)


def group_by_video(questions: Sequence[VideoQuestion]) -> list[VideoQuestion]:
    """Questions about one video behind each other, videos in the order in which they come first."""
    groups: dict[Any, list[VideoQuestion]] = {}
    for question in questions:
        groups.setdefault(video_key(question), []).append(question)
    return [question for group in groups.values() for question in group]


def split_batches(questions: Sequence[VideoQuestion], batch_size: int, share_video: bool = False) -> list[slice]:
    """Batches of at most so many; to share a video, of questions about one that follow each other."""
    if not share_video:
        return [slice(start, start + batch_size) for start in range(0, len(questions), batch_size)]
    batches: list[slice] = []
    for number, question in enumerate(questions):
        last = batches[-1] if batches else slice(0, 0)
        if number and number - last.start < batch_size and video_key(question) == video_key(questions[number - 1]):
            batches[-1] = slice(last.start, number + 1)
        else:
            batches.append(slice(number, number + 1))
    return batches


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
    share_video: bool = False,
    **settings: Any,
) -> Iterator[list[str]]:
    """Answers questions as users get them: yields the texts of one batch after the other, in the questions' order.

    The next batch's videos are read meanwhile.

    Args:
        share_video: a batch is of questions about one video that follow each other, and shares its keys and values:
            answers are not exact.
        settings: arguments of `generate`.
    """
    batches = (questions[part] for part in split_batches(questions, batch_size, share_video))
    for inputs in ReadAhead(prepare_inputs(processor, batch, num_frames) for batch in batches):
        inputs = inputs.to(model.device, model.dtype)
        with torch.no_grad():
            output = model.generate(**inputs, share_video=share_video, **settings)
        answers = output[:, inputs["input_ids"].shape[1] :]
        yield [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of questions whose videos are encoded.

    Args:
        inputs: of `generate`, without pixels.
        features: of each video, (tokens, hidden).
        video_cache: of the one video that all are about, where it is to be shared.
    """

    inputs: dict[str, Any]
    features: list[torch.Tensor]
    video_cache: VideoCache | None = None


@dataclass(frozen=True)
class DecodingRunner:
    """Answers questions in one setting, so that only the `DecodingSetup` differs.

    Args:
        model, processor: of one checkpoint.
        num_frames: of each video.
        stop_after: what an answer is denoised to the end of. "answer": its first end token, as users get it. "block":
            the block that this token is in; what is committed before it is then the same as with "canvas". "canvas":
            all steps run. The last two know end tokens only, no other stops.
        settings: arguments of `generate`.
    """

    model: Any
    processor: Any
    num_frames: int
    stop_after: str = "answer"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stop_after not in STOP_AFTER:
            known = ", ".join(map(repr, STOP_AFTER))
            raise ValueError(f"`stop_after` must be one of {known}, got {self.stop_after!r}.")
        self.config.blocks()

    @classmethod
    def from_pretrained(
        cls, model: str | None, num_frames: int, dtype: str = "auto", **options: Any
    ) -> "DecodingRunner":
        """Loads a checkpoint's folder or id (None: the embedded one) onto the GPU if there is one.

        Args:
            dtype: of the weights; "auto": as stored.
            options: `stop_after`, `settings`.
        """
        name = find_checkpoint(model)
        processor = VidLaDAProcessor.from_pretrained(name)
        return cls(load_network(name, resolve_device(None), dtype), processor, num_frames, **options)

    @property
    def config(self) -> VidLaDAGenerationConfig:
        """The generation config that `generate` will use."""
        config = VidLaDAGenerationConfig.of(self.model.generation_config)
        config.update(**self.settings)
        return config

    @property
    def end_token_ids(self) -> set[int]:
        """Ids that end an answer."""
        text = self.model.config.get_text_config()
        ids = [self.config.eos_token_id, self.config.pad_token_id, text.eos_token_id, text.pad_token_id]
        return {i for each in ids if each is not None for i in (each if isinstance(each, list) else [each])}

    def encode(self, questions: Sequence[VideoQuestion], share_video: bool = False) -> EncodedBatch:
        """Reads and encodes the videos of a batch of questions, once for all set-ups.

        Args:
            share_video: they are about one video, whose keys and values are computed too.
        """
        return self._encode(self._prepare(questions), share_video)

    def encode_all(
        self, batches: Iterable[Sequence[VideoQuestion]], share_video: bool = False
    ) -> Iterator[EncodedBatch]:
        """`encode` of each batch when it is asked for; the next one's videos are read meanwhile."""
        return (self._encode(prepared, share_video) for prepared in ReadAhead(map(self._prepare, batches)))

    def _prepare(self, questions: Sequence[VideoQuestion]) -> Any:
        """The inputs of a batch, with the pixels of one video where all are about it."""
        inputs = prepare_inputs(self.processor, questions, self.num_frames)
        if len({video_key(question) for question in questions}) == 1:
            frames = int(inputs["num_frames_per_video"][0])
            inputs["pixel_values_videos"] = inputs["pixel_values_videos"][:frames]
        return inputs

    @torch.no_grad()
    def _encode(self, prepared: Any, share_video: bool) -> EncodedBatch:
        inputs = dict(prepared.to(self.model.device, self.model.dtype))
        pixels, counts = inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"]
        copies = int(counts.sum()) // len(pixels)
        given = counts[: len(counts) // copies]
        features = list(self.model.get_video_features(pixels, given, return_dict=True).pooler_output)
        if not share_video:
            return EncodedBatch(inputs, features * copies)
        ids, mask = (inputs[name][:1] for name in ("input_ids", "attention_mask"))
        return EncodedBatch(inputs, features * copies, self.model.encode_video(ids, mask, video_features=features))

    def generate(
        self,
        batch: EncodedBatch,
        cache: DenoisingCache,
        rule: UnmaskingStrategy,
        step_callback: Callable[[StepOutput], None] | None = None,
        max_steps: int | None = None,
        share_video: bool = False,
    ) -> torch.Tensor:
        """Denoises the answers of a batch.

        Args:
            cache, rule: of `DecodingSetup.build`.
            max_steps: leave the rest of the canvas masked after so many steps; None: run all.
            share_video: by the batch's video cache.

        Returns:
            (batch, tokens), int64; `cut_answers` cuts them at their ends.
        """
        prompt = batch.inputs["input_ids"].shape[1]
        settings = {"return_dict_in_generate": False} | self.settings
        criteria: list[Any] = [] if max_steps is None else [StepLimit(max_steps)]
        if self.stop_after != "answer":
            settings |= {"eos_token_id": [], "stop_token_ids": None, "stop_strings": None}
        if self.stop_after == "block":
            spans = [slice(prompt + block.columns.start, prompt + block.columns.stop) for block in self.config.blocks()]
            criteria.append(CompletedBlock(spans, sorted(self.end_token_ids), self.model.config.mask_token_id))
        sequences = self.model.generate(
            **batch.inputs,
            **({"video_cache": batch.video_cache} if share_video else {"video_features": batch.features}),
            cache_strategy=cache,
            unmasking=rule,
            step_callback=step_callback,
            stopping_criteria=criteria,
            tokenizer=getattr(self.processor, "tokenizer", None),  # random weights come without a processor
            **settings,
        )
        return sequences[:, prompt:]

    def cut_answers(self, answers: torch.Tensor) -> list[list[int]]:
        """The ids of each answer (batch, tokens) before its first end token."""
        ends = self.end_token_ids
        return [ids[: next((i for i, id in enumerate(ids) if id in ends), len(ids))] for ids in answers.tolist()]

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Ids of answers -> texts."""
        return [self.processor.decode(ids, skip_special_tokens=True).strip() for ids in answers]


class StepLimit:
    """A stopping criterion: so many steps are done."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps, self.steps = max_steps, 0

    def __call__(self, ids: torch.Tensor, scores: Any = None, **_: Any) -> torch.Tensor:
        """(batch, tokens), int64 -> (batch,), bool."""
        self.steps += 1
        return torch.full((len(ids),), self.steps >= self.max_steps, device=ids.device)


@dataclass(frozen=True)
class CompletedBlock:
    """A stopping criterion: some block has no masks left, and holds an end token.

    Args:
        spans: of the blocks in the sequences.
        end_token_ids, mask_token_id: ids.
    """

    spans: list[slice]
    end_token_ids: list[int]
    mask_token_id: int

    def __call__(self, ids: torch.Tensor, scores: Any = None, **_: Any) -> torch.Tensor:
        """(batch, tokens), int64 -> (batch,), bool."""
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for span in self.spans:
            block = ids[:, span]
            has_end = torch.isin(block, ids.new_tensor(self.end_token_ids)).any(-1)
            ended |= has_end & (block != self.mask_token_id).all(-1)
        return ended


__all__ = [
    "EXACT",
    "STOP_AFTER",
    "CompletedBlock",
    "DecodingRunner",
    "DecodingSetup",
    "EncodedBatch",
    "answer_questions",
    "combine_setups",
    "group_by_video",
    "prepare_inputs",
    "split_batches",
    "unique_setups",
]
