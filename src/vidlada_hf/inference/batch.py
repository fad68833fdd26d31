"""A list of videos answered into a file: what `vidlada batch` does, in one process or in several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .answer_files import AnswerFiles, write_lines
from .video_list import Process, Request

HOW = ("batch_size", "workers", "device")  # options of `VideoAnswerer` that answers do not depend on
APART = ("processor_kwargs", "dtype")  # options that are no generation settings


@dataclass(frozen=True)
class BatchReport:
    """How far a list is.

    Args:
        requests: of the whole list.
        answered, failed: of these, how many have an answer, and how many an error. Others are due yet, or are what
            other processes are at.
    """

    requests: int
    answered: int
    failed: int

    @property
    def due(self) -> int:
        """Requests without a line."""
        return self.requests - self.answered - self.failed


class Batch:
    """A list and the files of its answers.

    Args:
        requests: of `list_requests`.
        output: a JSONL file, see `AnswerFiles`. What is in it or in its parts is not answered again.
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        options: of `VideoAnswerer`.

    Raises:
        ValueError: the output's answers were made otherwise.
    """

    def __init__(self, requests: Sequence[Request], output: Path, model: str | None = None, **options: Any) -> None:
        self.requests, self.model, self.options = requests, model, options
        setup = {"model": model or "vidlada-tiny"} | {name: options.get(name) for name in APART}
        setup["settings"] = {name: value for name, value in sorted(options.items()) if name not in (*HOW, *APART)}
        self.files = AnswerFiles(output, setup)

    def run(self, process: Process, retry_errors: bool = False) -> BatchReport:
        """Answers what is due of a process' share. The answers that are there are merged, also after an interruption.

        Args:
            retry_errors: what ended in an error before is tried again.
        """
        done = {key for key, line in self.files.read().items() if not (retry_errors and line["answer"] is None)}
        due = [request for request in process.share(self.requests) if request.key not in done]
        try:
            if due:
                self._answer(due, process)
        finally:
            self.files.merge(request.key for request in self.requests)
        return self.report()

    def report(self) -> BatchReport:
        """How far the list is by now."""
        found = self.files.read()
        lines = [found[request.key] for request in self.requests if request.key in found]
        failed = sum(line["answer"] is None for line in lines)
        return BatchReport(len(self.requests), len(lines) - failed, failed)

    def _answer(self, due: Sequence[Request], process: Process) -> None:
        from .answering import VideoAnswerer

        answerer = VideoAnswerer(self.model, **self.options)
        first = {request.video: number for number, request in reversed(list(enumerate(due)))}
        due = sorted(due, key=lambda request: first[request.video])  # a video is read once for all that is asked
        unit = " videos" if len({request.video for request in due}) == len(due) else " answers"
        desc = f"process 0 of {process.world}" if process.world > 1 else None
        bar = tqdm(total=len(due), unit=unit, desc=desc, disable=process.rank > 0, mininterval=0.5)
        with bar, self.files.open_part(process.rank, process.world) as part:
            for outcomes in answerer.answer(due):
                write_lines(part, [_line(outcome) for outcome in outcomes])
                bar.update(len(outcomes))


def _line(outcome: Any) -> dict[str, Any]:
    request = outcome.request
    about = {"id": request.id, "video": request.video, "question": request.question}
    return about | {"answer": outcome.answer, "error": outcome.error}


__all__ = ["Batch", "BatchReport"]
