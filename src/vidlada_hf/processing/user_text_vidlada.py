"""Texts that users type: control tokens in them are text, and half characters are refused. One rule for all prompts.

A tokenizer takes its special tokens (`<|eot_id|>`, `<video>`, ...) for what they are wherever a prompt holds them. So
before a chat template writes its own around a message, those in the message are escaped: an invisible character
behind the first character of each breaks it. No tokenizer takes what is broken for a token, so a prompt that is
rendered here and tokenized elsewhere is safe too. `encode_texts` takes the escapes out again: the ids are those of the
text as it was typed.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from transformers.tokenization_utils_base import TruncationStrategy

_ESCAPE = "\U000f0000"  # a private character, which no text means anything by
_NOTHING = re.compile("(?!)")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_OPTIONS_OF_ESCAPED = {  # of a tokenizer, for a text with escapes
    *("add_special_tokens", "padding", "max_length", "pad_to_multiple_of", "padding_side", "truncation", "verbose"),
    *("return_attention_mask", "return_token_type_ids", "return_offsets_mapping"),
}


# -- half characters --------------------------------------------------------------------------------------------------


def check_characters(text: str, what: str) -> None:
    """Raises a ValueError for a text with a lone surrogate: half of a character, which has no bytes and no tokens.

    Args:
        what: the text is, such as "Message 1 (user)".
    """
    if found := _LONE_SURROGATE.search(text):
        raise ValueError(
            f"{what} holds half a character (a lone surrogate, {found[0]!r}, at index {found.start()}): repair the "
            "text's encoding, or take it out."
        )


# -- control tokens ---------------------------------------------------------------------------------------------------


def escape_conversation(conversation: Any, tokenizer: Any, sanitize: bool) -> Any:
    """A conversation, or a list of them, whose texts are checked and, with `sanitize`, hold no control token.

    Texts are the contents, their text parts and whatever else a message says; sources of videos and images are left as
    they are. What was given is not changed.

    Raises:
        ValueError: a text with a lone surrogate; the message names its place.
    """
    pattern = _control_tokens(tokenizer) if sanitize else _NOTHING
    if conversation and isinstance(conversation[0], (list, tuple)):
        return [
            [_escape_message(message, pattern, f"Message {j} of conversation {i}") for j, message in enumerate(each, 1)]
            for i, each in enumerate(conversation, 1)
        ]
    return [_escape_message(message, pattern, f"Message {j}") for j, message in enumerate(conversation, 1)]


def escape(value: Any, tokenizer: Any, sanitize: bool, what: str) -> Any:
    """Whatever else a template is given (tools, documents), its texts as in `escape_conversation`.

    Args:
        what: it is, for the error.
    """
    return _escape(value, _control_tokens(tokenizer) if sanitize else _NOTHING, what)


def _escape_message(message: Any, pattern: re.Pattern[str], what: str) -> Any:
    if not isinstance(message, Mapping):
        return message
    what = f"{what} ({message.get('role')!r})"
    parts = message.get("content")
    rest = {name: _escape(value, pattern, what) for name, value in message.items() if name != "content"}
    if "content" not in message:
        return rest
    if not isinstance(parts, (list, tuple)):
        return {**rest, "content": _escape(parts, pattern, what)}
    return {**rest, "content": _escape_parts(parts, pattern, what)}


def _escape_parts(parts: Sequence[Any], pattern: re.Pattern[str], what: str) -> list[Any]:
    """A template may join texts that follow each other, so that a token may begin in one and end in the next."""
    escaped: list[Any] = []
    for is_text, group in groupby(parts, key=_is_text):
        run = list(group)
        if not is_text:
            escaped += [part if _is_visual(part) else _escape(part, pattern, what) for part in run]
            continue
        texts = [_clean(part["text"], what) for part in run]
        joined, begin = _break("".join(texts), pattern), 0
        for part, text in zip(run, texts, strict=True):
            end, left = begin, len(text)
            while left:
                left -= joined[end] != _ESCAPE
                end += 1
            escaped.append({**_escape(part, pattern, what), "text": joined[begin:end]})
            begin = end
    return escaped


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _is_visual(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("video", "image")


def _escape(value: Any, pattern: re.Pattern[str], what: str) -> Any:
    """A text, or whatever holds texts, escaped."""
    if isinstance(value, str):
        return _break(_clean(value, what), pattern)
    if isinstance(value, Mapping):
        return {name: _escape(item, pattern, what) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escape(item, pattern, what) for item in value]
    return value


def _clean(text: str, what: str) -> str:
    check_characters(text, what)
    return text.replace(_ESCAPE, "")


def _break(text: str, pattern: re.Pattern[str]) -> str:
    while (broken := pattern.sub(lambda found: found[0][0] + _ESCAPE + found[0][1:], text)) != text:
        text = broken  # what is left of one token may be another
    return text


def _control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches the special tokens of a tokenizer, the longest first as it does itself."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return _pattern(tuple(sorted({*added, *tokenizer.all_special_tokens})))


@lru_cache(8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def typed(token: str) -> str:
    """A control token as it stands in a prompt where a user typed it."""
    return token[0] + _ESCAPE + token[1:]


# -- tokens of a prompt -----------------------------------------------------------------------------------------------


class OneAtATime:
    """A lock for a `with`. A copy of it, pickled or not, is a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return OneAtATime, ()


