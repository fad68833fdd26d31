"""Answers questions with an exported folder, in a process where the package cannot be imported.

    python benchmarks/exported_answers.py FOLDER REQUESTS.json ANSWERS.json

REQUESTS.json: {"num_frames": N, "requests": [[video path, question], ...]}. Called by tiny_accuracy.py.
"""

import json
import sys
from pathlib import Path


class BlockPackage:
    """An import hook that makes the package unavailable, installed or not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "vidlada_hf":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, BlockPackage())

from transformers import pipeline  # noqa: E402

folder, requests_file, answers_file = sys.argv[1:]
asked = json.loads(Path(requests_file).read_text())
pipe = pipeline("video-text-to-text", model=folder, trust_remote_code=True, device="cpu")
chunks = ({"video": video, "text": question} for video, question in asked["requests"])
answers = [out[0]["generated_text"] for out in pipe(chunks, num_frames=asked["num_frames"], batch_size=20)]
assert not any(name.split(".")[0] == "vidlada_hf" for name in sys.modules)
Path(answers_file).write_text(json.dumps(answers))
