"""Tells transformers' Auto classes and pipelines about VidLaDA, at the moment they are imported and not before.

Each hook registers one thing with one module of transformers, so that no hook needs a module that is still loading.
"""

from typing import Any

from wrapt import when_imported

MODEL_TYPE = "vidlada"
TASK = "video-text-to-text"


def register_config(module: Any) -> None:
    """With AutoConfig. An official config.json (`llava_llada_video`) is read by the same class."""
    from .modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig

    module.AutoConfig.register(MODEL_TYPE, VidLaDAConfig, exist_ok=True)
    module.AutoConfig.register(VidLaDATextConfig.model_type, VidLaDATextConfig, exist_ok=True)


def register_models(module: Any) -> None:
    """With AutoModel, AutoModelForImageTextToText and AutoModelForMultimodalLM."""
    from .modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
    from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration, VidLaDAModel, VidLaDATextModel

    module.AutoModel.register(VidLaDATextConfig, VidLaDATextModel, exist_ok=True)
    module.AutoModel.register(VidLaDAConfig, VidLaDAModel, exist_ok=True)
    for auto_class in (module.AutoModelForImageTextToText, module.AutoModelForMultimodalLM):
        auto_class.register(VidLaDAConfig, VidLaDAForConditionalGeneration, exist_ok=True)


def register_processor(module: Any) -> None:
    """With AutoProcessor."""
    from .modeling.configuration_vidlada import VidLaDAConfig
    from .processing.processing_vidlada import VidLaDAProcessor

    module.AutoProcessor.register(VidLaDAConfig, VidLaDAProcessor, exist_ok=True)


def register_video_processor(module: Any) -> None:
    """With AutoVideoProcessor."""
    from .modeling.configuration_vidlada import VidLaDAConfig
    from .processing.video_processing_vidlada import VidLaDAVideoProcessor

    module.AutoVideoProcessor.register(VidLaDAConfig, VidLaDAVideoProcessor, exist_ok=True)


def register_pipeline(module: Any) -> None:
    """With `pipeline("video-text-to-text")`."""
    from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration
    from .processing.pipeline_vidlada import VideoTextToTextPipeline

    module.PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=VideoTextToTextPipeline, pt_model=VidLaDAForConditionalGeneration, type="multimodal"
    )


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
