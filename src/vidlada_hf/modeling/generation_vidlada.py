"""The denoising loop: a canvas of masks behind the prompt becomes the answer, several tokens a step, block by block.

There is one loop, `VidLaDAGenerationMixin.generate`. What a step recomputes is decided by a `DenoisingCache`, what it
commits by an `UnmaskingStrategy`. Where nothing else is said, the rules are those of the official code.
"""

import copy
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from transformers.generation import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import ModelOutput
from transformers.utils import GENERATION_CONFIG_NAME, cached_file, logging

from .cache_strategies_vidlada import resolve_cache_strategy
from .cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout, cache_session, count_positions
from .stopping_vidlada import StopRules
from .unmasking_vidlada import UnmaskingStrategy, num_transfer_tokens, resolve_unmasking

logger = logging.get_logger(__name__)

# The official code's argument names -> ours.
ALIASES = {
    "gen_length": "max_new_tokens",
    "steps": "max_denoising_steps",
    "gen_steps": "max_denoising_steps",
    "cfg": "cfg_scale",
    "generation_suffix": "suffix",
    "generation_context_ids": "canvas",
}
# Arguments of autoregressive decoding, with the one value that describes what happens here anyway.
AUTOREGRESSIVE_ONLY = {"use_cache": False, "do_sample": False, "num_beams": 1, "num_return_sequences": 1}