def encode_texts(tokenizer: Any, texts: list[str], **options: Any) -> Mapping[str, Any]:
    """What a tokenizer makes of prompts, lists; escaped control tokens become the ids of their characters.

    A tokenizer keeps the options of a call (padding, whether special tokens are split) while it works, and prompts are
    read ahead in threads: so whoever tokenizes, here and in `text_ids` of `modeling`, holds the tokenizer's `in_use`.

    Args:
        tokenizer, options: of its call.

    Raises:
        ValueError: an option that a text with escapes cannot have.
    """
    with vars(tokenizer).setdefault("in_use", OneAtATime()):
        return _encode_texts(tokenizer, texts, options)


def _encode_texts(tokenizer: Any, texts: list[str], options: dict[str, Any]) -> Mapping[str, Any]:
    if not any(_ESCAPE in text for text in texts):
        return tokenizer(texts, **options)
    if refused := [name for name, value in options.items() if value and name not in _OPTIONS_OF_ESCAPED]:
        raise ValueError(
            f"`{refused[0]}` is not to be had for a text in which a user typed a control token: leave it out, or take "
            "such tokens for what they are with `sanitize_control_tokens=False`."
        )
    with_offsets = bool(options.get("return_offsets_mapping"))
    before, behind = _added_around(tokenizer) if options.get("add_special_tokens", True) else ([], [])
    encoded = [_encode_escaped(tokenizer, text, with_offsets) for text in texts]
    ids = [[*before, *(token for token, _ in each), *behind] for each in encoded]
    nowhere = (0, 0)
    offsets = [[*[nowhere] * len(before), *(place for _, place in each), *[nowhere] * len(behind)] for each in encoded]
    if options.get("truncation") not in (None, False, "do_not_truncate", TruncationStrategy.DO_NOT_TRUNCATE):
        longest = options.get("max_length") or tokenizer.model_max_length
        kept = slice(None, longest) if tokenizer.truncation_side == "right" else slice(-longest, None)
        ids, offsets = [each[kept] for each in ids], [each[kept] for each in offsets]
    padding = {name: options.get(name) for name in ("max_length", "pad_to_multiple_of")}
    padding |= {"padding": options.get("padding", False), "return_attention_mask": True, "verbose": False}
    side = options.get("padding_side") or tokenizer.padding_side
    data = dict(tokenizer.pad({"input_ids": ids}, padding_side=side, **padding))
    if options.get("return_attention_mask") is False:
        del data["attention_mask"]
    if options.get("return_token_type_ids"):
        data["token_type_ids"] = [[0] * len(each) for each in data["input_ids"]]
    if with_offsets:
        pads = [[nowhere] * (len(padded) - len(own)) for padded, own in zip(data["input_ids"], ids, strict=True)]
        pairs = zip(pads, offsets, strict=True)
        data["offset_mapping"] = [pad + own if side == "left" else own + pad for pad, own in pairs]
    return data


def _encode_escaped(tokenizer: Any, text: str, with_offsets: bool) -> list[tuple[int, tuple[int, int]]]:
    """The ids of a prompt, each with its place in the text (escapes counted; (0, 0) unless `with_offsets`)."""
    encoded: list[tuple[int, tuple[int, int]]] = []
    for begin, end in _pieces(text, _control_tokens(tokenizer)):
        places = [i for i in range(begin, end) if text[i] != _ESCAPE]
        piece = tokenizer(
            "".join(text[i] for i in places),
            add_special_tokens=False,
            split_special_tokens=len(places) < end - begin,
            return_offsets_mapping=with_offsets,
            verbose=False,
        )
        offsets = piece["offset_mapping"] if with_offsets else [(0, 0)] * len(piece["input_ids"])
        spans = ((places[start], places[stop - 1] + 1) if stop > start else (0, 0) for start, stop in offsets)
        encoded += zip(piece["input_ids"], spans, strict=True)
    return encoded


def _pieces(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Cuts a prompt where its tokenizer cuts it too, at control tokens, so that a text with escapes stands alone."""
    edges = [0, *(edge for token in pattern.finditer(text) for edge in token.span()), len(text)]
    start = 0
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if _ESCAPE in text[begin:end]:
            if start < begin:
                yield start, begin
            yield begin, end
            start = end
    if start < len(text):
        yield start, len(text)


def _added_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and behind a text by itself."""
    bare, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    begin = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:begin], whole[begin + len(bare) :]


__all__ = ["check_characters", "encode_texts", "escape", "escape_conversation", "typed"]
