"""The model that all twins start from, and how each of them answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.cache_vidlada import NoCache, SequenceLayout, SpanPlan
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor

from ..train.tiny_model import build_tiny

# Of the first weights of the embedded checkpoint. Its tower was taught to write in these embeddings of the words.
TOWER_SEED = 1
SHARED_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    *("attention_bias", "mlp_bias", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)


def build_twin(seed: int = 0) -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """The tower and projector of the embedded checkpoint before a text model that has not learned anything.

    Args:
        seed: of the text model's layers.
    """
    model, processor = build_tiny(seed)
    words = build_tiny(TOWER_SEED)[0]
    trained = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT, dtype=torch.float32)
    for name in ("vision_tower", "multi_modal_projector", "image_newline"):
        getattr(model.model, name).load_state_dict(getattr(trained.model, name).state_dict())
    model.get_input_embeddings().load_state_dict(words.get_input_embeddings().state_dict())
    model.lm_head.load_state_dict(words.lm_head.state_dict())
    return model, processor


def load_step(checkpoint: Path) -> VidLaDAForConditionalGeneration:
    """A twin as it was at a checkpoint of its training.

    Args:
        checkpoint: a folder `checkpoint-N`, which holds what was trained, the text model and the heads.

    Raises:
        ValueError: it lacks weights of the text model.
    """
    model = build_twin()[0].eval()
    stored = load_file(checkpoint / "model.safetensors")
    weights = {name.removeprefix("model."): w for name, w in stored.items() if name.startswith("model.")}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    if learned := [name for name in missing if name.startswith(("model.language_model.", "lm_head."))]:
        raise ValueError(f"{checkpoint} lacks {len(learned)} tensors of the text model, {learned[0]} first.")
    return model


class CausalRecompute(NoCache):
    """Recomputes every token at every step, each of which attends to none behind it: decoding of the causal twin."""

    def check(self, text_config: Any, layout: SequenceLayout) -> None:
        """Raises a ValueError for a video that prompts share."""
        if layout.shared is not None:
            raise ValueError("The causal twin recomputes its whole prompt: leave `share_video` and `video_cache` out.")

    def run(self, text_model: Any, inputs_embeds: torch.Tensor, plan: SpanPlan) -> torch.Tensor:
        """As `NoCache.run`, with a causal mask."""
        assert self.layout is not None
        length, device = inputs_embeds.shape[1], inputs_embeds.device
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
        if self.layout.attention_mask is not None:
            itself = torch.eye(length, dtype=torch.bool, device=device)  # padding has to attend to something
            mask = mask & (self.layout.attention_mask[:, None, None] | itself)
        chosen = slice(None) if plan.examples is None else plan.examples
        outputs = text_model(
            inputs_embeds=inputs_embeds[chosen],
            attention_mask=mask.expand(len(inputs_embeds), -1, -1, -1)[chosen],
            position_ids=self.layout.position_ids[chosen],
        )
        return plan.spread(outputs.last_hidden_state.index_select(1, plan.block))


def as_llama(model: VidLaDAForConditionalGeneration) -> LlamaForCausalLM:
    """transformers' causal Llama with a twin's text weights, which have the same names and shapes."""
    text = model.config.text_config.to_dict()
    llama = LlamaForCausalLM(LlamaConfig(**{name: text[name] for name in SHARED_FIELDS}))
    weights = {f"model.{name}": w for name, w in model.model.language_model.state_dict().items()}
    llama.load_state_dict(weights | {"lm_head.weight": model.lm_head.weight})
    llama.generation_config.update(suppress_tokens=list(model.config.suppress_tokens), do_sample=False)
    return llama.to(model.device, model.dtype).eval()


@dataclass(frozen=True)
class AutoregressiveAnswers:
    """Answers of the autoregressive twin by transformers' own `generate` with its key-value cache.

    It is called as a VidLaDA model is, so that the same evaluation asks it.

    Args:
        model: the twin, whose tower encodes the videos.
        llama: of `as_llama`.
    """

    model: VidLaDAForConditionalGeneration
    llama: LlamaForCausalLM

    @classmethod
    def of(cls, model: VidLaDAForConditionalGeneration) -> "AutoregressiveAnswers":
        return cls(model, as_llama(model))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        max_new_tokens: int = 64,
        share_video: bool = False,
        **visual: Any,
    ) -> torch.Tensor:
        """Greedy answers behind the prompts: (batch, tokens), int64, padded on the right.

        Args:
            input_ids, attention_mask: (batch, tokens).
            visual: of `VidLaDAModel.encode_visual`.

        Raises:
            ValueError: `share_video`, which only `generate` of VidLaDA does.
        """
        if share_video:
            raise ValueError("The autoregressive twin does not share videos: leave `share_video` out.")
        prompts = self.model.model.merge_features(input_ids, **visual)
        answers = self.llama.generate(
            inputs_embeds=prompts, attention_mask=attention_mask, max_new_tokens=max_new_tokens
        )
        return torch.cat([input_ids, answers], 1)


__all__ = ["AutoregressiveAnswers", "CausalRecompute", "as_llama", "build_twin", "load_step"]
