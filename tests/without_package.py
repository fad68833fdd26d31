"""A process in which the package cannot be imported, and what it makes of a checkpoint's folder."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from .processes import run

QUESTION = "What happens?"
VIDEO = torch.arange(4 * 20 * 30 * 3).remainder(251).to(torch.uint8).view(4, 20, 30, 3)

# What `load` below reports of a whole folder.
REMOTE_CLASSES = {
    auto: ["transformers_modules", name]
    for auto, name in {
        "AutoConfig": "VidLaDAConfig",
        "AutoModel": "VidLaDAForConditionalGeneration",
        "AutoModelForImageTextToText": "VidLaDAForConditionalGeneration",
        "AutoModelForMultimodalLM": "VidLaDAForConditionalGeneration",
        "AutoProcessor": "VidLaDAProcessor",
        "AutoVideoProcessor": "VidLaDAVideoProcessor",
        "pipeline": "VideoTextToTextPipeline",
    }.items()
}

# Runs before the code of a test, which fills `report`.
BEFORE = """
import json, os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "vidlada_hf":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import vidlada_hf
    raise SystemExit("the package can be imported after all")
except ModuleNotFoundError:
    pass

import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer,
    AutoVideoProcessor, pipeline,
)

torch.set_num_threads(1)
question, *arguments = sys.argv[1:]
trust = {"trust_remote_code": True}
video = torch.arange(4 * 20 * 30 * 3).remainder(251).to(torch.uint8).view(4, 20, 30, 3)


def describe(value):
    return [type(value).__module__.split(".")[0], type(value).__name__]


def load(folder):
    classes = {}
    for auto in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor,
                 AutoVideoProcessor):
        classes[auto.__name__] = describe(auto.from_pretrained(folder, **trust))
    assert describe(AutoTokenizer.from_pretrained(folder, **trust))[0] == "transformers"
    pipe = pipeline("video-text-to-text", model=folder, **trust)
    classes["pipeline"] = describe(pipe)
    answer = pipe(video, text=question, max_new_tokens=8)[0]["generated_text"]
    model, info = AutoModelForMultimodalLM.from_pretrained(folder, output_loading_info=True, **trust)
    return {
        "classes": classes, "answer": answer, "info": [k for k, v in info.items() if v],
        "generation_config": [*describe(model.generation_config), model.generation_config.to_dict()],
    }

"""


def run_without_package(code: str, scratch: Path, *arguments: Any) -> dict[str, Any]:
    """Runs code behind `BEFORE` in a process of its own, and returns its `report`.

    Args:
        scratch: a folder for what transformers caches.
        arguments: the code's `arguments`, as texts.
    """
    environment = os.environ | {
        "HF_HOME": str(scratch / "hf"),
        "HF_MODULES_CACHE": str(scratch / "hf" / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", BEFORE + code + "print(json.dumps(report))", QUESTION, *arguments]
    done = run(command, env=environment, cwd=scratch)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def answer_of(folder: Path) -> str:
    """What the package itself answers with a checkpoint."""
    pipe = pipeline("video-text-to-text", model=str(folder))
    return pipe(VIDEO, text=QUESTION, max_new_tokens=8)[0]["generated_text"]
