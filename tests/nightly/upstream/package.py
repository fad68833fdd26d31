"""transformers' common tests as a package, `transformers_tests`: the files of the sdist, and what it leaves out."""

import os
import sys
import tempfile
import unittest
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch.distributed
import torch.multiprocessing
from PIL import Image
from transformers import testing_utils
from transformers.models.auto import modeling_auto

from tests.clips import encode, noise

FOLDER = "VIDLADA_UPSTREAM_TESTS"  # the environment variable that says where the folder `tests` of the sdist is
PACKAGE = "transformers_tests"


def work(rank: int, module: str, name: str, world_size: int, meeting: str, arguments: tuple[Any, ...]) -> None:
    """One process of `run_distributed`."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    getattr(upstream(module), name)(rank, *arguments)
    torch.distributed.destroy_process_group()


def run_distributed(world_size: int) -> Callable[..., Any]:
    """Runs a function in several processes that know each other."""

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        def start(*arguments: Any) -> None:
            with tempfile.TemporaryDirectory() as folder:
                module = run.__module__.removeprefix(f"{PACKAGE}.")
                given = (module, run.__name__, world_size, f"{folder}/meeting", arguments)
                torch.multiprocessing.spawn(work, given, nprocs=world_size)

        return start

    return decorate


def url_to_local_path(address: str) -> str:
    """A small picture or clip of our own in place of a file of the Hub."""
    folder = Path(tempfile.gettempdir()) / f"{PACKAGE}_{os.getpid()}"
    path = folder / address.rsplit("/", 1)[1]
    if not path.exists():
        folder.mkdir(exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.fromarray(noise(1, 40, 60)[0]).save(path)
        elif path.suffix == ".mp4":
            encode(path, frames=300)
    return str(path)


class NotInTheSdist:
    """A mixin whose tests the sdist does not carry."""


# Modules that the files of the sdist import and that it does not carry -> the names that are taken from them.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "exporters": {},
    "exporters.test_export": {"ExportTesterMixin": NotInTheSdist},
    "generation": {},
    "generation.test_utils": {"GenerationTesterMixin": NotInTheSdist},
    "utils": {},
    "utils.test_configuration_utils": {"config_common_kwargs": {"output_hidden_states": True, "return_dict": False}},
    "distributed_testing_utils": {"run_distributed": run_distributed},
}


def upstream(module: str) -> ModuleType:
    """A file of the sdist's tests, by its name without ".py"."""
    if PACKAGE not in sys.modules:
        package = sys.modules[PACKAGE] = ModuleType(PACKAGE)
        package.__path__ = [os.environ[FOLDER]]
        (Path(os.environ[FOLDER]) / "__init__.py").touch()  # looked for by the tests of configurations
        for name, content in LEFT_OUT.items():
            stub = sys.modules[f"{PACKAGE}.{name}"] = ModuleType(f"{PACKAGE}.{name}")
            vars(stub).update(content)
        sys.modules["fetch_hub_objects_for_ci"] = ModuleType("fetch_hub_objects_for_ci")
        vars(sys.modules["fetch_hub_objects_for_ci"])["url_to_local_path"] = url_to_local_path
        testing_utils.is_torchcodec_available = lambda: True  # asked for by tests of videos, which PyAV reads here
        # By these names the tests know which models have a loss.
        modeling_auto.MODEL_MAPPING_NAMES["vidlada"] = "VidLaDAModel"
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["vidlada"] = "VidLaDAForConditionalGeneration"
    return import_module(f"{PACKAGE}.{module}")


def exclude(reasons: dict[str, str]) -> Callable[[type], type]:
    """Skips tests of a class, each with its reason.

    Raises:
        AttributeError: a class has no such test.
    """

    def decorate(cls: type) -> type:
        for name, reason in reasons.items():
            getattr(cls, name)
            setattr(cls, name, unittest.skip(f"excluded: {reason}")(lambda self: None))
        return cls

    return decorate