class VidLaDAGenerationConfig(GenerationConfig):
    """How to denoise. Stored as generation_config.json; each field is also an argument of `generate`.

    Args:
        max_new_tokens: length of the canvas in tokens (official name `gen_length`).
        block_length: the canvas is denoised block by block, each of so many tokens. None: 32, the last block shorter
            where 32 does not divide the canvas.
        max_denoising_steps: steps over the whole canvas, shared evenly by the blocks (official `steps`, `gen_steps`).
            None: one token a step.
        allow_uneven: without it, blocks must divide the canvas and steps must be a multiple of the blocks. With it the
            last block may be shorter, and the first blocks get one step more.
        unmasking: the rule that commits tokens: "quota" (so many a step, the most confident first), "threshold",
            "factor" or "entropy" (more where the model is sure; see `unmasking_vidlada`).
        unmask_threshold, unmask_factor, unmask_entropy_bound: of the rule of that name; probability, factor, nats.
        cache_strategy: what a step recomputes: "none" (everything, exact), "mars" (MARS-Cache),
            "prefix", "dual" (Fast-dLLM) or "interval" (dLLM-Cache); see `cache_strategies_vidlada`.
        cache_config: settings of the strategy of that name, a dict such as {"anchors": 4}.
        temperature: 0 takes the most probable token; above, Gumbel noise in float64 is added to the choice.
        cfg_scale: classifier-free guidance, logits = un + (scale + 1) (cond - un), where the unconditional branch sees
            masks instead of the whole prompt, video included. 0 switches it off.
        remasking: the confidence that orders positions: "low_confidence" (probability of the chosen token, float64) or
            "random".
        suppress_tokens: ids that a masked position never becomes. None: the model config's.
        eos_token_id: ids that end the answer wherever they appear in it; the earliest wins and is cut off. [] for none.
        stop_token_ids: further stops, each an id or a sequence of ids.
        stop_strings: further stops as text. They need `tokenizer=`; a token in which a stop begins is cut off whole.
        official_stop_search: once a stop was found, look only for the first of the stops again, as the official code
            does by mistake.
        seed: of the noise ("random" remasking, temperature > 0), where no `generator` is given. Each example of a batch
            draws from a generator of its own with this seed, and so gets what it gets alone.
        return_dict_in_generate: return a `VidLaDAGenerationOutput` instead of the sequences.
        pad_token_id, bos_token_id: special ids. Rows shorter than the longest are padded on the right.

    Raises:
        ValueError: a value that is impossible, or a name that is unknown (the message gives the nearest known one).
    """

    FIELDS: dict[str, Any] = {
        "max_new_tokens": 128,
        "block_length": None,
        "max_denoising_steps": None,
        "allow_uneven": False,
        "unmasking": "quota",
        "unmask_threshold": 0.9,
        "unmask_factor": 1.0,
        "unmask_entropy_bound": 0.1,
        "cache_strategy": "none",
        "cache_config": None,
        "temperature": 0.0,
        "cfg_scale": 0.0,
        "remasking": "low_confidence",
        "suppress_tokens": None,
        "eos_token_id": None,
        "stop_token_ids": None,
        "stop_strings": None,
        "official_stop_search": False,
        "seed": None,
        "return_dict_in_generate": False,
        "pad_token_id": None,
        "bos_token_id": None,
    }

    def __init__(self, **kwargs: Any) -> None:
        # Not the parent's: its attributes are autoregressive decoding's, and accepting them would swallow mistakes.
        for name, default in self.FIELDS.items():
            setattr(self, name, kwargs.pop(name, default))
        self.transformers_version = kwargs.pop("transformers_version", None)
        self._from_model_config = kwargs.pop("_from_model_config", False)
        refuse_unknown([name for name in kwargs if not name.startswith("_")], self.FIELDS)
        self.validate()

    def validate(self, *_: Any, **__: Any) -> None:
        """Raises a ValueError that names the first field of an impossible value."""
        for name in ("max_new_tokens", "block_length", "max_denoising_steps"):
            value = getattr(self, name)
            if value is None and name != "max_new_tokens":
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
            setattr(self, name, int(value))  # numpy's whole numbers cannot be stored as JSON
        for name in ("temperature", "cfg_scale"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
                raise ValueError(f"`{name}` must be a number of at least 0, got {value!r}.")
        if self.remasking not in ("low_confidence", "random"):
            raise ValueError(f"`remasking` must be 'low_confidence' or 'random', got {self.remasking!r}.")
        for name in ("unmasking", "cache_strategy"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"`{name}` is stored by its name, got {getattr(self, name)!r}: pass an object to `generate` itself."
                )
        resolve_unmasking(self.unmasking, self)
        resolve_cache_strategy(self.cache_strategy, self.cache_config)

    def blocks(self) -> list[tuple[slice, int]]:
        """The canvas cut in blocks: (columns within the canvas, steps) each.

        Where no block length was asked for, the last block may be shorter than 32.

        Raises:
            ValueError: a division is not exact and `allow_uneven` is off, or there are fewer steps than blocks.
        """
        length, steps = self.max_new_tokens, self.max_denoising_steps
        block = self.block_length or min(32, length)
        if length % block and self.block_length is not None and not self.allow_uneven:
            raise ValueError(
                f"`block_length` ({block}) does not divide `max_new_tokens` ({length}). Take a divisor, or set "
                "`allow_uneven=True` for a shorter last block."
            )
        starts = range(0, length, block)
        columns = [slice(start, min(start + block, length)) for start in starts]
        if steps is None:
            return [(block, block.stop - block.start) for block in columns]
        if steps < len(starts):
            raise ValueError(
                f"`max_denoising_steps` ({steps}) must be at least the number of blocks ({len(starts)} of {block} "
                "tokens)."
            )
        if steps % len(starts) and not self.allow_uneven:
            raise ValueError(
                f"`max_denoising_steps` ({steps}) is not a multiple of the number of blocks ({len(starts)} of {block} "
                "tokens). Take a multiple, or set `allow_uneven=True` to give the first blocks one step more."
            )
        base, rest = divmod(steps, len(starts))
        return [(block, base + (i < rest)) for i, block in enumerate(columns)]

    def planned_steps(self) -> list[DenoisingStep]:
        """All steps of a canvas of masks that no stop ends early, with `span` counted from the canvas' beginning."""
        plan = [(number, i, rows) for number, (rows, steps) in enumerate(self.blocks()) for i in range(steps)]
        return [DenoisingStep(index, number, i, rows) for index, (number, i, rows) in enumerate(plan)]

    @classmethod
    def from_model_config(cls, model_config: Any) -> "VidLaDAGenerationConfig":
        """The defaults, with the special ids of a `VidLaDAConfig`."""
        text = model_config.get_text_config()
        return cls(pad_token_id=text.pad_token_id, bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id)

    @classmethod
    def of(cls, config: GenerationConfig) -> "VidLaDAGenerationConfig":
        """A copy of a config, which may be a stock `GenerationConfig`: what is set in it and means something here."""
        if hasattr(config, "FIELDS"):
            return copy.deepcopy(config)  # type: ignore[return-value]
        return cls.from_dict({name: value for name, value in config.to_dict().items() if value is not None})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From a parsed generation_config.json; fields of autoregressive decoding in it are left out with a warning."""
        foreign = [name for name in GenerationConfig().to_dict() if name in config_dict and name not in cls.FIELDS]
        told = [name for name in foreign if config_dict[name] and not name.startswith(("_", "transformers_"))]
        if told:
            logger.warning("generation_config.json sets %s, which a diffusion model does not use.", ", ".join(told))
        kept = {k: v for k, v in config_dict.items() if k not in foreign or k == "_from_model_config"}
        return super().from_dict(kept, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All fields that are set, so that the stored file says exactly how its results were made."""
        return copy.deepcopy({name: getattr(self, name) for name in self.FIELDS if getattr(self, name) is not None})

    def to_diff_dict(self) -> dict[str, Any]:
        """The same as `to_dict`: nothing is left to a default that may change."""
        return self.to_dict()


@dataclass
class StepOutput:
    """One step of the denoising, as seen by a `step_callback` and in the trace.

    Args:
        step: which step it was.
        tokens: (batch, block), int64, the token chosen at each position of the block.
        confidence: (batch, block), float, of the chosen tokens; -inf where nothing could be committed.
        committed: (batch, block), bool, the positions committed in this step.
        canvas: (batch, canvas), int64, after the step; `mask_token_id` where not known yet.
    """

    step: DenoisingStep
    tokens: torch.Tensor
    confidence: torch.Tensor
    committed: torch.Tensor
    canvas: torch.Tensor


@dataclass
class VidLaDAGenerationOutput(ModelOutput):
    """What `generate(..., return_dict_in_generate=True)` returns.

    Args:
        sequences (`torch.LongTensor` of shape `(batch, rows)`): prompt, answer up to its stop, suffix; shorter rows are
            padded on the right.
        tokens_per_forward (`torch.FloatTensor` of shape `(batch,)`): tokens committed a forward pass, counting the
            passes in which the example had something to commit.
        trace: one `StepOutput` a forward pass, on the CPU.
    """

    sequences: torch.Tensor | None = None
    tokens_per_forward: torch.Tensor | None = None
    trace: list[StepOutput] | None = None


@dataclass
class Canvas:
    """The answer being denoised.

    Args:
        ids: (batch, canvas), int64.
        masked: (batch, canvas), bool, positions not committed yet. Tracked, never found again by comparing ids.
        stop: (batch,), int64, the column where the answer ends; the canvas' length while no stop was found.
        committed, forwards: (batch,), int64, tokens committed and forward passes that could commit any.
    """

    ids: torch.Tensor
    masked: torch.Tensor
    stop: torch.Tensor
    committed: torch.Tensor = field(init=False)
    forwards: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.committed, self.forwards = torch.zeros_like(self.stop), torch.zeros_like(self.stop)

    def eligible(self, columns: slice) -> torch.Tensor:
        """(batch, columns), bool: masked and before the stop."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (self.masked & (place < self.stop[:, None]))[:, columns]

    def commit(self, columns: slice, tokens: torch.Tensor, chosen: torch.Tensor, active: torch.Tensor) -> None:
        """Writes the chosen tokens and counts them; `active` marks the examples that could commit in this pass."""
        self.ids[:, columns] = torch.where(chosen, tokens, self.ids[:, columns])
        self.masked[:, columns] &= ~chosen
        self.committed += chosen.sum(-1)
        self.forwards += active


class VidLaDAGenerationMixin:
    """`generate` for a masked diffusion language model."""

    generation_config_class = VidLaDAGenerationConfig
    generation_config: VidLaDAGenerationConfig
    config: Any
    model: Any
    lm_head: Any

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.Tensor | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
        generation_config: VidLaDAGenerationConfig | None = None,
        cache_strategy: str | DenoisingCache | None = None,
        unmasking: str | UnmaskingStrategy | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | Sequence[str] | None = None,
        streamer: BaseStreamer | None = None,
        step_callback: Callable[[StepOutput], None] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor | VidLaDAGenerationOutput:
        """Answers the prompts by denoising a canvas of masks behind each.

        1. Preparation
            a. Check all arguments.
            b. Lay out prompt, canvas and suffix, and let the cache strategy check the layout.
            c. Encode the video and merge it into the prompt's embeddings, once.
        2. For each block of the canvas, for each of its steps, until nothing is left to commit before a stop:
            a. Embed the canvas as it stands.
            b. Let the cache strategy compute the hidden states of the block's rows.
            c. Logits of these rows: guidance, suppressed tokens, logits processors.
            d. Choose a token and a confidence for each row.
            e. Let the unmasking strategy commit some of them.
            f. Look for stops; tell who watches: the streamer, the callback, the stopping criteria.
        3. Cut each answer at its stop, append the suffix, pad on the right.

        Args:
            input_ids: (batch, rows), prompts as the processor returns them. Padded prompts need the `attention_mask`;
                each example's result is the one it has alone.
            attention_mask: (batch, rows), 0 where padded.
            pixel_values, pixel_values_videos, video_num_frames, video_features, vision_batch_size: as in `forward`.
            generation_config: replaces the model's; fields of it can also be given as arguments, which win.
            cache_strategy, unmasking: a name or an object. A stored `cache_config` belongs to the stored name, and is
                left aside where another strategy is asked for.
            logits_processor: called with ids (batch x block, rows) and scores (batch x block, vocabulary), one row for
                each position of the block.
            stopping_criteria: called after each step with the sequences as they stand; examples for which they return
                True are left as they are. A list of strings is taken as the official code takes it: each is
                tokenized, and the answer ends before the first place where these tokens stand.
            streamer: gets `put(prompt)`, after each step `put_draft(value=canvas from this block on)` if it has that
                method, after each block `put(block)`, then `end()`.
            step_callback: called after each step with a `StepOutput`.
            generator: of the noise; or one for each example, so that a batch draws what each example draws alone.
            tokenizer: needed for `stop_strings`, a `suffix` given as text and strings in `stopping_criteria`.
            kwargs: fields of `VidLaDAGenerationConfig`; `canvas`, (canvas,) or (batch, canvas) ids with `mask_token_id`
                where a token is wanted and given tokens elsewhere (infilling); `suffix`, text or ids that stand behind
                the canvas; and the official names `gen_length`, `steps`, `gen_steps`, `cfg`, `generation_suffix`,
                `generation_context_ids`.

        Returns:
            (batch, rows), int64: prompt, answer, suffix, right padding; or a `VidLaDAGenerationOutput`.

        Raises:
            ValueError: an impossible or unknown argument, before any work is done.
        """
        # 1.a Check all arguments.
        asked = self._check_request(
            input_ids, attention_mask, generation_config, cache_strategy, unmasking, generator, tokenizer, kwargs
        )
        input_ids, settings, canvas = asked.input_ids, asked.settings, asked.canvas
        criteria, official_stops = split_criteria(stopping_criteria)
        stops = StopRules.build(settings, official_stops, tokenizer)
        audience = GenerationObservers(streamer, step_callback, settings.return_dict_in_generate)
        # 1.b Lay out prompt, canvas and suffix, and let the cache strategy check the layout.
        branches = 2 if settings.cfg_scale > 0 else 1
        layout = self._prepare_layout(input_ids, attention_mask, video_num_frames, canvas, asked.suffix_ids).repeat(
            branches
        )
        asked.cache.check(self.config.get_text_config(), layout)
        with cache_session(asked.cache, layout), closing(audience):
            # 1.c Encode the video and merge it into the prompt's embeddings, once.
            prompt = self.model.merge_features(
                input_ids, pixel_values, pixel_values_videos, video_num_frames, video_features, vision_batch_size
            )
            embeddings = self._prepare_embeddings(prompt, canvas, asked.suffix_ids, branches)
            ids = torch.cat([input_ids, canvas.ids, asked.suffix_ids.expand(len(input_ids), -1)], dim=1)
            stops.update(canvas)
            audience.begin(input_ids)
            # 2. For each block of the canvas, for each of its steps.
            for number, (columns, steps) in enumerate(asked.blocks):
                rows = slice(layout.canvas.start + columns.start, layout.canvas.start + columns.stop)
                quotas = num_transfer_tokens(canvas.masked[:, columns].sum(-1), steps)
                for step_in_block in range(steps):
                    eligible = canvas.eligible(columns)
                    active = eligible.any(-1)
                    awake = tuple(active.tolist())
                    if not any(awake):
                        break
                    step = DenoisingStep(audience.steps_seen, number, step_in_block, rows, awake * branches)
                    # 2.a Embed the canvas as it stands.
                    embeddings[:, layout.canvas] = self.model.get_input_embeddings()(canvas.ids).repeat(branches, 1, 1)
                    # 2.b Hidden states of the block's rows.
                    hidden_states = asked.cache.denoise(self.model.language_model, embeddings, step)
                    # 2.c Logits.
                    logits = self._block_logits(hidden_states, settings, ids, logits_processor)
                    # 2.d Choose a token and a confidence for each row.
                    tokens, confidence = sample_tokens(
                        logits, settings.temperature, settings.remasking, asked.noise, active
                    )
                    confidence = confidence.masked_fill(~eligible, -torch.inf)
                    # 2.e Commit some of them; in the last step whatever a user's own rule has left.
                    chosen = asked.unmasking.select(confidence, eligible, quotas[:, step_in_block], logits) & eligible
                    chosen = eligible if step_in_block == steps - 1 else chosen
                    canvas.commit(columns, tokens, chosen, active)
                    ids[:, layout.canvas] = canvas.ids
                    # 2.f Look for stops; tell who watches.
                    stops.update(canvas)
                    audience.see_step(StepOutput(step, tokens, confidence, chosen, canvas.ids.clone()), columns, canvas)
                    if criteria:
                        canvas.masked &= ~criteria(ids, None)[:, None]  # these examples commit nothing more
                audience.see_block(columns, canvas)

        # 3. Cut each answer at its stop, append the suffix, pad on the right.
        sequences = assemble_sequences(input_ids, canvas, asked.suffix_ids, settings.pad_token_id)
        if not settings.return_dict_in_generate:
            return sequences
        return VidLaDAGenerationOutput(sequences, canvas.committed / canvas.forwards.clamp(min=1), audience.trace)

    def _check_request(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        generation_config: GenerationConfig | None,
        cache_strategy: str | DenoisingCache | None,
        unmasking: str | UnmaskingStrategy | None,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        tokenizer: Any,
        kwargs: dict[str, Any],
    ) -> "Request":
        """The arguments of `generate` that need no network to be judged; raises a ValueError for the first bad one."""
        if input_ids is None or input_ids.dim() != 2:
            shape = None if input_ids is None else tuple(input_ids.shape)
            raise ValueError(f"`input_ids` must be given with shape (batch, rows), got {shape}.")
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_ids` {tuple(input_ids.shape)}, "
                f"got {tuple(attention_mask.shape)}."
            )
        kwargs = rename_aliases(kwargs)
        canvas_ids, suffix = kwargs.pop("canvas", None), kwargs.pop("suffix", None)
        if canvas_ids is not None:
            kwargs.setdefault("max_new_tokens", torch.as_tensor(canvas_ids).shape[-1])
        if isinstance(cache_strategy, str):
            kwargs["cache_strategy"], cache_strategy = cache_strategy, None
        if cache_strategy is not None and kwargs.get("cache_config") is not None:
            raise ValueError("`cache_config` belongs to a strategy's name: give the settings to your object itself.")
        settings, unknown = self._prepare_generation_config(generation_config, **kwargs)
        refuse_unknown(
            unknown, [*settings.FIELDS, *ALIASES, "canvas", "suffix", *inspect.signature(self.generate).parameters]
        )
        rule = resolve_unmasking(settings.unmasking if unmasking is None else unmasking, settings)
        if settings.remasking == "random" and getattr(rule, "needs_probabilities", False):
            raise ValueError(
                f"{type(rule).__name__} compares probabilities, and `remasking='random'` draws what it compares: take "
                "`unmasking='quota'`, or `remasking='low_confidence'`."
            )
        batch, device = len(input_ids), input_ids.device
        return Request(
            input_ids=input_ids,
            settings=settings,
            blocks=settings.blocks(),
            cache=resolve_cache_strategy(
                settings.cache_strategy if cache_strategy is None else cache_strategy, settings.cache_config
            ),
            unmasking=rule,
            canvas=self._prepare_canvas(canvas_ids, settings, batch, device),
            suffix_ids=as_suffix(suffix, tokenizer, device),
            noise=RandomSource(settings.seed, generator, batch, device),
        )

    def _prepare_generation_config(
        self, generation_config: VidLaDAGenerationConfig | None = None, **kwargs: Any
    ) -> tuple[VidLaDAGenerationConfig, dict[str, Any]]:
        """A copy of the given or the model's config with the arguments in it, and the arguments that are none of it."""
        settings = VidLaDAGenerationConfig.of(
            generation_config if generation_config is not None else self.generation_config
        )
        unused = {}
        if kwargs.get("cache_strategy", settings.cache_strategy) != settings.cache_strategy:
            settings.cache_config = None
        for name, value in kwargs.items():
            if name in settings.FIELDS:
                setattr(settings, name, value)
            elif name in AUTOREGRESSIVE_ONLY and value not in (None, AUTOREGRESSIVE_ONLY[name]):
                raise ValueError(
                    f"`{name}={value!r}` belongs to autoregressive decoding. VidLaDA draws with `temperature` above 0, "
                    "and reuses computation with `cache_strategy`."
                )
            elif name not in AUTOREGRESSIVE_ONLY:
                unused[name] = value
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(settings, name) is None:
                setattr(settings, name, getattr(self.config.get_text_config(), name))
        if settings.suppress_tokens is None:
            settings.suppress_tokens = self.config.suppress_tokens
        check_ids("suppress_tokens", settings.suppress_tokens, self.config.get_text_config().vocab_size)
        settings.validate()
        return settings, unused

    def _prepare_canvas(
        self, given: Any, settings: VidLaDAGenerationConfig, batch: int, device: torch.device
    ) -> Canvas:
        """A canvas of masks, or the given one."""
        length = settings.max_new_tokens
        if given is None:
            ids = torch.full((batch, length), self.config.mask_token_id, device=device)
        else:
            ids = torch.as_tensor(given, device=device).long()
            ids = ids[None].expand(batch, -1).clone() if ids.dim() == 1 else ids.clone()
            if ids.shape != (batch, length):
                raise ValueError(
                    f"`canvas` must have the shape ({length},) or ({batch}, {length}), as `max_new_tokens` and the "
                    f"batch say, got {tuple(torch.as_tensor(given).shape)}."
                )
            check_ids("canvas", ids.flatten().tolist(), self.config.get_text_config().vocab_size)
        return Canvas(ids, ids == self.config.mask_token_id, torch.full((batch,), length, device=device))

    def _prepare_layout(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        video_num_frames: torch.Tensor | None,
        canvas: Canvas,
        suffix_ids: torch.Tensor,
    ) -> SequenceLayout:
        """Where prompt, canvas and suffix stand."""
        (batch, prompt_length), canvas_length = input_ids.shape, canvas.ids.shape[1]
        following = (batch, canvas_length + len(suffix_ids))
        attended = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        attended = torch.cat([attended, attended.new_ones(following)], dim=1)
        frame_index = self.model.frame_index(input_ids, video_num_frames)
        return SequenceLayout(
            position_ids=count_positions(attended),
            attention_mask=None if bool(attended.all()) else attended.bool(),
            frame_index=torch.cat([frame_index, frame_index.new_full(following, -1)], dim=1),
            canvas=slice(prompt_length, prompt_length + canvas_length),
        )

    def _prepare_embeddings(
        self, prompt: torch.Tensor, canvas: Canvas, suffix_ids: torch.Tensor, branches: int
    ) -> torch.Tensor:
        """(branches x batch, rows, hidden); the second branch, if any, has masks for its whole prompt."""
        embed = self.model.get_input_embeddings()
        suffix = embed(suffix_ids).expand(len(prompt), -1, -1)
        embeddings = torch.cat([prompt, embed(canvas.ids), suffix], dim=1)
        if branches == 1:
            return embeddings
        blind = embeddings.clone()
        blind[:, : prompt.shape[1]] = embed(canvas.ids.new_tensor(self.config.mask_token_id))
        return torch.cat([embeddings, blind])

    def _block_logits(
        self,
        hidden_states: torch.Tensor,
        settings: VidLaDAGenerationConfig,
        ids: torch.Tensor,
        logits_processor: LogitsProcessorList | None,
    ) -> torch.Tensor:
        """(branches x batch, block, hidden) -> (batch, block, vocabulary), float32."""
        logits = self.lm_head(hidden_states).float().to(ids.device)  # a spread model may have its head elsewhere
        if settings.cfg_scale > 0:
            conditional, unconditional = logits.chunk(2)
            logits = unconditional + (settings.cfg_scale + 1) * (conditional - unconditional)
        logits[..., settings.suppress_tokens] = -torch.inf
        if logits_processor:
            block = logits.shape[1]
            # Placeholders may lie outside the vocabulary, where processors that look ids up would fail.
            known = ids.masked_fill(ids >= logits.shape[-1], settings.pad_token_id or 0)
            scores = LogitsProcessorList(logits_processor)(known.repeat_interleave(block, dim=0), logits.flatten(0, 1))
            logits = scores.view_as(logits)
        return logits

    def adjust_generation_fn(
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: Any,
        cache_dir: Any,
        force_download: bool,
        proxies: Any,
        local_files_only: bool,
        token: Any,
        revision: str,
        subfolder: str,
        trust_remote_code: bool,
        **kwargs: Any,
    ) -> None:
        """Called by `from_pretrained`: the given config, else generation_config.json, else the model config's ids."""
        if generation_config is not None:
            self.generation_config = VidLaDAGenerationConfig.of(generation_config)
            return
        source = {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
            "subfolder": subfolder,
        }
        name = pretrained_model_name_or_path
        # Only a file that is not there is passed over: one that cannot be read must not silently become the defaults.
        if cached_file(name, GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **source) is None:
            return
        stored = VidLaDAGenerationConfig.from_pretrained(name, **source)
        # A file that the official code derived from its model config says nothing that our translation does not know
        # better: it names one end token, and the model ends its turns with another.
        if not stored._from_model_config:
            self.generation_config = stored


@dataclass(frozen=True)
class Request:
    """What one `generate` was asked for, checked.

    Args:
        input_ids: (batch, rows), int64.
        settings: the generation config with the arguments in it.
        blocks: the canvas cut in blocks, see `VidLaDAGenerationConfig.blocks`.
        cache, unmasking: the strategies.
        canvas: as it stands before the first step.
        suffix_ids: (suffix,), int64.
        noise: where random draws come from.
    """

    input_ids: torch.Tensor
    settings: VidLaDAGenerationConfig
    blocks: list[tuple[slice, int]]
    cache: DenoisingCache
    unmasking: UnmaskingStrategy
    canvas: Canvas
    suffix_ids: torch.Tensor
    noise: "RandomSource"


class GenerationObservers:
    """Those who watch one `generate`: a streamer, a callback, and the trace if it is kept."""

    def __init__(self, streamer: Any, step_callback: Callable[[StepOutput], None] | None, keep_trace: bool) -> None:
        self.streamer, self.step_callback, self.keep_trace = streamer, step_callback, keep_trace
        self.steps_seen = 0
        self.trace: list[StepOutput] = []

    def begin(self, input_ids: torch.Tensor) -> None:
        """Shows the prompts (batch, rows)."""
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())

    def see_step(self, done: StepOutput, columns: slice, canvas: Canvas) -> None:
        """Shows a step, and the canvas from the current block to its end as a draft."""
        self.steps_seen += 1
        if self.keep_trace:
            values = (done.tokens, done.confidence, done.committed, done.canvas)
            self.trace.append(StepOutput(done.step, *(value.cpu() for value in values)))
        if hasattr(self.streamer, "put_draft"):
            self.streamer.put_draft(value=done.canvas[:, columns.start : int(canvas.stop.max())].cpu())
        if self.step_callback is not None:
            self.step_callback(done)

    def see_block(self, columns: slice, canvas: Canvas) -> None:
        """Shows a finished block, up to the stop."""
        if self.streamer is None:
            return
        end = min(columns.stop, int(canvas.stop.max()))
        if columns.start < end:
            self.streamer.put(canvas.ids[:, columns.start : end].clone().cpu())

    def close(self) -> None:
        """No more comes: an iterating streamer must not be left waiting, also after an error."""
        if self.streamer is not None:
            self.streamer.end()


