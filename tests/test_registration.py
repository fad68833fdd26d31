"""The Auto classes know VidLaDA whatever is imported first."""

import subprocess
import sys

import pytest

ORDERS = [
    "import vidlada_hf; from transformers import PreTrainedModel",
    "from transformers import AutoModelForImageTextToText, pipeline; import vidlada_hf",
    "from vidlada_hf import VideoTextToTextPipeline, VidLaDAForConditionalGeneration",
    "from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig",
    "from vidlada_hf.processing.video_reading_vidlada import read_video",
]
LOOK_UP = """
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
config = type(AutoConfig.for_model("vidlada"))
for mapping in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    print(mapping._model_mapping[config].__name__)
print(PROCESSOR_MAPPING[config].__name__, config in VIDEO_PROCESSOR_MAPPING)
print(PIPELINE_REGISTRY.check_task("video-text-to-text")[1]["impl"].__name__)
"""


def run(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("first", ORDERS)
def test_every_order_of_imports_registers(first: str) -> None:
    assert run(first + LOOK_UP).split() == [
        "VidLaDAForConditionalGeneration",
        "VidLaDAForConditionalGeneration",
        "VidLaDAForConditionalGeneration",
        "VidLaDAProcessor",
        "True",
        "VideoTextToTextPipeline",
    ]


def test_importing_the_package_is_light() -> None:
    heavy = run("import sys, vidlada_hf; print({'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys())")
    assert heavy == "set()\n"
