"""Checks what a wheel holds, and prints its size: python .ci/check_wheel.py WHEEL"""

import sys
from pathlib import Path
from zipfile import ZipFile

NEEDED = (
    "vidlada_hf/py.typed",
    "vidlada_hf/hub/model_card.md",
    "vidlada_hf/page/page.css",
    "vidlada_hf/checkpoints/vidlada-tiny/model.safetensors",
    "vidlada_hf/checkpoints/vidlada-tiny/demo/clip.mp4",
    "vidlada_hf/checkpoints/vidlada-tiny/demo/questions.jsonl",
)
UNWANTED = ("moving_shapes", "heads.safetensors", "tests/")


def problems(names: list[str]) -> list[str]:
    """What is wrong with the list of a wheel's files."""
    missing = [f"{name} is missing" for name in NEEDED if name not in names]
    return missing + [f"{name} must not ship" for name in names if any(part in name for part in UNWANTED)]


def main(path: Path) -> None:
    names = ZipFile(path).namelist()
    if errors := problems(names):
        sys.exit(f"{path.name}: " + "; ".join(errors))
    lines = sum(ZipFile(path).read(name).count(b"\n") for name in names if name.endswith(".py"))
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(names)} files, {lines:,} lines of Python")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
