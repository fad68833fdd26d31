"""Benchmarks by lmms-eval, one after the other, on one model: what `vidlada eval` does.

`python -m vidlada_hf.evaluation.lmms.run RUN ERROR_FILE` is a process of `evaluate`.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...processes import run_in_processes, work_in_process

PACKAGES = ("vidlada_hf", "lmms_eval", "transformers", "torch", "torchvision", "av")


@dataclass(frozen=True)
class EvalRun:
    """What is evaluated.

    Args:
        tasks: names of lmms-eval.
        output: the folder of the results; tasks that are finished in it are not run again.
        model_args: see `ModelArgs`; they go before the official settings of a known benchmark.
        include: a folder with YAML files of other tasks.
        batch_size: questions that a process answers at a time.
        limit: the first so many questions of each task; None: all.
    """

    tasks: tuple[str, ...]
    output: str
    model_args: dict[str, Any] = field(default_factory=dict)
    include: str | None = None
    batch_size: int = 1
    limit: int | None = None

    def path(self, task: str) -> Path:
        """The file of a task's results."""
        return Path(self.output) / f"{task}.json"


def parse_model_args(text: str) -> dict[str, Any]:
    """`NAME=VALUE,NAME=VALUE` as lmms-eval parses it; raises a ValueError for what is written otherwise."""
    from lmms_eval.utils import simple_parse_args_string

    try:
        return simple_parse_args_string(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not NAME=VALUE,NAME=VALUE.") from error


def evaluate(run: EvalRun, processes: int = 1, download: bool = False) -> dict[str, dict[str, Any]]:
    """Runs the tasks, or finishes running them.

    Args:
        processes: of this machine, which share the questions of each task.
        download: let lmms-eval fetch data that are not there.

    Returns:
        For each task what its file holds: "setup", and "score" (in percent where it is a known benchmark), "metrics",
        "questions" and "results", as lmms-eval reports them.

    Raises:
        ValueError: before anything is answered, a task that is unknown, data that are not there, a setting that is
            impossible; or the file of a task that was run with another setup.
        ModuleNotFoundError: lmms-eval is not installed.
    """
    os.environ.setdefault("HF_HOME", os.path.expanduser("~/.cache/huggingface"))  # tasks differ in what they take else
    for task in run.tasks:
        _args_of(run, task)
    from .tasks import find_tasks, require_data

    hush_lmms_eval()
    manager = find_tasks(run.tasks, Path(run.include) if run.include else None)
    if not download:
        require_data(manager, run.tasks)
    is_done = all(_record(run, task).data.get("results") for task in run.tasks)
    if not is_done and processes > 1:
        run_in_processes("vidlada_hf.evaluation.lmms.run", [json.dumps(asdict(run))], processes)
    elif not is_done:
        work(run, manager)
    return {task: _record(run, task).data for task in run.tasks}


def work(run: EvalRun, manager: Any = None) -> None:
    """Runs the tasks that are not finished, in this process or as one of several."""
    from .tasks import find_tasks

    hush_lmms_eval()
    manager = manager or find_tasks(run.tasks, Path(run.include) if run.include else None)
    model: Any = None
    for task in run.tasks:
        record = _record(run, task)
        if record.data.get("results"):
            continue
        from .model import VidLaDAChat, VidLaDASimple
        from .tasks import leaf_tasks

        asks_likelihoods = any(
            config.get("output_type") in ("loglikelihood", "multiple_choice") for _, config in leaf_tasks(manager, task)
        )
        kind = VidLaDASimple if asks_likelihoods else VidLaDAChat
        if type(model) is not kind:
            model = kind(run.batch_size, **_model_args(run, task))
        model.use(_args_of(run, task))
        results = run_task(model, task, manager, run)
        if results is not None:  # in the first process
            record.data |= summarize(task, results)
            record.save()


def hush_lmms_eval() -> None:
    """Leaves of what lmms-eval logs the warnings and errors."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def run_task(model: Any, task: str, manager: Any, run: EvalRun) -> dict[str, Any] | None:
    """One task on a model; None in all processes but the first.

    Raises:
        ValueError: lmms-eval gave up loading its data or scoring its answers.
    """
    from argparse import Namespace

    import tenacity
    import torch.distributed
    from lmms_eval.evaluator import simple_evaluate

    is_several = torch.distributed.is_initialized()
    try:
        return simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=manager,
            batch_size=run.batch_size,
            limit=run.limit,
            log_samples=True,
            distributed_executor_backend="torchrun" if is_several else "accelerate",
            # what tasks look up: where a file for a benchmark's server goes
            cli_args=Namespace(output_path=run.output, process_with_media=False),
        )
    except tenacity.RetryError as error:
        cause = error.last_attempt.exception()
        raise ValueError(f"lmms-eval could not load the data of {task}, or score its answers: {cause}") from error


def summarize(task: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of a task holds of lmms-eval's results: "score", "metrics", "questions", "results", "samples"."""
    from .benchmarks import BENCHMARKS

    metrics = {
        name: {
            key.partition(",")[0]: value
            for key, value in found.items()
            if "," in key and "_stderr" not in key and isinstance(value, int | float)
        }
        for name, found in results["results"].items()
    }
    metrics = {name: found for name, found in metrics.items() if found}
    known = BENCHMARKS.get(task)
    wanted = known.metric if known else next(iter(next(iter(metrics.values()), {})), None)
    values = [found[wanted] for found in metrics.values() if wanted in found]
    questions = {name: count["effective"] for name, count in results["n-samples"].items()}
    kept = {name: value for name, value in results.items() if name != "samples"}
    samples = {
        name: [{key: each[key] for key in ("doc_id", "target", "filtered_resps")} for each in found]
        for name, found in results.get("samples", {}).items()
    }
    plain = json.loads(json.dumps({"results": kept, "samples": samples}, default=str))
    score = sum(values) / len(values) * (known.scale if known else 1.0) if values else None
    return {"metric": wanted, "score": score, "metrics": metrics, "questions": questions, **plain}


def _model_args(run: EvalRun, task: str) -> dict[str, Any]:
    from .benchmarks import with_official

    answers = {"answers": str(Path(run.output) / "answers")}
    return {**answers, **with_official(task, run.model_args)}


def _args_of(run: EvalRun, task: str) -> Any:
    from .model_args import ModelArgs

    return ModelArgs.parse(_model_args(run, task))


def _record(run: EvalRun, task: str) -> Any:
    """The file of a task; raises a ValueError where it holds results of another setup."""
    from ..record import Record

    args = asdict(_args_of(run, task))
    args.pop("answers"), args.pop("workers")
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    setup = {"task": task, "limit": run.limit, "model_args": args, "versions": versions}
    return Record(run.path(task), setup)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(data: Mapping[str, Mapping[str, Any]]) -> str:
    """The scores of tasks, those of known benchmarks beside published ones, and the sources of these."""
    from ..report import markdown_table
    from .benchmarks import BENCHMARKS
    from .published import MODELS, SOURCES, published_cells

    rows = []
    for task, found in data.items():
        known = BENCHMARKS.get(task)
        score = "-" if found["score"] is None else f"{found['score']:.1f}" if known else f"{found['score']:.4f}"
        count = f"{sum(found['questions'].values()):,}"
        rows.append([known.title if known else task, count, score, *(published_cells(task) if known else [])])
    if not any(task in BENCHMARKS for task in data):
        return markdown_table(["task", "questions", "this model"], rows)
    rows = [[*row, *[""] * (3 + len(MODELS) - len(row))] for row in rows]
    lines = [f"({letter}) {source}" for letter, source in SOURCES.items()]
    return "\n".join([markdown_table(["benchmark", "questions", "this model", *MODELS], rows), "", *lines])


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    work_in_process(lambda: work(EvalRun(**{**arguments, "tasks": tuple(arguments["tasks"])})), sys.argv[2])


__all__ = ["EvalRun", "evaluate", "parse_model_args", "summarize", "table"]
