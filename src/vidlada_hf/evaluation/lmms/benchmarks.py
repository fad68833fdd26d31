"""The official evaluation: its settings, and which figure of lmms-eval is each benchmark's score.

Source of the settings: `train/scripts/video/eval/eval_video.sh` of the repository ziHoHe/VidLaDA (commit 30bb132), and
what its model `llava_llada_video` does with them: two tokens in two steps, up to 64 frames at one a second.
"""

from dataclasses import dataclass
from typing import Any

OFFICIAL: dict[str, Any] = {
    "fps": 1,
    "max_frames": 64,
    "force_sample": False,
    "add_time_instruction": False,
    "timestamps": "ordinal",
    "think_mode": "no_think",
    "official_prompt": "inference",
    "max_new_tokens": 2,
    "block_length": 2,
    "max_denoising_steps": 2,
    "temperature": 0.0,
    "cfg_scale": 0.0,
    "remasking": "low_confidence",
}


@dataclass(frozen=True)
class Benchmark:
    """A task of lmms-eval.

    Args:
        title: as papers call it.
        folder: of lmms-eval's `tasks` that it is in.
        metric: of its results; of a group's tasks, whose mean is the group's score.
        scale: that makes percent of the metric.
        settings: official ones that differ from `OFFICIAL`.
    """

    title: str
    folder: str
    metric: str
    scale: float = 1.0
    settings: tuple[tuple[str, Any], ...] = ()


BENCHMARKS = {
    "videomme": Benchmark("Video-MME", "videomme", "videomme_perception_score"),
    "mlvu_dev": Benchmark("MLVU (dev)", "mlvu", "mlvu_percetion_score"),  # lmms-eval's spelling
    "mlvu_test": Benchmark("MLVU (test)", "mlvu", "mlvu_percetion_score"),
    "longvideobench_val_v": Benchmark("LongVideoBench", "longvideobench", "lvb_acc", 100.0),
    "egoschema": Benchmark("EgoSchema", "egoschema", "submission"),
    "egoschema_subset": Benchmark("EgoSchema (subset)", "egoschema", "score", 100.0),
    "mvbench": Benchmark("MVBench", "mvbench", "mvbench_accuracy", 1.0, (("add_time_instruction", True),)),
    "lvbench": Benchmark("LVBench", "lvbench", "lvbench_score", 100.0),
    "video_mmmu": Benchmark("Video-MMMU", "videommmu", "mmmu_acc", 100.0),
}


def official_settings(task: str) -> dict[str, Any]:
    """The `model_args` of the official evaluation of a task; none for a task that it has not."""
    return {**OFFICIAL, **dict(BENCHMARKS[task].settings)} if task in BENCHMARKS else {}


def with_official(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """The official `model_args` of a task with a user's in them. Another way to choose frames takes the official one's
    place."""
    official = official_settings(task)
    if given.get("num_frames") is not None:
        official.pop("fps", None)
    return {**official, **given}


__all__ = ["BENCHMARKS", "OFFICIAL", "Benchmark", "official_settings", "with_official"]
