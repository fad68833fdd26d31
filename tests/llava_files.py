"""Small videos of moving shapes, and records about them."""

import json
from pathlib import Path

from moving_shapes import MovingShapes


def write_llava(folder: Path, count: int, types: tuple[str, ...] = ("color", "shape"), split: str = "train") -> Path:
    """So many mp4 files, and a LLaVA JSON file of a question about each."""
    records = []
    for example in MovingShapes(split, count, 8, types, video_folder=folder):
        turns = [("human", f"<image>\n{example.question}"), ("gpt", example.answer)]
        record = {"video": example.path.name, "conversations": [{"from": w, "value": v} for w, v in turns]}
        records.append(record | {"id": len(records), "data_source": example.type})
    (folder / "records.json").write_text(json.dumps(records))
    return folder / "records.json"
