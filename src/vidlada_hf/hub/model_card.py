"""The README.md of an exported checkpoint: the template model_card.md, filled with what the checkpoint says."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.official_checkpoint_vidlada import OFFICIAL_VOCAB_SIZE
from ..processing.processing_vidlada import VidLaDAProcessor
from ..registration import TASK

TEMPLATE = Path(__file__).with_name("model_card.md")
# The published 8B model was made from these.
OFFICIAL_BASE_MODELS = ("GSAI-ML/LLaDA-V", "google/siglip2-so400m-patch14-384")


def fill_model_card(
    config: VidLaDAConfig,
    processor: VidLaDAProcessor,
    parameters: int,
    size_bytes: int,
    name: str,
    base_models: Sequence[str] | None = None,
    license: str = "apache-2.0",
    results: Sequence[EvalResult] = (),
) -> ModelCard:
    """Fills the template.

    Args:
        config, processor: of the checkpoint.
        parameters: their number.
        size_bytes: of its weights on disk.
        name: its title, and its id in the examples ("user/name" for the Hub).
        base_models: ids on the Hub of the models it was made from. None: those of the published model if it has that
            model's vocabulary, else none.
        license: its identifier on the Hub.
        results: for the card's `model-index`, see `read_results`.
    """
    if base_models is None:
        official = config.text_config.vocab_size == OFFICIAL_VOCAB_SIZE
        base_models = OFFICIAL_BASE_MODELS if official else ()
    text, vision, video = config.text_config, config.vision_config, processor.video_processor
    side = vision.image_size
    return ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag=TASK,
            license=license,
            base_model=list(base_models) or None,
            language=["en"],
            tags=["vidlada", "video", "diffusion-language-model", "custom_code"],
            model_name=name.rsplit("/", 1)[-1] if results else None,
            eval_results=list(results) or None,
        ),
        template_path=str(TEMPLATE),
        name=name.rsplit("/", 1)[-1],
        repo_id=name,
        base_models=" and ".join(f"[{model}](https://huggingface.co/{model})" for model in base_models),
        parameters=human(parameters, ("", " thousand", " million", " billion")),
        size=human(size_bytes, (" B", " kB", " MB", " GB")),
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        text_layers=text.num_hidden_layers,
        text_hidden=text.hidden_size,
        text_heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
        vision_layers=vision.num_hidden_layers,
        vision_hidden=vision.hidden_size,
        image_size=side,
        patch_size=vision.patch_size,
        patches=config.vision_grid**2,
        tokens_per_frame=processor.count_video_tokens(1, side, side),
        max_frames=video.max_frames,
        sampling=describe_sampling(video),
    )


def read_results(path: str | os.PathLike, dataset: str | None = None) -> list[EvalResult]:
    """The accuracies in a file of `vidlada bench`, one for each set-up, in percent.

    Args:
        dataset: the name of the questions; None: their number and digest, which the file holds.

    Raises:
        ValueError: no such file, or none of its set-ups has answered all questions and was timed.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        setup, entries = data["setup"], data["results"]
        dataset = dataset or f"{setup['questions']} questions ({setup['questions_digest']})"
        found = {name: (entry.get("summary") or {}).get("accuracy") for name, entry in entries.items()}
        shares = {name: accuracy["all"]["accuracy"] for name, accuracy in found.items() if accuracy}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of `vidlada bench` ({error!r}): pass another one.") from error
    if not shares:
        raise ValueError(f"{path} holds no accuracies yet: let `vidlada bench` finish it.")
    what = f"{setup['frames']} frames, {setup['dtype']}"
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type="accuracy",
            metric_name=f"accuracy, {name} decoding ({what})",
            metric_value=round(100 * share, 2),
        )
        for name, share in shares.items()
    ]


def describe_sampling(video_processor: Any) -> str:
    """How frames are chosen if nothing is asked for, in words."""
    if video_processor.force_sample:
        return "spread evenly over it"
    return f"{video_processor.fps:g} a second" if video_processor.fps else "spread evenly over it if it has more"


def human(number: float, units: Sequence[str]) -> str:
    """A number with three digits and its unit; each unit is a thousand times the one before."""
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}{units[-1]}"
