"""Tells transformers' Auto classes and pipelines about VidLaDA, once transformers is imported and not before.

transformers imports its Auto modules from the middle of its other modules, so nothing of ours can be imported when one
of them appears. The one safe moment is the end of `import transformers` itself, which loads little more than names.
"""

from wrapt import when_imported

TASK = "video-text-to-text"


def register_when_imported() -> None:
    """Registers at once if transformers is imported already, else when it will be."""
    when_imported("transformers")(lambda _: register())


def register() -> None:
    """Registers the configurations, the models, the processors and the pipeline."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoProcessor,
        AutoVideoProcessor,
    )
    from transformers.pipelines import PIPELINE_REGISTRY

    from .modeling.configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
    from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration
    from .modeling.text_model_vidlada import VidLaDATextModel
    from .processing.pipeline_vidlada import VideoTextToTextPipeline
    from .processing.processing_vidlada import VidLaDAProcessor
    from .processing.video_processing_vidlada import VidLaDAVideoProcessor

    # As in LLaDA's own repositories, `AutoModel` gives the model that generates.
    for config, model in ((VidLaDATextConfig, VidLaDATextModel), (VidLaDAConfig, VidLaDAForConditionalGeneration)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto_class.register(VidLaDAConfig, VidLaDAForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(VidLaDAConfig, VidLaDAProcessor, exist_ok=True)
    AutoVideoProcessor.register(VidLaDAConfig, VidLaDAVideoProcessor, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=VideoTextToTextPipeline, pt_model=VidLaDAForConditionalGeneration, type="multimodal"
    )
