"""The `model_args` of lmms-eval: what is loaded, which frames are read, how prompts and answers are made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...modeling.generation_config_vidlada import ALIASES, VidLaDAGenerationConfig, rename_aliases
from ...processing.options_vidlada import check_choice, unknown_option
from ...processing.prompts_vidlada import PROMPT_OPTIONS, TEMPLATE_OPTIONS
from ...processing.sampling_vidlada import check_sampling

FRAMES = ("num_frames", "fps", "max_frames", "force_sample", "sample_by", "resize")
PROMPTS = {**TEMPLATE_OPTIONS, **PROMPT_OPTIONS}
# Special ids and the form of the output are the model's and the adapter's.
GENERATION = tuple(
    name
    for name in VidLaDAGenerationConfig.FIELDS
    if name not in ("return_dict_in_generate", "pad_token_id", "bos_token_id")
)


@dataclass(frozen=True)
class ModelArgs:
    """Arguments of the model, checked.

    Args:
        pretrained: a checkpoint's folder or its id on the Hub; None: the embedded one.
        dtype: of the weights; "auto": as stored.
        share_video: questions about one video share its keys and values, for which it does not see them: answers are
            not exact.
        workers: threads that read videos while the device answers.
        answers: a folder that keeps each answer as it comes; a run that was interrupted goes on with it. None: none is
            kept.
        inputs: options of the processor, of `FRAMES` and `PROMPTS`.
        generation: fields of `VidLaDAGenerationConfig`, which go before what a task asks for.
    """

    pretrained: str | None = None
    dtype: str = "auto"
    share_video: bool = False
    workers: int = 2
    answers: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("pretrained", "answers"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"`{name}` must be a text, got {getattr(self, name)!r}.")
        if not isinstance(self.share_video, bool):
            raise ValueError(f"`share_video` must be True or False, got {self.share_video!r}.")
        check_count("workers", self.workers)
        check_sampling(*(self.inputs.get(name) for name in ("num_frames", "fps", "max_frames")))
        for name, choices in PROMPTS.items():
            if name in self.inputs:
                check_choice(name, self.inputs[name], choices)
        config = VidLaDAGenerationConfig(**self.generation)
        if {"max_new_tokens", "block_length", "max_denoising_steps"} <= self.generation.keys():
            config.blocks()  # otherwise what is missing comes from the task
        if self.share_video and config.cfg_scale > 0:
            raise ValueError(
                f"`cfg_scale` ({config.cfg_scale}) also runs prompts without their video: do not share it."
            )

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "ModelArgs":
        """From names and values as lmms-eval parses them; `cache_config` may be JSON text.

        Raises:
            ValueError: a name that is unknown (the message gives the nearest known one), or a value that is impossible,
                by itself or beside others.
        """
        own = {each.name for each in fields(cls)} - {"inputs", "generation"}
        for name in given:
            if name not in {*own, *FRAMES, *PROMPTS, *GENERATION, *ALIASES}:
                raise ValueError(unknown_option(name, "model_args", {*own, *FRAMES, *PROMPTS, *GENERATION}))
        said = {name: value for name, value in given.items() if value is not None}
        generation = rename_aliases({name: said[name] for name in said if name in (*GENERATION, *ALIASES)})
        if isinstance(generation.get("cache_config"), str):
            generation["cache_config"] = _read_json("cache_config", generation["cache_config"])
        return cls(
            **{name: said[name] for name in said if name in own},
            inputs={name: said[name] for name in said if name in FRAMES or name in PROMPTS},
            generation=generation,
        )


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 1, which may be written as text; raises a ValueError that names it for another."""
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    return int(text)


def _read_json(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f'`{name}={text}` is no JSON ({error}): write {name}={{"anchors":8}}, say.') from error
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` must be a JSON object, got {text}.")
    return value


__all__ = ["FRAMES", "GENERATION", "PROMPTS", "ModelArgs", "check_count"]
