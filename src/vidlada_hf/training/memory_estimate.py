"""What a recipe will need, before any weights are loaded: `vidlada train RECIPE --dry-run`.

The model is built on torch's meta device, where tensors have shapes and no memory. The estimate for one process, in
bytes, with P parameters of s bytes each, T of them trained, c bytes a number in the forward pass (2 with `bf16` or
`fp16`, else s), R tokens in a batch, d and f the text model's hidden and MLP width, L its layers, V the vocabulary:

- weights: P s; gradients: T s; optimizer: 2 T s for AdamW, s for each parameter of Muon; all three are divided by the
  number of processes where they are sharded (FSDP, ZeRO-3); where several processes hold them whole, the gradients once
  more, which DistributedDataParallel exchanges in buckets;
- casts: P c where c < s, the copies that autocast keeps;
- activations of the text model: L R (10 d + 4 f) c, what its layers save for the backward pass: two normed inputs and
  the residuals between (4 d), query, key and value before and after rotation (5 d), attention's output (d); gate, up,
  the activated gate and their product (4 f). With gradient checkpointing L R d c + R (10 d + 4 f) c: the input of each
  layer, and one layer at a time;
- of the tower, with the same letters for its own sizes and R patches: L R (10 d + 2 f) c if it is trained (with
  checkpointing as above), else those of one layer for the 16 frames that it encodes at a time;
- of the head: M V (c + 8) for M labeled tokens: logits, their float32 copy and its gradient.

What is left out: the framework itself (some GB on a GPU), fragments, the attention kernel's work space.
"""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from .conversation_task import ConversationTask
from .lora import LoraOptions, add_adapter
from .model_loading import find_builder
from .optimizer import OptimizerOptions, build_optimizer, part_of
from .recipe import Recipe, Stage
from .task import find_task

GIB = 1 << 30
FRAMES_AT_A_TIME = 16  # `vision_batch_size` of the model's forward


@dataclass(frozen=True)
class BatchSize:
    """A process's micro-batch: examples, tokens of the text model, frames, labeled tokens."""

    examples: int
    tokens: int
    frames: int
    labels: int


@dataclass
class StagePlan:
    """What one stage needs.

    Args:
        name: of the stage.
        parts: parameters and trained ones, by part of the model.
        batch: a process's micro-batch; None where the task does not say.
        accumulation: micro-batches of a step.
        is_bound: whether `batch` is the largest allowed, not one that was measured.
        memory: bytes of one process, by purpose; `state` names those that sharding divides.
    """

    name: str
    parts: dict[str, tuple[int, int]]
    batch: BatchSize | None = None
    accumulation: int = 1
    is_bound: bool = False
    memory: dict[str, int] = field(default_factory=dict)

    state = ("weights", "gradients", "optimizer")

    def total(self, processes: int = 1, is_sharded: bool = False) -> int:
        """Bytes of one of so many processes."""
        shards = processes if is_sharded else 1
        buckets = self.memory.get("gradients", 0) if processes > 1 and not is_sharded else 0
        return buckets + sum(size // (shards if what in self.state else 1) for what, size in self.memory.items())


def plan(recipe: Recipe, processes: int = 1) -> list[StagePlan]:
    """The needs of every stage, where so many processes share each batch.

    Raises:
        ValueError, OSError: as for training, for a recipe that cannot run.
    """
    return [plan_stage(stage, recipe, processes) for stage in recipe.stages]


def plan_stage(stage: Stage, recipe: Recipe, processes: int = 1) -> StagePlan:
    """What one stage will need, found with weights that take no memory."""
    kind = find_task(stage.task)
    kind.check_keys(stage.options)  # the data may be elsewhere
    model, processor = build_skeleton(recipe.model, recipe.dtype)
    trained: Any = add_adapter(model, LoraOptions(**stage.lora)) if stage.lora else model
    # Other tasks may compute with the weights that are not here; their heads are small.
    task = kind(trained, processor, seed=recipe.seed, **stage.options) if issubclass(kind, ConversationTask) else None
    whole = nn.ModuleDict({"model": trained}) if task is None else task
    optimizer = build_optimizer(whole, OptimizerOptions(**stage.rates))
    planned = StagePlan(stage.name, count_parts(whole), memory=state_memory(whole, optimizer))
    if task is not None:
        arguments = stage.shared_arguments(processes)
        size = arguments.get("per_device_train_batch_size", TrainingArguments.per_device_train_batch_size)
        planned.accumulation = arguments.get("gradient_accumulation_steps", 1)
        planned.batch, planned.is_bound = size_of_batch(task, size)
        planned.memory |= activation_memory(model, whole, planned.batch, arguments)
    return planned


def build_skeleton(start: str, dtype: str = "auto") -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """The model on the meta device, in the type that it will be trained in, and its processor."""
    build = find_builder(start)
    if build is not None:
        with torch.device("meta"):
            return build(0)
    config = VidLaDAConfig.from_pretrained(start)
    kind = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)
    with torch.device("meta"):
        model = VidLaDAForConditionalGeneration(config)
    return model.to(kind), VidLaDAProcessor.from_pretrained(start)