class RandomSource:
    """Random draws of one `generate`, from one generator or from one for each example.

    Raises:
        ValueError: the number of generators is not the batch size, or both a seed and generators are given.
    """

    def __init__(
        self,
        seed: int | None,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        batch: int,
        device: torch.device,
    ) -> None:
        if seed is not None and generator is not None:
            raise ValueError("Give `seed` or `generator`, not both.")
        if seed is not None:
            generator = [torch.Generator(device).manual_seed(seed) for _ in range(batch)]
        self.each = list(generator) if isinstance(generator, Sequence) else None
        if self.each is not None and len(self.each) != batch:
            raise ValueError(
                f"`generator` holds {len(self.each)} generators for a batch of {batch}: give one or {batch}."
            )
        self.shared = None if isinstance(generator, Sequence) else generator
        self.batch, self.device = batch, device

    def uniform(self, *shape: int, dtype: torch.dtype, active: torch.Tensor) -> torch.Tensor:
        """(batch, *shape) from [0, 1).

        Args:
            active: (batch,), bool. An example's own generator is left alone where the example has nothing to draw for,
                so that what it draws later does not depend on the rest of the batch.
        """
        if self.each is None:
            return self._draw((self.batch, *shape), self.shared, dtype)
        nothing = torch.full((1, *shape), 0.5, dtype=dtype, device=self.device)
        return torch.cat(
            [
                self._draw((1, *shape), generator, dtype) if draws else nothing
                for generator, draws in zip(self.each, active.tolist(), strict=True)
            ]
        )

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, dtype=dtype, device=device).to(self.device)


