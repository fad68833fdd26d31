"""`vidlada bench`."""

from pathlib import Path
from typing import Annotated

import typer

from ..hub.locate import find_checkpoint
from .common import app, require_extra, require_file, tell_if_embedded, user_errors
from .options import BlockLength, CacheStrategies, Dtype, MaxDenoisingSteps, ModelArgument, UnmaskingRules


@app.command()
def bench(
    model: ModelArgument = None,
    questions: Annotated[
        str | None,
        typer.Option(
            help='A JSONL file, a line a question: {"video": path, "question": text} and, where known, "answer" (or '
            '"answers", any of which is right) and "type". Or `datasets` data with such columns: a .parquet file, a '
            "folder or an id on the Hub. Or 'module:function'.",
            show_default="those that come with the embedded checkpoint",
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder that the videos' paths start from.", show_default="that of the file")
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch videos that the questions name by an http(s) address.")
    ] = False,
    count: Annotated[int | None, typer.Option(help="Ask the first so many questions.", show_default="all")] = None,
    cache_strategy: CacheStrategies = None,
    unmasking: UnmaskingRules = None,
    share_video: Annotated[
        bool,
        typer.Option(
            "--share-video",
            help="Questions about one video share its keys and values, for which it does not see them: their answers "
            "are not exact, and stand beside exact decoding.",
        ),
    ] = False,
    frames: Annotated[int, typer.Option(help="Frames of each video.", min=1)] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas, in tokens.")] = 128,
    block_length: BlockLength = None,
    max_denoising_steps: MaxDenoisingSteps = None,
    stop_after: Annotated[
        str,
        typer.Option(
            help="Denoise up to the end of the answer, as users get it (answer), up to the end of its last block "
            "(block), or the whole canvas, so that all steps run (canvas)."
        ),
    ] = "answer",
    rounds: Annotated[int, typer.Option(help="Time everything so often, in turn.")] = 5,
    timed_questions: Annotated[int, typer.Option(help="Count and time the first so many questions.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.")] = 1,
    dtype: Dtype = "auto",
    output: Annotated[
        Path, typer.Option(help="JSON file of the results; one that is there is completed. The plot goes beside it.")
    ] = Path("bench.json"),
) -> None:
    """Measure cache strategies and unmasking rules on a model: speed, operations, memory, agreement, accuracy."""
    settings = {
        "max_new_tokens": max_new_tokens,
        "block_length": block_length,
        "max_denoising_steps": max_denoising_steps,
    }
    with user_errors("eval", f"{output} keeps what was measured; the same command goes on."):
        find_checkpoint(model)
        if questions is not None and Path(questions).suffix in (".jsonl", ".ndjson", ".json", ".parquet"):
            require_file(Path(questions))
        require_extra("eval")
        if questions is not None:  # the embedded checkpoint is made for those that come with it
            tell_if_embedded(model)
        from ..evaluation.bench import BenchOptions, run_bench
        from ..evaluation.decoding import DecodingRunner, combine_setups
        from ..evaluation.questions import load_questions
        from ..evaluation.report import bench_table, draw_bench

        if output.suffix == ".png":
            raise ValueError(f"The results are JSON, and {output} is where their plot goes: name another file.")
        options = BenchOptions(rounds, timed_questions, batch_size)
        setups = combine_setups(cache_strategy, unmasking, share_video)
        asked = load_questions(questions, count, videos, allow_urls)
        given = {name: value for name, value in settings.items() if value is not None}
        runner = DecodingRunner.from_pretrained(model, frames, dtype, stop_after=stop_after, settings=given)
        data = run_bench(runner, asked, setups, output, model or "vidlada-tiny", options)
        plot = draw_bench(data, output.with_suffix(".png"))
    typer.echo(f"{bench_table(data)}\n\nResults: {output}\nPlot:    {plot}")
