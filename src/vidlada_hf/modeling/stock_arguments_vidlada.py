"""Arguments that stock callers pass to `generate`: what means nothing here is taken, anything else refused by name."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers.generation import GenerationConfig, GenerationMixin

# Values of arguments of autoregressive decoding that change nothing here; None never does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_cache": (True, False),
    "disable_compile": (True, False),
    "use_model_defaults": (True, False),
    "do_sample": (True, False),  # see `settle_sampling`
    "synced_gpus": (False,),
    **dict.fromkeys(("num_beams", "num_return_sequences", "num_beam_groups"), (1,)),
    **dict.fromkeys(("top_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty"), (1.0,)),
    **dict.fromkeys(("length_penalty", "guidance_scale"), (1.0,)),
    **dict.fromkeys(("top_k", "min_p", "epsilon_cutoff", "eta_cutoff", "diversity_penalty"), (0,)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), (0,)),
    **dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), (False,)),
    **dict.fromkeys(("past_key_values", "constraints", "force_words_ids", "cache_position"), ()),
    **dict.fromkeys(("early_stopping", "renormalize_logits", "remove_invalid_values", "token_healing"), (False,)),
}
STOCK = {*NEUTRAL, *vars(GenerationConfig()), *inspect.signature(GenerationMixin.generate).parameters} - {
    *("self", "inputs", "kwargs")
}


def is_neutral(name: str, value: Any) -> bool:
    """Whether a stock argument with this value changes nothing here."""
    if name == "synced_gpus" and value is True:  # processes that wait for each other: there is but one
        return not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    return value is None or (isinstance(value, bool | int | float) and value in NEUTRAL.get(name, ()))


def drop_neutral(arguments: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """The arguments without those that stock callers pass and that change nothing.

    Args:
        own: names that mean something here.

    Raises:
        ValueError: a stock argument with a value that would mean something.
    """
    kept = {}
    for name, value in arguments.items():
        if name in own or name not in STOCK:
            kept[name] = value
        elif not is_neutral(name, value):
            raise ValueError(f"`{name}={value!r}` belongs to autoregressive decoding. {REMEDIES.get(name, REMEDY)}")
    return kept


REMEDY = "VidLaDA draws with `temperature` above 0, and reuses computation with `cache_strategy`."
REMEDIES = {
    "synced_gpus": "Processes end their answers at different steps, and would wait for each other: generate with whole "
    "weights in each process.",
}


def settle_sampling(settings: Any, arguments: Mapping[str, Any]) -> None:
    """Does what `do_sample` says, which is said by `temperature` here: 0 takes the most probable token.

    Args:
        settings: the generation config with the arguments in it, which is changed.
        arguments: of `generate`.

    Raises:
        ValueError: the two contradict each other.
    """
    do_sample, temperature = arguments.get("do_sample"), arguments.get("temperature")
    if do_sample and not settings.temperature:
        raise ValueError("`do_sample=True` draws by a `temperature` above 0: give one.")
    if do_sample is False and settings.temperature:
        if temperature not in (None, 0, 1):  # 1 is what stock callers leave it at
            raise ValueError(
                f"`do_sample=False` takes the most probable token, `temperature={temperature}` draws: leave out one."
            )
        settings.temperature = 0.0


__all__ = ["STOCK", "drop_neutral", "is_neutral", "settle_sampling"]