def count_parts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameters, and how many of them are trained, by part."""
    parts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        part = "adapter" if ".lora_" in name else part_of(name)
        everything, trained = parts.get(part, (0, 0))
        count = parameter.numel()
        parts[part] = everything + count, trained + count * parameter.requires_grad
    return parts


def state_memory(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer state."""

    def size(parameters: Any) -> int:
        return sum(p.numel() * p.element_size() for p in parameters)

    return {
        "weights": size(model.parameters()),
        "gradients": size(p for p in model.parameters() if p.requires_grad),
        "optimizer": sum(size(g["params"]) * (1 if g["muon"] else 2) for g in optimizer.param_groups),
    }


def size_of_batch(task: ConversationTask, examples: int) -> tuple[BatchSize, bool]:
    """A micro-batch: the largest allowed where the recipe names a `max_length`, else the first of the data.

    Returns:
        The size, and whether it is the largest allowed.
    """
    model: Any = task.model
    per_frame = (model.get_base_model() if hasattr(model, "peft_config") else model).model.tokens_per_frame
    if task.has_max_length:
        tokens, videos = task.collator.options.max_length or 0, task.processor.video_processor
        frames = min(videos.num_frames or videos.max_frames or sys.maxsize, tokens // per_frame)
        return BatchSize(examples, examples * tokens, examples * frames, examples * (tokens - frames * per_frame)), True
    data: Any = task.dataset()
    batch = task.collate([data[i % len(data)] for i in range(examples)])
    frames = int(batch["num_frames_per_video"].sum()) if "num_frames_per_video" in batch else 0
    return BatchSize(examples, batch["input_ids"].numel(), frames, int((batch["labels"] >= 0).sum())), False


def activation_memory(
    model: VidLaDAForConditionalGeneration, trained: nn.Module, batch: BatchSize, arguments: dict[str, Any]
) -> dict[str, int]:
    """Bytes of what the forward pass makes, by the formulas above."""
    text, vision = model.config.text_config, model.config.vision_config
    stored = model.lm_head.weight.element_size()
    size = min(stored, 2) if arguments.get("bf16") or arguments.get("fp16") else stored
    checkpointing = arguments.get("gradient_checkpointing") or arguments.get("activation_checkpointing")

    def layers(count: int, tokens: int, width: int, hidden: int) -> int:
        one = tokens * (10 * hidden + width) * size
        return count * tokens * hidden * size + one if checkpointing else count * one

    patches = (vision.image_size // vision.patch_size) ** 2
    is_trained = any(p.requires_grad for name, p in trained.named_parameters() if part_of(name) == "tower")
    frames, depth = (batch.frames, vision.num_hidden_layers) if is_trained else (min(batch.frames, FRAMES_AT_A_TIME), 1)
    return {
        "casts": sum(p.numel() for p in trained.parameters()) * size if size < stored else 0,
        "text activations": layers(text.num_hidden_layers, batch.tokens, 4 * text.intermediate_size, text.hidden_size),
        "tower activations": layers(depth, frames * patches, 2 * vision.intermediate_size, vision.hidden_size),
        "logits": batch.labels * text.vocab_size * (size + 8),
    }


def device_memory() -> int:
    """Bytes of the device that training would run on: the first GPU's, else the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe(plans: list[StagePlan], processes: int = 1, available: int | None = None) -> str:
    """The plans as text.

    Args:
        processes: that share each batch.
        available: bytes of a device; None: of this machine's.
    """
    available = device_memory() if available is None else available
    lines = []
    for one in plans:
        total, trained = (sum(counts) for counts in zip(*one.parts.values(), strict=True))
        lines.append(f"{one.name}: {total:,} parameters, {trained:,} trained")
        lines += [f"  {part:<18} {count:>15,} {learned:>15,} trained" for part, (count, learned) in one.parts.items()]
        if one.batch is not None:
            bound = "at most " if one.is_bound else ""
            lines.append(
                f"  a process's batch: {one.batch.examples} examples, {bound}{one.batch.tokens:,} tokens "
                f"({one.batch.labels:,} labeled), {one.batch.frames} frames; a step of all processes: "
                f"{processes * one.accumulation * one.batch.tokens:,} tokens"
            )
        lines += [f"  {what:<18} {size / GIB:>15.2f} GiB" for what, size in one.memory.items()]
        for is_sharded in sorted({False, processes > 1}):
            needed = one.total(processes, is_sharded)
            fits = "fits into" if needed <= available else "does NOT fit into"
            how = f"sharded over {processes} processes" if is_sharded else "each process"
            lines.append(f"  {how}: {needed / GIB:.2f} GiB, {fits} {available / GIB:.1f} GiB")
        if one.batch is None:
            lines.append("  (without activations and heads: this task does not tell its batches before it runs)")
    return "\n".join(lines)


__all__ = ["StagePlan", "describe", "plan"]
