"""Which questions are answered together: those of one video after each other, so that it is read and encoded once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A chat to answer.

    Args:
        place: of its answer among all answers.
        messages: for `apply_chat_template`.
        settings: of its answer; a batch has the same.
        video: the file that is its only visual; None: it has another, several or none.
        key: under which its answer is kept.
    """

    place: int
    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    video: str | None
    key: str


@dataclass(frozen=True)
class Batch:
    """Prompts with the same settings. Where they share a video, there may be more than are answered at a time.

    Args:
        shares_video: all are about one video.
    """

    prompts: list[Prompt]
    shares_video: bool

    def parts(self, size: int) -> list[slice]:
        """Of at most so many prompts."""
        return [slice(start, start + size) for start in range(0, len(self.prompts), size)]


def plan_batches(prompts: Iterable[Prompt], size: int, share_video: bool = False) -> list[Batch]:
    """Groups prompts by settings and by video, both in the order in which they come first.

    Args:
        size: prompts that are answered at a time. Those that are alone with their video fill batches of that size.
        share_video: whether a prompt that is alone with its video gets a batch of its own too.

    Raises:
        ValueError: to share a video, a prompt that has another visual, several or none.
    """
    groups: dict[str, dict[Any, list[Prompt]]] = {}
    for prompt in prompts:
        if share_video and prompt.video is None:
            raise ValueError(
                "`share_video` is for questions about one video file each, and these messages have another visual, "
                f"several or none: {prompt.messages!r:.300}. Leave it out."
            )
        alone = ("", prompt.place)
        groups.setdefault(repr(sorted(prompt.settings.items())), {}).setdefault(prompt.video or alone, []).append(
            prompt
        )
    batches: list[Batch] = []
    for by_video in groups.values():
        shared = [group for group in by_video.values() if len(group) > 1 or share_video]
        single = [group[0] for group in by_video.values() if not (len(group) > 1 or share_video)]
        batches += [Batch(group, True) for group in shared]
        batches += [Batch(single[start : start + size], False) for start in range(0, len(single), size)]
    return batches


__all__ = ["Batch", "Prompt", "plan_batches"]
