"""The code that travels with a saved model, and the names under which the Auto classes and `pipeline()` find it.

transformers' own way to do this (`register_for_auto_class`) knows one Auto class for each model and no pipeline, and
under FSDP2, which gives the model a class of torch's, it copies a file of torch.
"""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

_MODEL = "modeling_vidlada.VidLaDAForConditionalGeneration"
AUTO_MAPS = {  # model type -> Auto class -> the class in the saved folder
    "vidlada": {
        "AutoConfig": "configuration_vidlada.VidLaDAConfig",
        "AutoModel": _MODEL,  # as in LLaDA's own repositories, the model that generates
        "AutoModelForImageTextToText": _MODEL,
        "AutoModelForMultimodalLM": _MODEL,
    },
    "vidlada_text": {
        "AutoConfig": "configuration_vidlada.VidLaDATextConfig",
        "AutoModel": "text_model_vidlada.VidLaDATextModel",
    },
}
PIPELINES = {
    "vidlada": {
        "video-text-to-text": {
            "impl": "pipeline_vidlada.VideoTextToTextPipeline",  # a file that the processor brings
            "pt": ["AutoModelForMultimodalLM"],
            "type": "multimodal",
        }
    }
}


def copy_model_code(folder: str | os.PathLike) -> None:
    """Copies the modules beside this one into a folder, which is made if need be; older versions are replaced."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for module in Path(__file__).parent.glob("*_vidlada.py"):
        shutil.copyfile(module, Path(folder) / module.name)


def with_model_code(config: Any, json_file_path: str | os.PathLike) -> Any:
    """A configuration as it is written to a file: as config.json a copy that names the classes, beside their code.

    `save_pretrained` writes by this name, before it uploads. What a user has added by `register_for_auto_class` stays.
    """
    if os.path.basename(json_file_path) != CONFIG_NAME:
        return config
    copy_model_code(os.path.dirname(json_file_path))
    named = copy.copy(config)
    before = getattr(config, "auto_map", None) or {}
    own = {auto: name for auto, name in before.items() if ".FSDP" not in name}
    named.auto_map = AUTO_MAPS.get(config.model_type, {}) | own
    if config.model_type in PIPELINES:
        named.custom_pipelines = copy.deepcopy(PIPELINES[config.model_type])
    return named


def forget_model_code(config_dict: dict[str, Any], config_class: type) -> dict[str, Any]:
    """The fields of a config.json for a class: where it is the installed package's, without the names of our code.

    They would make transformers ask for `trust_remote_code` although what they name is registered already.
    """
    fields = dict(config_dict)
    if config_class.__module__.startswith("transformers_modules."):
        return fields
    ours = {name for names in AUTO_MAPS.values() for name in names.values()}
    before = fields.pop("auto_map", None) or {}
    if others := {auto: name for auto, name in before.items() if name not in ours}:
        fields["auto_map"] = others
    fields.pop("custom_pipelines", None)
    return fields


__all__ = ["copy_model_code", "forget_model_code", "with_model_code"]
