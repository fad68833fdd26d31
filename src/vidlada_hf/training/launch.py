"""A run in several processes of this machine.

`python -m vidlada_hf.training.launch RECIPE ERROR_FILE` is a worker of `launch`.
"""

import sys
from pathlib import Path

from ..processes import run_in_processes, work_in_process


def launch(recipe_file: Path, processes: int) -> Path:
    """Runs a recipe in so many processes, which share each batch.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError, OSError: as `run.train`, before a process is started; or the run failed, and the message says why.
    """
    from .preparation import prepare
    from .recipe import Recipe
    from .run_state import final_model

    recipe = Recipe.from_yaml(recipe_file)
    prepare(recipe, processes)
    run_in_processes("vidlada_hf.training.launch", [str(recipe_file)], processes)
    return final_model(recipe)


def work(recipe_file: str) -> None:
    """What a process of `launch` does."""
    from .recipe import Recipe
    from .run import train

    train(Recipe.from_yaml(recipe_file), is_prepared=True)


if __name__ == "__main__":
    work_in_process(lambda: work(sys.argv[1]), sys.argv[2])


__all__ = ["launch"]
