"""Everything that depends on the weights of the embedded checkpoint, measured anew, and the documents' tables with it.

    make measure                                       # two to three hours on two cores
    python benchmarks/measure_checkpoint.py --check    # which results are of other weights, if any

Runs the scripts below, as many at a time as `--jobs` says, each on one core, and then tables.py and stream_picture.py.
What was measured with these weights stays, what was measured with others is deleted first. An interrupted run goes on
where it was.

Not made here are docs/denoising.png (`vidlada demo`), the pictures of the page and the answers of quantized models
(nightly tests), and what `examples/finetune_lora.py` prints.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vidlada_hf import VidLaDAForConditionalGeneration
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model

HERE = Path(__file__).parent
Command = tuple[str, ...]  # a script and its arguments; {results} and {work} are folders


@dataclass(frozen=True)
class Study:
    """A JSON file, and what makes it.

    Args:
        name: of the file.
        commands: one after the other.
        part: of the file, which holds other measurements too; "": all of it.
        at_once: whether the file is written at the end; else an interrupted run goes on with it.
    """

    name: str
    commands: tuple[Command, ...]
    part: str = ""
    at_once: bool = False


def alone(name: str, *command: str, part: str = "", at_once: bool = False) -> Study:
    """A study of one command."""
    return Study(name, (command,), part, at_once)


def mars_study(study: str, name: str) -> Study:
    """A study of mars_accuracy.py: its questions, and then what they say."""
    command = ("mars_accuracy.py", study, "--work", f"{{work}}/{study}", "--output", f"{{results}}/{name}.json")
    return Study(name, (command, (*command, "--join")), at_once=True)


# The longest first, so that no core waits at the end.
STUDIES = (
    alone("long_answers", "long_answers.py", "--output", "{results}/long_answers.json"),
    mars_study("parts", "mars_parts"),
    mars_study("whole", "mars_accuracy"),
    alone("shared_video", "shared_video.py", "--output", "{results}/shared_video.json"),
    alone(
        "many_questions", "many_questions.py", "choices", "--output", "{results}/many_questions.json", part="choices"
    ),
    alone("tiny_accuracy", "tiny_accuracy.py", "--output", "{results}/tiny_accuracy.json"),
    alone("tiny_errors", "tiny_errors.py", "--output", "{results}/tiny_errors.json", at_once=True),
    alone(
        "tiny_accuracy_4200",
        *("tiny_accuracy.py", "--questions", "4200", "--only", "8 frames"),
        *("--output", "{results}/tiny_accuracy_4200.json"),
    ),
    alone("lmms_eval", "lmms_eval.py", "--folder", "{work}/lmms_eval", "--output", "{results}/lmms_eval.json"),
    alone("loss_variance", "loss_variance.py", "--output", "{results}/loss_variance.json", at_once=True),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="studies at a time")
    parser.add_argument("--only", nargs="+", choices=[study.name for study in STUDIES])
    parser.add_argument("--results", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    weights = fingerprint_model(VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT))
    studies = [study for study in STUDIES if study.name in (options.only or [study.name])]
    if options.check:
        old = [study.name for study in studies if weights_of(study, options.results) != weights]
        raise SystemExit(f"Not of the weights {weights}: {', '.join(old)}." if old else 0)
    with ThreadPoolExecutor(options.jobs) as lanes:
        for done in [lanes.submit(measure, study, options.results, weights) for study in studies]:
            done.result()
    run(("tables.py", "--results", str(options.results)))
    run(("stream_picture.py",))


def weights_of(study: Study, results: Path) -> str | None:
    """The weights that a study's results are of; None if there are none."""
    path = results / f"{study.name}.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return (data.get(study.part, {}) if study.part else data).get("setup", {}).get("weights")


def measure(study: Study, results: Path, weights: str) -> None:
    """Runs a study's commands. Those that are done find their results, and end at once."""
    of_these = weights_of(study, results) == weights
    if study.at_once and of_these:
        return
    if not of_these and not study.part:
        (results / f"{study.name}.json").unlink(missing_ok=True)
    folders = {"results": str(results), "work": str(Path("runs") / "measured" / weights)}
    for command in study.commands:
        run(tuple(word.format(**folders) for word in command))


def run(command: Command) -> None:
    """Runs a command on one core.

    Raises:
        CalledProcessError: it failed.
    """
    print(" ".join(command), flush=True)
    script, *arguments = command
    subprocess.run(
        [sys.executable, str(HERE / script), *arguments], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


if __name__ == "__main__":
    main()
