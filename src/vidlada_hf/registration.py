"""Tells transformers' Auto classes and pipelines about VidLaDA, when they first look something up and not before.

transformers imports its Auto modules from the middle of its other modules, whichever of these comes first, so nothing of
ours can be imported at the moment when an Auto module appears. What is hung there instead is a dict that registers
VidLaDA, by transformers' own `register`, at the first look-up after the imports are over.
"""

import sys
from collections.abc import Callable
from typing import Any

from wrapt import when_imported

MODEL_TYPE = "vidlada"
TASK = "video-text-to-text"


class RegisteredOnLookup(dict):
    """A registry of transformers that calls `register` once, before the first look-up that is not part of an import.

    Args:
        content: what the registry holds already.
        register: registers our classes, in this very dict.
    """

    def __init__(self, content: dict, register: Callable[[], None]) -> None:
        super().__init__(content)
        self._register: Callable[[], None] | None = register

    def _fill(self) -> None:
        if self._register is not None and not is_importing():
            register, self._register = self._register, None  # before the call, which looks things up here
            register()

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._fill()
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        self._fill()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill()
        return super().__len__()

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a dict."""
        self._fill()
        return super().get(key, default)

    def keys(self) -> Any:
        """As of a dict."""
        self._fill()
        return super().keys()

    def values(self) -> Any:
        """As of a dict."""
        self._fill()
        return super().values()

    def items(self) -> Any:
        """As of a dict."""
        self._fill()
        return super().items()


def is_importing() -> bool:
    """Whether a module of transformers or of this package is being imported right now."""
    return any(
        name.startswith(("transformers", "vidlada_hf")) and getattr(getattr(module, "__spec__", None), "_initializing", False)
        for name, module in sys.modules.copy().items()
    )


def register_config(module: Any) -> None:
    """With AutoConfig. An official config.json (`llava_llada_video`) is read by the same class."""

    def register() -> None:
        from .modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig

        module.AutoConfig.register(MODEL_TYPE, VidLaDAConfig, exist_ok=True)
        module.AutoConfig.register(VidLaDATextConfig.model_type, VidLaDATextConfig, exist_ok=True)

    hang(module.CONFIG_MAPPING, register)


def register_models(module: Any) -> None:
    """With AutoModel, AutoModelForImageTextToText and AutoModelForMultimodalLM."""

    def register_base() -> None:
        from .modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
        from .modeling.modeling_vidlada import VidLaDAModel, VidLaDATextModel

        module.AutoModel.register(VidLaDATextConfig, VidLaDATextModel, exist_ok=True)
        module.AutoModel.register(VidLaDAConfig, VidLaDAModel, exist_ok=True)

    def register_with(auto_class: Any) -> Callable[[], None]:
        def register() -> None:
            from .modeling.configuration_vidlada import VidLaDAConfig
            from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration

            auto_class.register(VidLaDAConfig, VidLaDAForConditionalGeneration, exist_ok=True)

        return register

    hang(module.AutoModel._model_mapping, register_base)
    for auto_class in (module.AutoModelForImageTextToText, module.AutoModelForMultimodalLM):
        hang(auto_class._model_mapping, register_with(auto_class))


def register_processor(module: Any) -> None:
    """With AutoProcessor."""

    def register() -> None:
        from .modeling.configuration_vidlada import VidLaDAConfig
        from .processing.processing_vidlada import VidLaDAProcessor

        module.AutoProcessor.register(VidLaDAConfig, VidLaDAProcessor, exist_ok=True)

    hang(module.PROCESSOR_MAPPING, register)


def register_video_processor(module: Any) -> None:
    """With AutoVideoProcessor."""

    def register() -> None:
        from .modeling.configuration_vidlada import VidLaDAConfig
        from .processing.video_processing_vidlada import VidLaDAVideoProcessor

        module.AutoVideoProcessor.register(VidLaDAConfig, VidLaDAVideoProcessor, exist_ok=True)

    hang(module.VIDEO_PROCESSOR_MAPPING, register)


def register_pipeline(module: Any) -> None:
    """With `pipeline("video-text-to-text")`."""
    registry = module.PIPELINE_REGISTRY

    def register() -> None:
        from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration
        from .processing.pipeline_vidlada import VideoTextToTextPipeline

        registry.register_pipeline(
            TASK, pipeline_class=VideoTextToTextPipeline, pt_model=VidLaDAForConditionalGeneration, type="multimodal"
        )

    registry.supported_tasks = RegisteredOnLookup(registry.supported_tasks, register)


def hang(mapping: Any, register: Callable[[], None]) -> None:
    """Puts the dict in the place where an Auto mapping keeps what was registered."""
    mapping._extra_content = RegisteredOnLookup(mapping._extra_content, register)


HOOKS = {
    "transformers.models.auto.configuration_auto": register_config,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.models.auto.processing_auto": register_processor,
    "transformers.models.auto.video_processing_auto": register_video_processor,
    "transformers.pipelines": register_pipeline,
}


def register_when_imported() -> None:
    """Hangs the hooks; those whose module is imported already run at once."""
    for module, hook in HOOKS.items():
        when_imported(module)(hook)
