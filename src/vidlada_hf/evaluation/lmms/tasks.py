"""The tasks of lmms-eval that a run asks for, and whether their data are there."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmms_eval.tasks
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config, resolve_cache_dir

from ...processing.options_vidlada import nearest_name
from .benchmarks import BENCHMARKS

LOCAL_FORMATS = ("csv", "json", "parquet", "text", "pandas", "arrow")


def find_tasks(names: Sequence[str], include: Path | None) -> TaskManager:
    """What lmms-eval loads tasks by. Its thousands of files are looked through only for names of no known folder.

    Args:
        include: a folder with YAML files of other tasks.

    Raises:
        ValueError: a name that is unknown; the message gives the nearest known one.
        FileNotFoundError: `include` is no folder.
    """
    if include is not None and not include.is_dir():
        raise FileNotFoundError(f"{include} is no folder: `--include` takes one with the YAML files of tasks.")
    everything = Path(lmms_eval.tasks.__file__).parent
    folders = {BENCHMARKS[name].folder for name in names if name in BENCHMARKS}
    paths = [f"{everything / folder}/" for folder in sorted(folders)] + ([f"{include}/"] if include else [])
    few = TaskManager("ERROR", include_path=paths, include_defaults=False, model_name="vidlada")
    if set(names) <= set(few.all_tasks):
        return few
    manager = TaskManager("ERROR", include_path=str(include) if include else None, model_name="vidlada")
    for name in names:
        if name not in manager.all_tasks:
            near = nearest_name(name, manager.all_tasks)
            hint = f"Did you mean {near!r}?" if near else "`lmms-eval --tasks list` prints all."
            raise ValueError(f"lmms-eval knows no task {name!r}. {hint} Tasks of your own are found by `--include`.")
    return manager


def leaf_tasks(manager: TaskManager, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks of a group, or the one of that name, each with its config; functions in it are not imported."""
    entry = manager.task_index[name]
    if entry["type"] == "task":
        yield name, load_yaml_config(entry["yaml_path"], mode="simple")
        return
    members = entry.get("task")
    if not isinstance(members, list):
        members = load_yaml_config(entry["yaml_path"], mode="simple")["task"] if entry["yaml_path"] != -1 else []
    for member in members:
        if isinstance(member, str):  # others hold configs of their own, which lmms-eval checks
            yield from leaf_tasks(manager, member)


def require_data(manager: TaskManager, names: Sequence[str]) -> None:
    """Raises a ValueError that says which data of the tasks are missing, and where they come from."""
    missing: dict[str, list[str]] = {}
    for name in names:
        for _, config in leaf_tasks(manager, name):
            for what in missing_data(config):
                if what not in missing.setdefault(name, []):
                    missing[name].append(what)
    said = [f"{name} needs {' and '.join(parts)}" for name, parts in missing.items() if parts]
    if said:
        raise ValueError(
            f"Data of benchmarks are not there: {'; '.join(said)}. Give --download to let lmms-eval fetch what it can "
            "from the Hub, or put them there."
        )


def missing_data(config: dict[str, Any]) -> list[str]:
    """What of a task's questions and videos is not on this machine, in words."""
    path, options = str(config.get("dataset_path")), config.get("dataset_kwargs") or {}
    if path in LOCAL_FORMATS:
        return [f"the file {file}" for file in _files(options.get("data_files")) if not os.path.isfile(file)]
    missing = []
    if not os.path.exists(path) and not _is_on_disk(path, options.get("revision")):
        missing.append(f"the questions of the Hub's data set {path}")
    if options.get("video") and "cache_dir" in options:
        home = os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface"))
        folder = resolve_cache_dir(options["cache_dir"], base_dir=home)
        if not os.path.exists(folder):
            missing.append(f"its videos in the folder {folder}")
    return missing


def _files(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value or []
    return [file for each in values for file in _files(each)]


def _is_on_disk(dataset: str, revision: str | None) -> bool:
    try:
        snapshot_download(dataset, repo_type="dataset", revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, ValueError, OSError):
        return False
    return True


__all__ = ["find_tasks", "leaf_tasks", "missing_data", "require_data"]
