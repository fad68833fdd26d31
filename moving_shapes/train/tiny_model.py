"""The model that `recipe.yaml` starts from: the 8B's architecture with two million parameters."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.generation_config_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.prompts_vidlada import CHAT_TEMPLATE
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

from ..vocabulary import PIECES, VOCABULARY

BOS, EOS, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
HEADER, END_HEADER, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SPECIAL_TOKENS = (BOS, EOS, MASK, HEADER, END_HEADER, END_OF_TURN, "<image>", "<video>")  # LLaDA's, and placeholders
IMAGE_SIZE, PATCH_SIZE = 64, 8
UNKNOWN = "<|unknown|>"
OUTPUT_SCALE = 0.3  # of the matrices that write into the residual stream

# As the published model's, without a system prompt: a fifth of this model's context would be that one sentence.
_SYSTEM_BLOCK = CHAT_TEMPLATE[
    CHAT_TEMPLATE.index("{%- if not messages or messages[0]") : CHAT_TEMPLATE.rindex("{%- for message in messages -%}")
]
TINY_CHAT_TEMPLATE = CHAT_TEMPLATE.replace(_SYSTEM_BLOCK, "")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word of the benchmark, LLaDA's special tokens, and one for all other words."""
    names = [*SPECIAL_TOKENS, UNKNOWN, "user", "assistant", "system", *VOCABULARY]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # a blank between words, none before a mark
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, UNKNOWN])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, unk_token=UNKNOWN, padding_side="left"
    )


def build_tiny(seed: int = 0) -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """The untrained model and its processor.

    Args:
        seed: of the weights.
    """
    tokenizer = word_tokenizer()
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size, max_frames=32),
        chat_template=TINY_CHAT_TEMPLATE,
        patch_size=PATCH_SIZE,
    )
    config = tiny_config(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VidLaDAForConditionalGeneration(config)
        initialize(model)
    model.generation_config = VidLaDAGenerationConfig.from_model_config(config)
    model.generation_config.update(unmasking="threshold")  # several times as fast, and as good
    return model, processor


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> VidLaDAConfig:
    """The sizes, and the tokenizer's vocabulary and special tokens."""
    ids = tokenizer.get_vocab()
    return VidLaDAConfig(
        text_config={
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "vocab_size": len(tokenizer),
            "bos_token_id": ids[BOS],
            "eos_token_id": [ids[EOS], ids[END_OF_TURN]],
            "pad_token_id": ids[EOS],
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        image_token_id=ids["<image>"],
        video_token_id=ids["<video>"],
        mask_token_id=ids[MASK],
        # Unlike the published model's, its answers are padded with an end of text that it may say.
        suppress_tokens=[ids[name] for name in (BOS, MASK, HEADER, END_HEADER, "<image>", "<video>", UNKNOWN)],
    )


@torch.no_grad()
def initialize(model: VidLaDAForConditionalGeneration) -> None:
    """Weights for a small width: 1 / sqrt(fan-in), less for what writes into the residual stream, embeddings of
    standard deviation 1, and a head that reads them. With the usual 0.02 a model of this width learns nothing."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            scale = OUTPUT_SCALE if name.endswith(("o_proj", "down_proj", "out_proj", "fc2")) else 1.0
            module.weight.normal_(std=scale * module.in_features**-0.5)
            if module.bias is not None:
                module.bias.zero_()
    tower: Any = model.model.vision_tower.embeddings
    tower.patch_embedding.weight.normal_(std=2 * tower.patch_embedding.weight[0].numel() ** -0.5)
    tower.patch_embedding.bias.zero_()
    tower.position_embedding.weight.normal_(std=0.3)
    embeddings: Any = model.get_input_embeddings().weight
    embeddings.normal_()
    model.lm_head.weight.copy_(embeddings * embeddings.shape[1] ** -0.5)
    model.model.image_newline.weight.normal_()


__all__ = ["TINY_CHAT_TEMPLATE", "build_tiny", "word_tokenizer"]
