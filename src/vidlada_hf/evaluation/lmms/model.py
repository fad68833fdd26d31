"""The model that lmms-eval runs: its requests become chats, and their answers its results.

What a request asks for comes from its task; `model_args` go before it (see `ModelArgs`).
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from ...hub.loading import resolve_device
from ...modeling.generation_config_vidlada import VidLaDAGenerationConfig, rename_aliases
from ...modeling.stock_arguments_vidlada import drop_neutral, settle_sampling
from .answer_log import AnswerLog, answer_key
from .answering import Answerer
from .batches import Batch, Prompt, plan_batches
from .model_args import ModelArgs, check_count

# What tasks ask of other models, or of the code around a model.
FOREIGN = ("until", "image_aspect_ratio", "visual_cot", "max_agentic_steps", "stop_sequences", "skip_special_tokens")
SAMPLING = ("do_sample", "top_p", "top_k")  # a temperature of `model_args` goes before all of them
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp")


class _VidLaDA(lmms):
    """What the two classes below share.

    Args:
        batch_size: requests that are answered at a time, a whole number.
        device: such as "cuda:1"; by default the GPU of this process' local rank, or the CPU.
        max_batch_size: of lmms-eval, for a batch size that is searched for; not used.
        model_args: see `ModelArgs`.
    """

    def __init__(
        self,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__()
        args = ModelArgs.parse(model_args)
        self.batch_size = check_count("batch_size", batch_size)
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._device = torch.device(resolve_device(device))
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        if self._world_size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self._device.type == "cuda" else "gloo")
        self.answerer = Answerer(args, self._device)
        self.log = AnswerLog(args.answers, self._rank)

    @property
    def device(self) -> torch.device:
        return self._device

    def use(self, args: ModelArgs) -> None:
        """Answers by other arguments from now on, on the same checkpoint."""
        self.answerer.args = args

    def messages_of(self, request: Instance) -> list[dict[str, Any]]:
        """The chat that a request asks for."""
        raise NotImplementedError

    def settings_of(self, request: Instance) -> dict[str, Any]:
        """The settings that its task asks for."""
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request."""
        due = [i for i, request in enumerate(requests) if not is_padding(request)]
        chats = [to_chat(self.messages_of(requests[i])) for i in due]
        texts = dict(zip(due, self._answer([requests[i] for i in due], chats), strict=True))
        return [texts.get(i, "") for i in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """The answers of all rounds to each request. A round's messages are what the task makes of the rounds before;
        all requests do their first round, then those that go on their second."""
        rounds: list[list[str]] = [[] for _ in requests]
        known: list[Any] = [None] * len(requests)
        due = [i for i, request in enumerate(requests) if not is_padding(request)]
        chats = [to_chat(self.messages_of(requests[i])) for i in due]
        while due:
            for i, text in zip(due, self._answer([requests[i] for i in due], chats), strict=True):
                rounds[i].append(text)
            ahead = {i: self._next_round(requests[i], rounds[i], known[i]) for i in due}
            due = [i for i, (messages, _) in ahead.items() if messages is not None]
            chats = [to_chat(ahead[i][0]) for i in due]
            known = [ahead[i][1] if i in ahead else info for i, info in enumerate(known)]
        return rounds

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """For each request its given answer's *negative* log-likelihood in nats, and whether it would be generated.

        lmms-eval takes the choice with the least value: the models that it comes with return their loss. Version 0.7.3
        makes a text of a bare pair, so that no task could score it; what a `GenerationResult` holds it leaves alone.
        """
        raise NotImplementedError

    def _next_round(self, request: Instance, answers: list[str], known: Any) -> tuple[Any, Any]:
        raise NotImplementedError("VidLaDA answers several rounds as a chat model: leave out --force_simple.")

    def _answer(self, requests: Sequence[Instance], chats: list[list[dict[str, Any]]]) -> list[str]:
        """The answers to chats, those that are known already from the log."""
        prompts = self._prompts(requests, chats)
        texts = [self.log.get(prompt.key) for prompt in prompts]
        todo = [prompt for prompt, text in zip(prompts, texts, strict=True) if text is None]
        batches = plan_batches(todo, self.batch_size, self.answerer.args.share_video)
        with tqdm(total=len(prompts), initial=len(prompts) - len(todo), desc="VidLaDA", disable=self._rank > 0) as bar:
            for batch, answers in zip(batches, self.answerer.generate(batches, self.batch_size), strict=True):
                for prompt, text in zip(batch.prompts, answers, strict=True):
                    request = requests[prompt.place]
                    texts[prompt.place] = cut_at(text, self.settings_of(request).get("until"))
                    about = {"task": request.task_name, "doc": request.doc_id, "video": prompt.video}
                    self.log.add(prompt.key, texts[prompt.place], **about)
                bar.update(len(answers))
        return texts

    def _prompts(self, requests: Sequence[Instance], chats: list[list[dict[str, Any]]]) -> list[Prompt]:
        """The chats as prompts.

        Raises:
            ValueError: settings that are impossible, or videos that are not there; nothing is answered then.
        """
        settings = [self._settings(request) for request in requests]
        videos = [only_video(chat) for chat in chats]
        require_files(requests, [video for video in videos if video is not None])
        prompts, seen = [], Counter[str]()
        for i, (request, chat) in enumerate(zip(requests, chats, strict=True)):
            about: dict[str, Any] = {"doc": [request.task_name, request.doc_id, request.idx], "chat": describe(chat)}
            about |= {"settings": settings[i], "until": self.settings_of(request).get("until")}
            key = answer_key(self._setup() | about)
            seen[key] += 1  # a request that is repeated is answered anew
            key += f".{seen[key]}" if seen[key] > 1 else ""
            prompts.append(Prompt(i, chat, settings[i], videos[i], key))
        return prompts

    def _setup(self) -> dict[str, Any]:
        """What all answers depend on, besides their chats and settings."""
        args = self.answerer.args
        return {"weights": self.answerer.identity, "dtype": str(self.answerer.network.dtype), "inputs": args.inputs} | (
            {"share_video": True} if args.share_video else {}
        )

    def _settings(self, request: Instance) -> dict[str, Any]:
        """Arguments of `generate`: those of the task, and before them those of `model_args`."""
        said = {name: value for name, value in self.settings_of(request).items() if value is not None}
        own = self.answerer.args.generation
        dropped = (*FOREIGN, *(SAMPLING if "temperature" in own else ()))
        settings = {**rename_aliases({k: v for k, v in said.items() if k not in dropped}), **own}
        config = VidLaDAGenerationConfig.of(self.answerer.network.generation_config)
        unknown = config.update(**{"allow_uneven": True, **drop_neutral(settings, config.FIELDS)})
        settle_sampling(config, settings)
        if unknown:
            raise ValueError(f"The task {request.task_name!r} asks for {unknown}, which `generate` does not know.")
        config.blocks()
        return settings


class VidLaDAChat(_VidLaDA):
    """A chat model: tasks give whole conversations."""

    is_simple = False

    def messages_of(self, request: Instance) -> list[dict[str, Any]]:
        _, to_messages, _, doc_id, task, split = request.args
        return _call(to_messages, self.task_dict[task][split][doc_id])

    def settings_of(self, request: Instance) -> dict[str, Any]:
        return request.args[2]

    def _next_round(self, request: Instance, answers: list[str], known: Any) -> tuple[Any, Any]:
        """The messages of the round after these answers, None after the last, and what the task wants to know again."""
        _, to_messages, _, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        said = {"round_idx": len(answers), "previous_output": list(answers), "previous_round_info": known}
        payload = _call(to_messages, doc, **said)
        if not (isinstance(payload, tuple) and len(payload) == 4):  # a task of one round
            return None, None
        messages, is_over, _, known = payload
        return None if is_over else messages, known

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        raise NotImplementedError("lmms-eval asks chat models for no likelihoods: run this task with --force_simple.")


class VidLaDASimple(_VidLaDA):
    """A simple model: tasks give visuals and a text, and may ask for likelihoods."""

    is_simple = True

    def messages_of(self, request: Instance) -> list[dict[str, Any]]:
        context, _, to_visual, doc_id, task, split = request.args
        visuals = _call(to_visual, self.task_dict[task][split][doc_id]) or []
        return [{"role": "user", "content": [*map(to_part, visuals), {"type": "text", "text": context}]}]

    def settings_of(self, request: Instance) -> dict[str, Any]:
        return request.args[1]

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        groups: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            if not is_padding(request):
                groups.setdefault((request.task_name, request.doc_id, request.args[0], len(request.args)), []).append(i)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), desc="VidLaDA", disable=self._rank > 0) as bar:
            for places in groups.values():
                scored = self._score([requests[i] for i in places])
                for i, result in zip(places, scored, strict=True):
                    found[i] = result
                bar.update(len(places))
        return [GenerationResult(pair) for pair in found]

    def _score(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Given answers to one prompt."""
        first = requests[0]
        if len(first.args) == 2:  # a text alone
            chat = [{"role": "user", "content": [{"type": "text", "text": first.args[0]}]}]
        else:
            chat = to_chat(self.messages_of(first))
        choices = [self._choice(request) for request in requests]
        video = only_video(chat)
        require_files(requests, [] if video is None else [video])
        key = answer_key({**self._setup(), "chat": describe(chat), "choices": choices})
        stored = self.log.get(key)
        if stored is None:
            batch = Batch([Prompt(0, chat, {}, video, key)], shares_video=video is not None)
            scores, greedy = self.answerer.score(batch, choices)
            stored = [[-score, is_greedy] for score, is_greedy in zip(scores, greedy, strict=True)]
            self.log.add(key, stored, task=first.task_name, doc=first.doc_id, video=video, choices=choices)
        return [(loss, is_greedy) for loss, is_greedy in stored]

    def _choice(self, request: Instance) -> str:
        """The answer that is given, without the blank that separates it from the question elsewhere."""
        choice = request.args[1]
        if callable(choice):
            _, _, _, doc_id, task, split = request.args
            choice = choice(self.task_dict[task][split][doc_id])
        return str(choice).strip()


def is_padding(request: Instance) -> bool:
    """Whether a request is there only so that all processes have as many."""
    return bool((request.metadata or {}).get("__padding_only__"))


def cut_at(text: str, stops: Any) -> str:
    """The text before the first of the texts at which a task ends an answer."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        text = text.split(stop)[0] if stop else text
    return text


def to_part(visual: Any) -> dict[str, Any]:
    """A visual of a task as a part of lmms-eval's messages."""
    if isinstance(visual, Image.Image):
        return {"type": "image", "url": visual}
    if isinstance(visual, str):
        is_image = visual.lower().endswith(IMAGE_SUFFIXES)
        return {"type": "image" if is_image else "video", "url": visual}
    raise ValueError(f"VidLaDA sees videos by their paths and PIL images, and a task gives {visual!r:.100}.")


def to_chat(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """lmms-eval's messages as the processor takes them.

    Raises:
        ValueError: a part that is no text, image or video; or a piece of a video.
    """
    return [
        {"role": message["role"], "content": [_convert(part) for part in message["content"]]} for message in messages
    ]


def _convert(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind not in ("image", "video"):
        raise ValueError(f"VidLaDA sees text, images and videos, and a task gives a part of the type {kind!r}.")
    source = part["url"]
    if isinstance(source, Mapping) or any(part.get(name) is not None for name in ("start_time", "end_time")):
        raise ValueError(f"A task asks for a piece of a video, {dict(part)!r:.200}: cut it into a file of its own.")
    return {"type": kind, kind: source}


def only_video(chat: Sequence[Mapping[str, Any]]) -> str | None:
    """The file of a chat that has one video and nothing else to see; None for another chat."""
    visuals = [part for message in chat for part in message["content"] if part["type"] != "text"]
    sources = [part.get("video") for part in visuals]
    return str(sources[0]) if len(sources) == 1 and isinstance(sources[0], str | Path) else None


def describe(chat: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The chat in plain values; of an image its size and type stand for it."""
    return [
        [message["role"], *(str(part[part["type"]]).partition(" at 0x")[0] for part in message["content"])]
        for message in chat
    ]


def require_files(requests: Sequence[Instance], videos: Sequence[str]) -> None:
    """Raises a ValueError that names the videos that are not there, before any question is answered."""
    missing = sorted({video for video in videos if "://" not in video and not os.path.exists(video)})
    if missing:
        tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
        more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{len(missing)} videos of {tasks} are not there: {', '.join(missing[:3])}{more}. Put them there, or see "
            "where the task looks for them (HF_HOME)."
        )


def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A task's function. Those that end the process where a file is missing raise a ValueError with their message."""
    try:
        return function(*arguments, **named)
    except SystemExit as error:
        raise ValueError(str(error)) from error


__all__ = ["VidLaDAChat", "VidLaDASimple"]
