"""Answers in a Ray Data pipeline: paths and questions in, texts and errors out.

Only names and texts travel between Ray's processes: each actor reads the videos itself, so that no frame is ever in the
object store. Ray is not imported here.
"""

from typing import Any

from .answering import VideoAnswerer
from .video_list import Request


class RayVideoAnswerer(VideoAnswerer):
    """A `VideoAnswerer` for `Dataset.map_batches(RayVideoAnswerer, batch_format="pyarrow", concurrency=...)`.

    Ray makes one in each of its actors, of `fn_constructor_kwargs`, the arguments of `VideoAnswerer`.
    """

    def __call__(self, table: Any) -> Any:
        """A `pyarrow.Table` with the columns "video" and "question" -> the same with "answer" and "error", of which one
        is null in each row."""
        import pyarrow

        videos, questions = (table.column(name).to_pylist() for name in ("video", "question"))
        pairs = enumerate(zip(videos, questions, strict=True))
        requests = [Request(str(row), video, question) for row, (video, question) in pairs]
        found = {outcome.request.id: outcome for outcomes in self.answer(requests) for outcome in outcomes}
        for name in ("answer", "error"):
            column = [getattr(found[request.id], name) for request in requests]
            table = table.append_column(name, pyarrow.array(column, pyarrow.string()))
        return table


__all__ = ["RayVideoAnswerer"]
