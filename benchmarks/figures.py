"""Tables of single figures for README and docs, made from the JSON files of the scripts that measured them."""

from collections.abc import Callable

import checkpoint_tables
import gpu_tables
import long_answers
import sharing_tables
from checkpoint_tables import percent
from gpu_tables import Load

from vidlada_hf.evaluation.lmms.benchmarks import BENCHMARKS
from vidlada_hf.evaluation.lmms.published import MODELS, PUBLISHED, SOURCES, published_cells
from vidlada_hf.evaluation.report import markdown_table

Row = tuple[str, str, str, str]  # what, figure, script with its arguments, JSON file's name


def figures(load: Load) -> str:
    """The figures of the README."""
    rows = [*quality_rows(load), *mars_rows(load), *sharing_tables.readme_rows(load), *reading_rows(load)]
    rows += lmms_eval_rows(load)
    cells = [(what, figure, f"`python benchmarks/{script}`", f"`{name}.json`") for what, figure, script, name in rows]
    return markdown_table(("what", "figure", "command", "in `benchmarks/`"), cells, "lrll")


def quality_rows(load: Load) -> list[Row]:
    """Parity with the official code, and what the embedded checkpoint gets right."""
    parity, accuracy = load("parity")["figures"], load("tiny_accuracy")
    logits = max(difference for name, difference in parity.items() if name.startswith("logits"))
    plain, control = (accuracy[name]["scores"]["all"] for name in ("8 frames", "8 frames, another scene's video"))
    ways = (
        "8 frames, from mp4",
        "8 frames, mp4 through the pipeline",
        "8 frames, mp4, exported folder without the package",
    )
    return [
        (
            "generations recorded from the official code: equal tokens; largest difference of a logit",
            f"{parity['generations with equal tokens']}; {logits:.1e}",
            "parity.py",
            "parity",
        ),
        (
            "`vidlada-tiny`, 8 frames: right answers; from mp4 / through the pipeline / exported, without the package; "
            "with another scene's video",
            f"{percent(plain)} of {plain['questions']:,}; "
            + " / ".join(percent(accuracy[way]["scores"]["all"]) for way in ways)
            + f"; {percent(control)}",
            "tiny_accuracy.py --questions 1050",
            "tiny_accuracy",
        ),
        caption_row(load),
    ]


def caption_row(load: Load) -> Row:
    """What parallel decoding and MARS-Cache do to long answers."""
    data = load("long_answers")
    ways = [data["results"][name] for name in ("none + quota", "none + threshold", "mars + threshold")]
    return (
        "its captions and descriptions, a token a step / parallel / and MARS-Cache: facts told; forward passes; faster",
        "; ".join(
            (
                " / ".join(f"{100 * way['answers']['facts']:.0f} %" for way in ways),
                " / ".join(f"{long_answers.count_passes(data, way)[0]:.1f}" for way in ways),
                " / ".join(f"{way['summary']['speedup']:.1f}x" for way in ways),
            )
        ),
        "long_answers.py",
        "long_answers",
    )


def mars_rows(load: Load) -> list[Row]:
    """What MARS-Cache costs and saves."""
    accuracy, cpu = load("mars_accuracy"), load("mars_speed_cpu")
    exact, mars = (accuracy["results"][name]["accuracy"]["all"] for name in ("exact", "mars"))
    on_cpu, cores = cpu["results"]["mars"]["summary"], f"2 CPU cores, torch {cpu['setup']['torch']}"
    return [
        (
            f"MARS-Cache, `vidlada-tiny`, 32 frames: right answers (exact decoding: {percent(exact)})",
            f"{percent(mars)} of {mars['questions']:,} ({mars['lost']} lost, {mars['gained']} gained)",
            "mars_accuracy.py whole",
            "mars_accuracy",
        ),
        (
            f"MARS-Cache, 32 frames, {cores}: faster; fewer operations",
            f"{on_cpu['speedup']:.1f}x ({on_cpu['seconds']:.0f} s); {on_cpu['flops_saving']:.1f}x",
            "mars_speed_cpu.py",
            "mars_speed_cpu",
        ),
        gpu_tables.readme_row(load),
    ]


