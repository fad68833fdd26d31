"""A VidLaDA of a few thousand random weights, and inputs for it."""

import torch

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

MASK, PAD, EOT, IMAGE, VIDEO = 1, 0, 2, 60, 61


def tiny_config(**fields) -> VidLaDAConfig:
    """A 4-layer model of width 32 over 64 tokens; 56 px frames of 4 x 4 patches, pooled to 2 x 2."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    text |= fields.pop("text_config", {})
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "mask_token_id": MASK, "suppress_tokens": [PAD]}
    return VidLaDAConfig(text_config=text, vision_config=vision, **(ids | fields))


def tiny_model(seed: int = 0, **fields) -> VidLaDAForConditionalGeneration:
    """The model with weights large enough that its answers depend on everything it sees."""
    torch.manual_seed(seed)
    model = VidLaDAForConditionalGeneration(tiny_config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.get_input_embeddings().weight.normal_()
        for layer in model.model.language_model.layers:  # sharp attention, which outweighs the masks' own embedding
            for name, scale in (("q_proj", 3), ("k_proj", 3), ("v_proj", 2), ("o_proj", 2)):
                getattr(layer.self_attn, name).weight.mul_(scale)
        model.lm_head.weight.mul_(4)
    return model


def example(
    model: VidLaDAForConditionalGeneration, frames: int, before: int = 3, after: int = 4, seed: int = 1
) -> dict:
    """Inputs of one example: text, a video of so many frames (or none), text."""
    generator = torch.Generator().manual_seed(seed)
    rows = frames * model.model.tokens_per_frame + (frames > 0 and model.config.newline_position == "one_token")
    words = torch.randint(3, 60, (before + after,), generator=generator)
    inputs = {"input_ids": torch.cat([words[:before], torch.full((rows,), VIDEO), words[before:]])[None]}
    if frames:
        inputs["pixel_values_videos"] = torch.randn(frames, 3, 56, 56, generator=generator)
        inputs["video_num_frames"] = torch.tensor([frames])
    return inputs


def batch(*examples: dict) -> dict:
    """Examples of different lengths, padded on the left."""
    longest = max(e["input_ids"].shape[1] for e in examples)
    ids = torch.full((len(examples), longest), PAD)
    mask = torch.zeros_like(ids)
    for i, e in enumerate(examples):
        length = e["input_ids"].shape[1]
        ids[i, longest - length :] = e["input_ids"][0]
        mask[i, longest - length :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    for name in ("pixel_values_videos", "video_num_frames"):
        if found := [e[name] for e in examples if name in e]:
            inputs[name] = torch.cat(found)
    return inputs
