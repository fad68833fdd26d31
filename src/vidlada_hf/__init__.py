"""VidLaDA, a video LLM whose language model is a masked diffusion model, for Hugging Face Transformers.

Importing this package imports neither torch nor transformers. The public names load on first use, and transformers'
Auto classes and pipelines learn about VidLaDA when they are themselves imported, before or after this package.
"""

from importlib import import_module
from typing import Any

from .registration import register_when_imported

__version__ = "0.1.0"

_HOMES = {
    "modeling.configuration_vidlada": ["VidLaDAConfig", "VidLaDATextConfig"],
    "modeling.modeling_vidlada": ["VidLaDAForConditionalGeneration", "VidLaDAModel"],
    "modeling.text_model_vidlada": ["VidLaDATextModel"],
    "modeling.generation_config_vidlada": ["VidLaDAGenerationConfig"],
    "modeling.generation_vidlada": ["VidLaDAGenerationOutput"],
    "modeling.observers_vidlada": ["StepOutput"],
    "modeling.cache_vidlada": [
        "DenoisingCache",
        "DenoisingStep",
        "NoCache",
        "PlannedCache",
        "SequenceLayout",
        "StepPlan",
    ],
    "modeling.kv_cache_vidlada": ["DualCache", "PrefixCache", "SelectiveKVCache"],
    "modeling.dllm_cache_vidlada": ["DLLMCache"],
    "modeling.mars_cache_vidlada": ["MARSCache", "MARSCacheConfig"],
    "modeling.video_cache_vidlada": ["VideoCache"],
    "modeling.unmasking_vidlada": [
        "EntropyBoundUnmasking",
        "FactorUnmasking",
        "FixedQuotaUnmasking",
        "KLASSUnmasking",
        "LocalUnmasking",
        "ProphetUnmasking",
        "ThresholdUnmasking",
        "UnmaskingStrategy",
        "WINOUnmasking",
    ],
    "processing.processing_vidlada": ["VidLaDAProcessor"],
    "processing.video_processing_vidlada": ["VidLaDAVideoProcessor"],
    "processing.video_reading_vidlada": ["VideoReadingError", "read_video"],
    "processing.addresses_vidlada": ["AllowedAddress"],
    "processing.limits_vidlada": ["ReadingLimits"],
    "processing.pipeline_vidlada": ["VideoTextToTextPipeline"],
    "hub.convert": ["convert_official_checkpoint"],
    "hub.export": ["export_checkpoint"],
    "hub.locate": ["EMBEDDED_CHECKPOINT"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])


register_when_imported()
