"""Trains the twins, one after the other; the same command goes on with a run that was interrupted.

python -m moving_shapes.twins.train --processes 2 [--only full causal autoregressive] [--output runs/twins]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vidlada_hf.training.recipe import Recipe, read_yaml

RECIPE = Path(__file__).with_name("recipe.yaml")
TWINS = {
    "full": "moving_shapes.train.packed_qa:PackedQATask",
    "causal": "moving_shapes.twins.tasks:CausalQATask",
    "autoregressive": "moving_shapes.twins.tasks:NextTokenQATask",
}
RUNS = Path("runs") / "twins"


def twin_recipe(name: str, runs: Path = RUNS) -> dict[str, Any]:
    """The recipe of a twin, as `Recipe.from_dict` takes it.

    Args:
        name: of `TWINS`.
        runs: the folder in which each twin has one of its own.
    """
    content = read_yaml(RECIPE)
    stages = [stage | {"task": TWINS[name]} for stage in content["stages"]]
    return content | {"output_dir": str(runs / name), "stages": stages}


def train(name: str, runs: Path, processes: int) -> Path:
    """Trains a twin, or goes on with it.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: it was begun with another recipe, or by another number of processes.
    """
    from vidlada_hf.training import run
    from vidlada_hf.training.launch import launch

    content = twin_recipe(name, runs)
    if processes == 1:
        return run.train(Recipe.from_dict(content))
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return launch(file, processes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TWINS, default=list(TWINS))
    parser.add_argument("--processes", type=int, default=1, help="that share each batch")
    parser.add_argument("--output", type=Path, default=RUNS, help="a folder with one for each twin")
    options = parser.parse_args(arguments)
    for name in options.only:
        print(train(name, options.output, options.processes))


if __name__ == "__main__":
    main()


__all__ = ["RUNS", "TWINS", "train", "twin_recipe"]
