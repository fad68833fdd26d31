"""Conversations that end with the beginning of an answer, which is gone on with; and texts too long for a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from .user_text_vidlada import encode_texts

TAIL = 8  # tokens of a begun answer that a decoder may need to know what stands between two words


def is_begun(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last message is the assistant's."""
    return bool(messages) and messages[-1].get("role") == "assistant"


def drop_empty_beginning(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The messages without an answer at the end that says nothing yet: it is begun anew."""
    if is_begun(messages):
        content = messages[-1].get("content") or ""
        text = content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
        if not text.strip():
            return list(messages[:-1])
    return list(messages)


def decode_behind(processor: Any, tail: Sequence[int], ids: Sequence[int], skip_special_tokens: bool) -> str:
    """What ids say behind others, with the white space between the two.

    Args:
        tail: the last ids before them.
    """
    options = {"skip_special_tokens": skip_special_tokens}
    before, whole = (processor.decode(part, **options) for part in ([*tail], [*tail, *ids]))
    return (whole[len(before) :] if whole.startswith(before) else processor.decode([*ids], **options)).rstrip()


def complete(messages: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    """The conversation with a text behind its last message, in that message's own form."""
    *earlier, last = map(dict, messages)
    content = last["content"]
    if isinstance(content, str):
        last["content"] = _join(content, text)
    else:
        at = max(i for i, part in enumerate(content) if part.get("type") == "text")
        joined = {**content[at], "text": _join(content[at]["text"], text)}
        last["content"] = [*content[:at], joined, *content[at + 1 :]]
    return [*earlier, last]


def _join(begun: str, text: str) -> str:
    return (begun.rstrip() if text[:1].isspace() else begun) + text


def refuse_long_text(processor: Any, messages: Sequence[Mapping[str, Any]], limit: int | None, **options: Any) -> None:
    """Raises a ValueError where the texts of a conversation alone take more tokens than a model has positions.

    No video is read for that.

    Args:
        limit: the model's positions; None: not known.
        options: of `apply_chat_template`.
    """
    text = processor.apply_chat_template(messages, **options)
    if limit is None or len(text.encode()) <= limit:  # a token takes a byte at least
        return
    count = len(encode_texts(processor.tokenizer, [text], verbose=False)["input_ids"][0])
    if count > limit:
        raise ValueError(
            f"The text of the conversation takes {count} tokens, and the model has {limit} positions: shorten it."
        )


__all__ = ["complete", "decode_behind", "drop_empty_beginning", "is_begun", "refuse_long_text"]
