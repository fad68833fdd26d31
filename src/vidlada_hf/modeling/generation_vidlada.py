"""The denoising loop: a canvas of masks behind the prompt becomes the answer, several tokens a step, block by block.

There is one loop, `VidLaDAGenerationMixin.generate`. What a step recomputes is decided by a `DenoisingCache`, what it
commits by an `UnmaskingStrategy`. Where nothing else is said, the rules are those of the official code.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from transformers.generation import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from .arguments_vidlada import check_ids, check_positions, prepare_prompts, refuse_unknown
from .cache_strategies_vidlada import refuse_unserved, resolve_cache_strategy
from .cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout, cache_session, count_positions
from .canvas_vidlada import Canvas, RandomSource, assemble_sequences, prepare_suffix, sample_tokens
from .cuda_graphs_vidlada import StepGraphs, step_graphs
from .denoising_run_vidlada import DenoisingRun, GenerationRequest, Prompt, refuse_broken
from .devices_vidlada import execution_device
from .generation_config_vidlada import ALIASES, VidLaDAGenerationConfig, rename_aliases
from .labeled_prompts_vidlada import cut_before_labels
from .layer_functions_vidlada import compiled_layers, pack_weights
from .observers_vidlada import GenerationObservers, StepOutput
from .padded_visual_vidlada import flatten_visual
from .stock_arguments_vidlada import drop_neutral, settle_sampling
from .stopping_vidlada import StopRules, split_criteria
from .unmasking_vidlada import UnmaskingStrategy, is_own, resolve_unmasking
from .video_cache_vidlada import VideoCache, choose_shared


@dataclass
class VidLaDAGenerationOutput(ModelOutput):
    """What `generate(..., return_dict_in_generate=True)` returns.

    Args:
        sequences (`torch.LongTensor` of shape `(batch, tokens)`): prompt, answer up to its stop, suffix; shorter
            sequences are padded on the right.
        tokens_per_forward (`torch.FloatTensor` of shape `(batch,)`): tokens committed a forward pass, counting the
            passes in which the example had something to commit; not those taken back, or committed behind an end
            that was there before.
        trace: one `StepOutput` a forward pass, on the CPU.
    """

    sequences: torch.Tensor | None = None
    tokens_per_forward: torch.Tensor | None = None
    trace: list[StepOutput] | None = None


class VidLaDAGenerationMixin:
    """`generate` for a masked diffusion language model."""

    generation_config_class = VidLaDAGenerationConfig
    generation_config: VidLaDAGenerationConfig
    config: Any
    model: Any
    lm_head: Any
    forward: Any

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        num_frames_per_video: torch.Tensor | None = None,
        video_features: BaseModelOutputWithPooling | Sequence[torch.Tensor] | torch.Tensor | None = None,
        vision_batch_size: int | None = 16,
        video_cache: VideoCache | None = None,
        share_video: bool = False,
        generation_config: VidLaDAGenerationConfig | None = None,
        cache_strategy: str | DenoisingCache | None = None,
        unmasking: str | UnmaskingStrategy | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | Sequence[str] | None = None,
        streamer: BaseStreamer | None = None,
        step_callback: Callable[[StepOutput], None] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        tokenizer: Any = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | VidLaDAGenerationOutput:
        """Answers the prompts by denoising a canvas of masks behind each.

        1. Preparation
            a. Check all arguments.
            b. Lay out prompt, canvas and suffix, and let the cache strategy check the layout.
            c. Encode the video and merge it into the prompt's embeddings, once.
        2. For each block of the canvas, for each of its steps, until nothing is left to commit before a stop:
            a. Logits of the block, in one go, which may be captured (`cuda_graphs`): embed the canvas as it stands, let
               the cache strategy compute the hidden states of the block, apply the head, guidance, suppressed tokens.
            b. Logits processors.
            c. Choose a token and a confidence for each position.
            d. Let the unmasking strategy commit some of them, and take some back that it doubts.
            e. Ask the stopping criteria; look for stops; inform the streamer and the callback.
        3. Cut each answer at its stop, append the suffix, pad on the right.

        Args:
            input_ids: (batch, tokens), prompts as the processor returns them, on any device. Padded prompts need the
                `attention_mask`; each example's result is the one it has alone.
            attention_mask: (batch, tokens), 0 where padded.
            pixel_values, pixel_values_videos, num_frames_per_video, video_features, vision_batch_size: as in `forward`.
            video_cache: of `encode_video`, for prompts that begin with its video: only what stands behind is computed.
                The video then does not see the question, which changes some answers. Pixels are only compared.
            share_video: make one here of the video that all prompts begin with. Pixels are those of all prompts, or of
                the first alone.
            generation_config: replaces the model's; fields of it can also be given as arguments, which win.
            cache_strategy, unmasking: a name or an object. A stored `cache_config` belongs to the stored name, and is
                left aside where another strategy is asked for.
            logits_processor: called with ids (batch x block, tokens) and scores (batch x block, vocabulary), one row
                for each position of the block.
            stopping_criteria: called after each step with the sequences as they stand; examples for which they return
                True are left as they are. A list of strings is taken as the official code takes it: each is
                tokenized, and the answer ends before the first place where these tokens stand.
            streamer: gets `put(prompt)`, after each step `put_draft(value=canvas from this block on)` if it has that
                method, after each block `put(block)`, then `end()`.
            step_callback: called after each step with a `StepOutput`.
            generator: of random draws; or one for each example, so that a batch draws what each example draws alone.
            tokenizer: needed for `stop_strings`, a `suffix` given as text and strings in `stopping_criteria`.
            labels: (batch, tokens), of a training batch: each prompt is cut before its first label, so that the answer
                is not in it, and the answers alone are returned (`Seq2SeqTrainer` compares them with the labels).
            kwargs: fields of `VidLaDAGenerationConfig`; `canvas`, (canvas,) or (batch, canvas) ids with `mask_token_id`
                where a token is wanted and given tokens elsewhere (infilling); `suffix`, text or ids that stand behind
                the canvas; and the official names `gen_length`, `steps`, `gen_steps`, `cfg`, `generation_suffix`,
                `generation_context_ids`.

        Returns:
            (batch, tokens), int64: prompt (not with `labels`), answer, suffix, right padding; or a
            `VidLaDAGenerationOutput`.

        Raises:
            ValueError: an impossible or unknown argument, before any work is done.
        """
        # 1.a Check all arguments.
        refuse_learned_prompts(self)
        if labels is not None:
            placeholders = [self.config.video_token_id, self.config.image_token_id]
            input_ids, attention_mask = cut_before_labels(input_ids, attention_mask, labels, placeholders)
        criteria, official_stops = split_criteria(stopping_criteria)
        visual = {
            "pixel_values": pixel_values,
            "pixel_values_videos": pixel_values_videos,
            "num_frames_per_video": num_frames_per_video,
            "video_features": video_features,
        }
        request = self._check_request(
            input_ids,
            attention_mask,
            choose_shared(video_cache, share_video),
            generation_config,
            cache_strategy,
            unmasking,
            generator,
            tokenizer,
            kwargs,
        )
        stops = StopRules.build(request.settings, official_stops, tokenizer)
        observers = GenerationObservers(streamer, step_callback, request.settings.return_dict_in_generate)
        # 1.b, 1.c
        visual = flatten_visual(visual, request.input_ids, self.config)
        started = self._denoising(request, visual, vision_batch_size, may_stop=bool(stops or criteria))
        with closing(observers), started as (run, graphs):
            stops.update(run.canvas)
            observers.on_start(request.input_ids)
            # 2. For each block of the canvas, for each of its steps.
            for number, block in enumerate(request.settings.blocks()):
                for targets in run.steps_of_block(number, block):
                    # 2.a Logits of the block.
                    logits = self._block_logits(run, targets.step, graphs)
                    if logits_processor or not is_own(request.unmasking):
                        logits = logits.clone()  # a graph overwrites them, and these may keep them
                    # 2.b Logits processors.
                    logits, *shadow = (
                        self._process_logits(part, run, logits_processor)
                        for part in logits.split(targets.eligible.shape[1], dim=1)
                    )
                    # 2.c Choose a token and a confidence for each position.
                    active = targets.active_examples
                    tokens, confidence = sample_tokens(logits, request.settings, request.random_source, active)
                    # 2.d Commit some of them, and take some back.
                    committed, taken_back = run.commit(targets, tokens, confidence, logits, *shadow)
                    # 2.e Ask the stopping criteria; look for stops; inform the observers.
                    if criteria:
                        run.canvas.halt(criteria(run.sequences, None))
                    stops.update(run.canvas)
                    if observers.are_watching:
                        confidence = confidence.masked_fill(~targets.eligible, -torch.inf)
                        ids, count = run.canvas.ids.clone(), run.canvas.num_tokens()
                        output = StepOutput(targets.step, tokens, confidence, committed, ids, taken_back, count)
                        observers.on_step_end(output, block.columns, run.canvas)
                observers.on_block_end(block.columns, run.canvas)

        # 3. Cut each answer at its stop, append the suffix, pad on the right.
        refuse_broken(run.canvas.broken)
        sequences = assemble_sequences(run.sequences, run.answer, run.canvas.stop, request.settings.pad_token_id)
        if labels is not None:
            sequences = sequences[:, request.input_ids.shape[1] :]
        if not request.settings.return_dict_in_generate:
            return sequences
        return VidLaDAGenerationOutput(sequences, run.canvas.tokens_per_forward(), observers.trace)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """What a step of autoregressive decoding would take. `peft` looks for this; the denoising loop needs none."""
        return {"input_ids": input_ids, **kwargs}

    @contextmanager
    def _denoising(
        self, request: GenerationRequest, visual: dict[str, Any], vision_batch_size: int | None, may_stop: bool
    ) -> Iterator[tuple[DenoisingRun, StepGraphs | None]]:
        """A denoising before its first step, and the graphs of its steps; what it holds is freed behind.

        Args:
            visual: the visual arguments of `generate`.
            may_stop: see `DenoisingRun`.
        """
        shared = request.prompt.shared
        # 1.b Lay out prompt, canvas and suffix, and let the cache strategy check the layout.
        layout = self._prepare_layout(request, None if shared is not None else visual.get("num_frames_per_video"))
        request.cache.check(self.config.get_text_config(), layout)
        if shared is not None:
            video_cache = shared.ready(self.model, visual, len(request.input_ids), vision_batch_size)
            layout, visual = replace(layout, shared=video_cache), {}
        with cache_session(request.cache, layout), self._ways_to_run(request) as graphs:
            # 1.c Encode the video and merge it into the prompt's embeddings, once.
            prompt = self.model.merge_features(request.prompt.ids, **visual, vision_batch_size=vision_batch_size)
            yield self._start_run(request, layout, prompt, may_stop), graphs

    def _check_request(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        video_cache: VideoCache | Literal[True] | None,
        generation_config: GenerationConfig | None,
        cache_strategy: str | DenoisingCache | None,
        unmasking: str | UnmaskingStrategy | None,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        tokenizer: Any,
        kwargs: dict[str, Any],
    ) -> GenerationRequest:
        """The arguments of `generate` that need no network to be judged; raises a ValueError for the first bad one.

        Args:
            video_cache: True: what the prompts begin with is still to be computed.
        """
        device = execution_device(self.model.get_input_embeddings())
        input_ids, attention_mask = prepare_prompts(input_ids, attention_mask, device)
        kwargs = rename_aliases(kwargs)
        canvas_ids, suffix = kwargs.pop("canvas", None), kwargs.pop("suffix", None)
        if canvas_ids is not None:
            kwargs.setdefault("max_new_tokens", torch.as_tensor(canvas_ids).shape[-1])
        if not isinstance(cache_strategy, str | None) and kwargs.get("cache_config") is not None:
            raise ValueError("`cache_config` belongs to a strategy's name: give the settings to your object itself.")
        # An object replaces the stored name, which then need not fit the rest.
        for name, given, plain in (("cache_strategy", cache_strategy, "none"), ("unmasking", unmasking, "quota")):
            if given is not None:
                kwargs[name] = given if isinstance(given, str) else plain
        settings, unknown = self._prepare_generation_config(generation_config, **kwargs)
        known = [*settings.FIELDS, *ALIASES, "canvas", "suffix", *inspect.signature(self.generate).parameters]
        of_forward = inspect.signature(self.forward).parameters
        said = [name for name, value in unknown.items() if value is not None or name not in of_forward]
        # Types of tokens, which processors may return, say nothing that the ids do not.
        refuse_unknown([name for name in said if not name.endswith("token_type_ids")], known, "generation argument")
        suffix_ids = prepare_suffix(suffix, tokenizer, device)
        text_config = self.config.get_text_config()
        check_positions(attention_mask, settings.max_new_tokens + len(suffix_ids), text_config.max_position_embeddings)
        settings.blocks()  # refuses a division that is not exact
        rule = resolve_unmasking(settings.unmasking if unmasking is None else unmasking, settings)
        cache = resolve_cache_strategy(
            settings.cache_strategy if cache_strategy is None else cache_strategy, settings.cache_config
        )
        refuse_unserved(cache, rule)
        if settings.remasking == "random" and getattr(rule, "needs_probabilities", False):
            raise ValueError(
                f"{type(rule).__name__} compares probabilities, and `remasking='random'` draws what it compares: take "
                "`unmasking='quota'`, or `remasking='low_confidence'`."
            )
        return GenerationRequest(
            input_ids=input_ids,
            settings=settings,
            cache=cache,
            unmasking=rule.start(),
            canvas=self._prepare_canvas(canvas_ids, settings, input_ids),
            suffix_ids=suffix_ids,
            random_source=RandomSource(settings.seed, generator, len(input_ids), device),
            prompt=Prompt.of(self.config, input_ids, attention_mask, video_cache, settings.cfg_scale),
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
        for name, value in drop_neutral(kwargs, settings.FIELDS).items():
            if name not in settings.FIELDS:
                unused[name] = value
            elif value is not None or settings.FIELDS[name] is None:  # None is what stock callers leave unsaid
                setattr(settings, name, value)
        settle_sampling(settings, kwargs)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(settings, name) is None:
                setattr(settings, name, getattr(self.config.get_text_config(), name))
        if settings.suppress_tokens is None:
            settings.suppress_tokens = self.config.suppress_tokens
        check_ids("suppress_tokens", settings.suppress_tokens, self.config.get_text_config().vocab_size)
        settings.validate()
        return settings, unused

    def _prepare_canvas(self, ids: Any, settings: VidLaDAGenerationConfig, input_ids: torch.Tensor) -> Canvas:
        """A canvas of masks behind each prompt, or the given one."""
        length, batch, device = settings.max_new_tokens, len(input_ids), input_ids.device
        if ids is None:
            ids = torch.full((batch, length), self.config.mask_token_id, device=device)
        else:
            shape = tuple(torch.as_tensor(ids).shape)
            if shape not in ((length,), (batch, length)):
                raise ValueError(
                    f"`canvas` must have the shape ({length},) or ({batch}, {length}), as `max_new_tokens` and the "
                    f"batch say, got {shape}."
                )
            ids = torch.as_tensor(ids, device=device).long().expand(batch, -1).clone()
            check_ids("canvas", ids.flatten().tolist(), self.config.get_text_config().vocab_size)
        mask_token_id, stop = self.config.mask_token_id, torch.full((batch,), length, device=device)
        return Canvas(ids, ids == mask_token_id, stop, mask_token_id)

    def _prepare_layout(self, request: GenerationRequest, num_frames_per_video: torch.Tensor | None) -> SequenceLayout:
        """Where prompt, canvas and suffix stand, for each branch of guidance."""
        prompt = request.prompt
        (batch, prompt_length), canvas_length = prompt.ids.shape, request.canvas.ids.shape[1]
        behind = (batch, canvas_length + len(request.suffix_ids))
        attended = torch.cat([prompt.attention_mask, prompt.attention_mask.new_ones(behind)], dim=1)
        frame_index = self.model.frame_index(prompt.ids, num_frames_per_video)
        return SequenceLayout(
            position_ids=count_positions(attended) + prompt.begin,
            attention_mask=None if bool(attended.all()) else attended.bool(),
            frame_index=torch.cat([frame_index, frame_index.new_full(behind, -1)], dim=1),
            canvas=slice(prompt_length, prompt_length + canvas_length),
            shared=prompt.shared,
        ).repeat(request.branches)

    def _start_run(
        self, request: GenerationRequest, layout: SequenceLayout, prompt: torch.Tensor, may_stop: bool
    ) -> DenoisingRun:
        """Embeds and joins prompt, canvas and suffix. The unconditional branch has masks for its whole prompt.

        Args:
            prompt: (batch, tokens, hidden), embeddings with the visual features merged in.
            may_stop: see `DenoisingRun`.
        """
        embed, batch = self.model.get_input_embeddings(), len(prompt)
        suffix_ids = request.suffix_ids.expand(batch, -1)
        embeddings = torch.cat([prompt, embed(request.canvas.ids), embed(suffix_ids)], dim=1)
        if request.branches == 2:
            unconditional = embeddings.clone()
            unconditional[:, : prompt.shape[1]] = embed(suffix_ids.new_tensor(self.config.mask_token_id))
            embeddings = torch.cat([embeddings, unconditional])
        sequences = torch.cat([request.input_ids, request.canvas.ids, suffix_ids], dim=1)
        return DenoisingRun(request, layout, embeddings, sequences, may_stop)

    @contextmanager
    def _ways_to_run(self, request: GenerationRequest) -> Iterator[StepGraphs | None]:
        """Meanwhile layers run as the settings say; yields the graphs of the steps, None where none are captured."""
        settings, device = request.settings, request.input_ids.device
        pack_weights(self.model.language_model)
        with (
            compiled_layers(settings.compile),
            step_graphs(self, request.cache, device, settings.cuda_graphs) as graphs,
        ):
            yield graphs

    def _block_logits(self, run: DenoisingRun, step: DenoisingStep, graphs: StepGraphs | None) -> torch.Tensor:
        """(batch, block, vocabulary), float32, of the canvas as it stands; behind them those of the block's shadow, if
        the step wants it. Of a captured step, until the next."""
        cache: Any = run.request.cache
        text_model = self.model.language_model

        def logits_of(plan: Any) -> torch.Tensor:
            return self._apply_head(cache.run(text_model, self._embed(run, step), plan), run)

        if graphs is not None:
            return graphs.run(cache.plan(step), logits_of)
        return self._apply_head(cache.denoise(text_model, self._embed(run, step), step), run)

    def _embed(self, run: DenoisingRun, step: DenoisingStep) -> torch.Tensor:
        """(branches x batch, tokens, hidden), the canvas as it stands in it, and behind it the masks of a shadow."""
        embed, canvas = self.model.get_input_embeddings(), run.canvas
        run.embeddings[:, run.layout.canvas] = embed(canvas.ids).repeat(run.request.branches, 1, 1)
        if not step.shadow:
            return run.embeddings
        masks = canvas.ids.new_full((len(run.embeddings), step.span.stop - step.span.start), canvas.mask_token_id)
        return torch.cat([run.embeddings, embed(masks)], dim=1)

    def _apply_head(self, hidden_states: torch.Tensor, run: DenoisingRun) -> torch.Tensor:
        """(branches x batch, block, hidden) -> (batch, block, vocabulary), float32, guided, with suppressed tokens."""
        scale = run.request.settings.cfg_scale
        logits = self.lm_head(hidden_states).float().to(run.sequences.device)  # a model on several devices
        if scale > 0:
            conditional, unconditional = logits.chunk(2)
            logits = unconditional + (scale + 1) * (conditional - unconditional)
        return logits.index_fill_(-1, run.suppressed_tokens, -torch.inf)

    def _process_logits(
        self, logits: torch.Tensor, run: DenoisingRun, processors: LogitsProcessorList | None
    ) -> torch.Tensor:
        """(batch, block, vocabulary) -> the same shape, by logits processors."""
        if not processors:
            return logits
        block = logits.shape[1]
        # Placeholders may lie outside the vocabulary, where processors that look ids up would fail.
        padding = run.request.settings.pad_token_id or 0
        known = run.sequences.masked_fill(run.sequences >= logits.shape[-1], padding)
        scores = LogitsProcessorList(processors)(known.repeat_interleave(block, dim=0), logits.flatten(0, 1))
        return scores.view_as(logits)

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


def refuse_learned_prompts(model: Any) -> None:
    """Raises a ValueError where `peft` would put learned tokens before a prompt, which it does step by step."""
    if getattr(model.prepare_inputs_for_generation, "__self__", model) is not model:
        raise ValueError(
            "`generate` does not take prompts that `peft` has learned (prompt tuning, prefix tuning, P-tuning), and "
            "would answer without them: adapt the layers instead, with `LoraConfig`."
        )


__all__ = ["VidLaDAGenerationMixin", "VidLaDAGenerationOutput"]
