"""How to denoise: the settings of `generate`, their checks, and the official code's names for them."""

import copy
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from transformers.generation import GenerationConfig
from transformers.utils import logging

from .arguments_vidlada import check_choice, refuse_unknown
from .cache_strategies_vidlada import refuse_unserved, resolve_cache_strategy
from .cache_vidlada import DenoisingStep
from .stock_arguments_vidlada import drop_neutral, is_neutral, settle_sampling
from .unmasking_vidlada import resolve_unmasking

logger = logging.get_logger(__name__)

# The official code's argument names -> ours.
ALIASES = {
    "gen_length": "max_new_tokens",
    "steps": "max_denoising_steps",
    "gen_steps": "max_denoising_steps",
    "cfg": "cfg_scale",
    "generation_suffix": "suffix",
    "generation_context_ids": "canvas",
}


class Block(NamedTuple):
    """A block of the canvas.

    Args:
        columns: of the canvas.
        steps: in which it is denoised, at most.
    """

    columns: slice
    steps: int


class VidLaDAGenerationConfig(GenerationConfig):
    """How to denoise. Stored as generation_config.json; each field is also an argument of `generate`.

    Args:
        max_new_tokens: length of the canvas in tokens (official name `gen_length`).
        block_length: the canvas is denoised block by block, each of so many tokens. None: 32, the last block shorter
            where 32 does not divide the canvas.
        max_denoising_steps: steps over the whole canvas, shared evenly by the blocks (official `steps`, `gen_steps`).
            None: one token a step.
        allow_uneven: without it, blocks must divide the canvas and steps must be a multiple of the blocks. With it the
            last block may be shorter, and the first blocks get one step more.
        unmasking: the rule that commits tokens: "quota" (so many a step, the most confident first), "threshold",
            "local", "factor", "entropy", "klass", "prophet" (more where the model is sure) or "wino" (still more, and
            some are taken back; only with the cache strategy "none"). See `unmasking_vidlada`.
        unmask_threshold, unmask_factor, unmask_entropy_bound: of the rule of that name; probability, factor, nats.
            The first is also the probability of "local"'s anchors.
        unmask_relaxed_threshold: "local": the probability that commits a position near an anchor.
        unmask_stable_threshold, unmask_kl_bound: "klass": the probability that commits a position whose prediction
            changed by less than so many nats in each of the last two steps.
        unmask_gap: "prophet": the lead of the best logit over the second that commits a whole block early on.
        unmask_draft_threshold, unmask_keep_threshold: "wino": the probability that commits a position, and the one that
            a committed token must have in later steps, or it is masked again.
        cache_strategy: what a step recomputes: "none" (everything, exact), "mars" (MARS-Cache),
            "prefix", "dual" (Fast-dLLM) or "interval" (dLLM-Cache); see `cache_strategies_vidlada`.
        cache_config: settings of the strategy of that name, a dict such as {"anchors": 4}.
        temperature: 0 takes the most probable token; above, Gumbel noise in float64 is added to the choice.
        cfg_scale: classifier-free guidance, logits = un + (scale + 1) (cond - un), where the unconditional branch sees
            masks instead of the whole prompt, video included. 0 switches it off.
        remasking: the confidence that orders positions: "low_confidence" (probability of the chosen token, float64) or
            "random".
        suppress_tokens: ids that a masked position never becomes. None: the model config's.
        eos_token_id: ids that end the answer wherever they appear in it; the earliest wins and is cut off. [] for none.
        stop_token_ids: further stops, each an id or a sequence of ids.
        stop_strings: further stops as text. They need `tokenizer=`; a token in which a stop begins is cut off whole.
        official_stop_search: once a stop was found, look only for the first of the stops again, as the official code
            does by mistake.
        cuda_graphs: on a CUDA device, steps whose shape repeats are captured in a CUDA graph and replayed, which gives
            the same tokens in less time. Where the model or the strategy cannot be captured, steps run as they are.
        compile: compile the layers with inductor, once for all layers; the first step then takes up to a minute.
            Sums are rounded otherwise than without.
        seed: of the noise ("random" remasking, temperature > 0), where no `generator` is given. Each example of a batch
            draws from a generator of its own with this seed, and so gets what it gets alone.
        return_dict_in_generate: return a `VidLaDAGenerationOutput` instead of the sequences.
        pad_token_id, bos_token_id: special ids. Sequences shorter than the longest are padded on the right.

    Raises:
        ValueError: a value that is impossible, or a name that is unknown (the message gives the nearest known one).
    """

    max_length = 0  # read by `Seq2SeqTrainer`, which pads what is shorter

    FIELDS: dict[str, Any] = {
        "max_new_tokens": 128,
        "block_length": None,
        "max_denoising_steps": None,
        "allow_uneven": False,
        "unmasking": "quota",
        "unmask_threshold": 0.9,
        "unmask_factor": 1.0,
        "unmask_entropy_bound": 0.1,
        "unmask_relaxed_threshold": 0.75,
        "unmask_stable_threshold": 0.6,
        "unmask_kl_bound": 0.01,
        "unmask_gap": 7.5,
        "unmask_draft_threshold": 0.6,
        "unmask_keep_threshold": 0.9,
        "cache_strategy": "none",
        "cache_config": None,
        "temperature": 0.0,
        "cfg_scale": 0.0,
        "remasking": "low_confidence",
        "suppress_tokens": None,
        "eos_token_id": None,
        "stop_token_ids": None,
        "stop_strings": None,
        "official_stop_search": False,
        "cuda_graphs": True,
        "compile": False,
        "seed": None,
        "return_dict_in_generate": False,
        "pad_token_id": None,
        "bos_token_id": None,
    }

    def __init__(self, **kwargs: Any) -> None:
        # Not the parent's: its attributes are autoregressive decoding's, and accepting them would swallow mistakes.
        for name, default in self.FIELDS.items():
            setattr(self, name, kwargs.pop(name, default))
        self.transformers_version = kwargs.pop("transformers_version", None)
        self._from_model_config = kwargs.pop("_from_model_config", False)
        refuse_max_length(kwargs.pop("max_length", None))
        refuse_unknown([name for name in kwargs if not name.startswith("_")], self.FIELDS, "generation argument")
        self.validate()

    def validate(self, *_: Any, **__: Any) -> None:
        """Raises a ValueError that names the first field of an impossible value. None stands for a field's default."""
        for name, default in self.FIELDS.items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        for name in ("max_new_tokens", "block_length", "max_denoising_steps"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
            setattr(self, name, int(value))  # numpy's whole numbers cannot be stored as JSON
        for name in ("temperature", "cfg_scale"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
                raise ValueError(f"`{name}` must be a number of at least 0, got {value!r}.")
        for name in ("cuda_graphs", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False, got {getattr(self, name)!r}.")
        check_choice("remasking", self.remasking, ("low_confidence", "random"))
        for name in ("unmasking", "cache_strategy"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"`{name}` is stored by its name, got {getattr(self, name)!r}: pass an object to `generate` itself."
                )
        rule = resolve_unmasking(self.unmasking, self)
        refuse_unserved(resolve_cache_strategy(self.cache_strategy, self.cache_config), rule)

    def blocks(self) -> list[Block]:
        """The canvas cut in blocks.

        Where no block length was asked for, the last block may be shorter than 32.

        Raises:
            ValueError: a division is not exact and `allow_uneven` is off, or there are fewer steps than blocks.
        """
        length, steps = self.max_new_tokens, self.max_denoising_steps
        block = self.block_length or min(32, length)
        if length % block and self.block_length is not None and not self.allow_uneven:
            divisor = max(n for n in range(1, min(block, length) + 1) if length % n == 0)
            raise ValueError(
                f"`block_length` ({block}) does not divide `max_new_tokens` ({length}). Take a divisor such as "
                f"{divisor}; in Python, `allow_uneven=True` makes the last block shorter."
            )
        starts = range(0, length, block)
        columns = [slice(start, min(start + block, length)) for start in starts]
        if steps is None:
            return [Block(block, block.stop - block.start) for block in columns]
        if steps < len(starts):
            raise ValueError(
                f"`max_denoising_steps` ({steps}) must be at least the number of blocks ({len(starts)} of {block} "
                "tokens)."
            )
        if steps % len(starts) and not self.allow_uneven:
            raise ValueError(
                f"`max_denoising_steps` ({steps}) is not a multiple of the number of blocks ({len(starts)} of {block} "
                f"tokens). Take a multiple such as {steps - steps % len(starts)}; in Python, `allow_uneven=True` gives "
                "the first blocks one step more."
            )
        base, rest = divmod(steps, len(starts))
        return [Block(block, base + (i < rest)) for i, block in enumerate(columns)]

    def planned_steps(self) -> list[DenoisingStep]:
        """All steps of a canvas of masks that no stop ends early, with `span` counted from the canvas' beginning."""
        plan = [(number, i, block.columns) for number, block in enumerate(self.blocks()) for i in range(block.steps)]
        return [DenoisingStep(index, number, i, span) for index, (number, i, span) in enumerate(plan)]

    @classmethod
    def from_model_config(cls, model_config: Any) -> "VidLaDAGenerationConfig":
        """The defaults, with the special ids of a `VidLaDAConfig`."""
        text = model_config.get_text_config()
        return cls(pad_token_id=text.pad_token_id, bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id)

    @classmethod
    def of(cls, config: GenerationConfig) -> "VidLaDAGenerationConfig":
        """A copy of a config, which may be a stock `GenerationConfig`: what is set in that is taken, or refused, as
        arguments of `generate` are."""
        if hasattr(config, "FIELDS"):
            return copy.deepcopy(config)  # type: ignore[return-value]
        said = {name: value for name, value in config.to_dict().items() if not name.startswith(("_", "transformers_"))}
        refuse_max_length(said.get("max_length"))
        settings = cls.from_dict(drop_neutral(said, cls.FIELDS))
        settle_sampling(settings, said)
        return settings

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From a parsed generation_config.json; fields of autoregressive decoding in it are left out with a warning.

        Of these, `do_sample=False` is what the temperature 0 is here.
        """
        foreign = [name for name in GenerationConfig().to_dict() if name in config_dict and name not in cls.FIELDS]
        meant = [name for name in foreign if not name.startswith(("_", "transformers_"))]
        set_fields = [name for name in meant if config_dict[name] and not is_neutral(name, config_dict[name])]
        if set_fields:
            names = ", ".join(set_fields)
            logger.warning("generation_config.json sets %s, which a diffusion model does not use.", names)
        kept = {k: v for k, v in config_dict.items() if k not in foreign or k == "_from_model_config"}
        if config_dict.get("do_sample") is False:
            kept["temperature"] = 0.0
        elif config_dict.get("do_sample") and not config_dict.get("temperature"):
            logger.warning("generation_config.json sets do_sample, but no temperature to draw with: nothing is drawn.")
        return super().from_dict(kept, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All fields that are set, so that the stored file says exactly how its results were made."""
        return copy.deepcopy({name: getattr(self, name) for name in self.FIELDS if getattr(self, name) is not None})

    def to_diff_dict(self) -> dict[str, Any]:
        """The same as `to_dict`: nothing is left to a default that may change."""
        return self.to_dict()


def refuse_max_length(value: Any) -> None:
    """Refuses a length that counts the prompt."""
    if value is not None:
        raise ValueError(
            f"`max_length={value!r}` counts the prompt, whose visual tokens nobody counts: give `max_new_tokens`, the "
            "length of the canvas for the answer."
        )


def rename_aliases(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Official argument names -> ours. `modalities` goes: what the inputs are shows in the inputs.

    Raises:
        ValueError: two names of one argument with different values, or `max_length`.
    """
    refuse_max_length(kwargs.get("max_length"))
    renamed: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name in ("modalities", "max_length"):
            continue
        ours = ALIASES.get(name, name)
        if ours in renamed and renamed[ours] is not value and renamed[ours] != value:
            raise ValueError(
                f"`{ours}` is given twice with different values: {renamed[ours]!r} and {value!r} (as `{name}`)."
            )
        renamed[ours] = value
    return renamed


__all__ = ["ALIASES", "Block", "VidLaDAGenerationConfig", "rename_aliases"]
