"""Ask about many videos on a Ray cluster, into Parquet: python examples/batch_ray.py LIST_OR_DIR OUT QUESTION [MODEL]

The same command goes on where it was: what is in OUT is not asked again. It needs `pip install 'vidlada_hf[ray]'`.
Names and texts travel between the processes, frames never do. Without a cluster (RAY_ADDRESS) Ray runs on this machine.
"""

import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import ray

from vidlada_hf.inference.ray_data import RayVideoAnswerer
from vidlada_hf.inference.video_list import list_requests

ROWS = 32  # of a file, which is there as a whole or not at all


def main(source: str, out: str, question: str, model: str | None = None, actors: int | None = None) -> int:
    """Returns how many rows were written."""
    done = keys_of(Path(out))
    due = [vars(request) for request in list_requests(Path(source).resolve(), [question]) if request.key not in done]
    print(f"{len(done)} rows are there, {len(due)} are due")
    if not due:
        return 0
    gpus = int(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() or ray.init() else 0
    rows = ray.data.from_items(due, override_num_blocks=-(-len(due) // ROWS))
    answered = rows.map_batches(
        RayVideoAnswerer,
        fn_constructor_kwargs={"model": model, "processor_kwargs": {"num_frames": 8}},
        batch_format="pyarrow",
        batch_size=ROWS,
        concurrency=actors or max(gpus, 1),
        num_gpus=1 if gpus else 0,
    )
    answered.write_parquet(str(Path(out).resolve()))
    return len(due)


def keys_of(folder: Path) -> set[tuple[str, str]]:
    """Ids and questions of the rows that are there. Files that were cut off when a process was killed are removed."""
    keys: set[tuple[str, str]] = set()
    for file in folder.glob("*.parquet"):
        try:
            table = pyarrow.parquet.read_table(file, columns=["id", "question"])
        except pyarrow.ArrowInvalid:
            file.unlink()
            continue
        keys.update(zip(table["id"].to_pylist(), table["question"].to_pylist(), strict=True))
    return keys


if __name__ == "__main__":
    main(*sys.argv[1:5])