def sample_tokens(
    logits: torch.Tensor, temperature: float, remasking: str, noise: RandomSource, active: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token and a confidence for each position.

    Args:
        logits: (batch, block, vocabulary), float32.
        active: (batch,), bool, examples that have something to commit.

    Returns:
        tokens (batch, block), int64, and confidence (batch, block): the token's float64 probability without noise, or
        uniform draws for "random".
    """
    noisy = logits
    if temperature > 0:
        uniform = noise.uniform(*logits.shape[1:], dtype=torch.float64, active=active)
        noisy = logits.double() - temperature * (-uniform.log()).log()
    tokens = noisy.argmax(-1)
    if remasking == "random":
        return tokens, noise.uniform(logits.shape[1], dtype=torch.float32, active=active)
    exact = logits.double()
    return tokens, (exact.gather(-1, tokens[..., None])[..., 0] - exact.logsumexp(-1)).exp()


def assemble_sequences(
    input_ids: torch.Tensor, canvas: Canvas, suffix_ids: torch.Tensor, pad_token_id: int | None
) -> torch.Tensor:
    """(batch, rows): each prompt, its answer up to the stop, and the suffix, padded on the right."""
    rows = [
        torch.cat([prompt, answer[:stop], suffix_ids])
        for prompt, answer, stop in zip(input_ids, canvas.ids, canvas.stop.tolist(), strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float(pad_token_id or 0))


def as_suffix(suffix: Any, tokenizer: Any, device: torch.device) -> torch.Tensor:
    """(suffix,), int64, from text or ids; empty without one."""
    if isinstance(suffix, str):
        if tokenizer is None:
            raise ValueError("A `suffix` given as text needs `tokenizer=`.")
        suffix = tokenizer(suffix, add_special_tokens=False).input_ids
    if isinstance(suffix, (list, tuple)) and any(isinstance(item, str) for item in suffix):
        raise ValueError(f"`suffix` is one text for the whole batch, got a list of {len(suffix)}.")
    ids = torch.as_tensor([] if suffix is None else suffix, dtype=torch.long, device=device)
    if ids.dim() != 1:
        raise ValueError(f"`suffix` is one row of ids for the whole batch, got the shape {tuple(ids.shape)}.")
    return ids


def check_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    """Raises a ValueError for the first id outside the vocabulary."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"`{name}` holds the id {token}, outside the vocabulary of {vocab_size} tokens.")


def split_criteria(
    criteria: StoppingCriteriaList | Sequence[Any] | None,
) -> tuple[StoppingCriteriaList, list[str]]:
    """Callable criteria, and strings (the official code passes its stop strings under this name)."""
    given = list(criteria) if isinstance(criteria, (list, tuple)) else [] if criteria is None else [criteria]
    strings = [criterion for criterion in given if isinstance(criterion, str)]
    return StoppingCriteriaList(c for c in given if not isinstance(c, str)), strings


def rename_aliases(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Official argument names -> ours. `modalities` goes: what the inputs are shows in the inputs.

    Raises:
        ValueError: two names of one argument with different values.
    """
    renamed: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name == "modalities":
            continue
        ours = ALIASES.get(name, name)
        if ours in renamed and renamed[ours] is not value and renamed[ours] != value:
            raise ValueError(
                f"`{ours}` is given twice with different values: {renamed[ours]!r} and {value!r} (as `{name}`)."
            )
        renamed[ours] = value
    return renamed


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises a ValueError for the first unknown name, with the nearest known one."""
    for name in names:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known are {', '.join(known)}."
        raise ValueError(f"Unknown generation argument `{name}`. {hint}")


__all__ = ["StepOutput", "VidLaDAGenerationConfig", "VidLaDAGenerationMixin", "VidLaDAGenerationOutput"]
