"""Small videos and a LLaVA JSON file of questions about them."""

import json
from pathlib import Path

from .clips import encode, pictures

QUESTIONS = {"color": ("What color is the square?", "white"), "shape": ("Which shape moves?", "square")}


def write_llava(folder: Path, count: int) -> Path:
    """`count` mp4 files (64 frames, 4 seconds), a question about each, and the path of the file of records."""
    records = []
    for number in range(count):
        kind = tuple(QUESTIONS)[number % len(QUESTIONS)]
        video = encode(folder / f"{number}-{kind}.mp4", frames=list(pictures(64, start=8 * number)), fps=16)
        question, answer = QUESTIONS[kind]
        turns = [("human", f"<image>\n{question}"), ("gpt", answer)]
        record = {"id": number, "video": video.name, "data_source": kind}
        records.append(record | {"conversations": [{"from": who, "value": value} for who, value in turns]})
    (folder / "records.json").write_text(json.dumps(records))
    return folder / "records.json"