def reading_rows(load: Load) -> list[Row]:
    """What reading videos costs."""
    reading = load("video_reading")
    tensor, cores = reading["tensor"], reading["cores"]
    return [
        (
            f'32 frames of a minute of 1080p to the model\'s tensor, {cores} CPU cores: before / now / `resize="fast"`',
            " / ".join(f"{tensor[f'seconds, {name}']:.1f}" for name in ("before", "now", "fast")) + " s",
            "video_reading.py",
            "video_reading",
        ),
    ]


def parity(load: Load) -> str:
    """Every quantity that is compared with the recordings."""
    figures = load("parity")["figures"]
    values = {name: value if isinstance(value, str) else f"{value:.1e}" for name, value in figures.items()}
    return markdown_table(("quantity", "largest difference"), list(values.items()))


def video_reading(load: Load) -> str:
    """Seeking against decoding from the start; from a file to the tensor; recordings of hours."""
    data = load("video_reading")
    rows = [*data["figures"].items()]
    rows += [(f"1080p, a minute, 32 frames: {name}", value) for name, value in data["tensor"].items()]
    rows += [
        (f"{hours}, 64 frames: {name}", value) for hours, one in data["long"].items() for name, value in one.items()
    ]
    small = data.get("small", {})  # not in files written before they were measured
    rows += [
        (f"5 s of 360p, {kind}, 8 frames: {name}", value) for kind, one in small.items() for name, value in one.items()
    ]
    return markdown_table(("", ""), [(name, f"{value:,}") for name, value in rows])


def data_loading(load: Load) -> str:
    """Clips a second, read alone and while the embedded checkpoint trains."""
    speeds = load("data_loading")["samples_per_second"]
    names = list(dict.fromkeys(name for kind in speeds.values() for name in kind))
    rows = [(name, *(f"{kind[name]:.2f}" if name in kind else "" for kind in speeds.values())) for name in names]
    return markdown_table(("clips a second", *speeds), rows)


def loss_variance(load: Load) -> str:
    """The share of the loss's variance that spread masking rates remove."""
    types = load("loss_variance")["types"]
    rows = [
        (name, *(f"{100 * removed[way]:.1f} %" for way in ("stratified", "antithetic")))
        for name, removed in types.items()
    ]
    return markdown_table(("answers", "stratified", "antithetic"), rows)


def lmms_eval_rows(load: Load) -> list[Row]:
    """lmms-eval beside our own evaluation, in the set-up that differs most."""
    data = load("lmms_eval")
    found = min(data["results"].values(), key=lambda each: each["same_answers"])
    scores = " / ".join(f"{100 * found[key]:.1f} %" for key in ("lmms_eval", "own"))
    return [
        (
            "lmms-eval 0.7.3 / our own evaluation, `vidlada-tiny`, mp4: right answers; same answers",
            f"{scores}; {found['same_answers']} of {data['setup']['questions']}",
            "lmms_eval.py",
            "lmms_eval",
        )
    ]


def published(load: Load) -> str:
    """Scores that others published, and where they were read."""
    rows = [[BENCHMARKS[task].title, *published_cells(task)] for task in PUBLISHED]
    sources = [f"- ({letter}) {source}." for letter, source in SOURCES.items()]
    return "\n".join([markdown_table(["benchmark", *MODELS], rows), "", *sources])


TABLES: dict[str, Callable[[Load], str]] = {
    "figures": figures,
    "parity": parity,
    "video_reading": video_reading,
    "data_loading": data_loading,
    "loss_variance": loss_variance,
    "published": published,
    **checkpoint_tables.TABLES,
    **gpu_tables.TABLES,
    **sharing_tables.TABLES,
}
