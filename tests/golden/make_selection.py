"""Makes the folder of this script from the full recording. The same recording gives the same files.

    python tests/golden/make_selection.py RECORDING [--output DIR]

The selection has the recording's layout, so that the tests run on either. It differs in three ways:

- Text is not copied. What a test needs as input is written as token ids of the folder's tokenizer
  (`{"text_as_ids": [...]}`); whole prompts and remarks are left out, as is the tokenizer's chat template.
- Of a tensor over 24 KB only every n-th row (vector of the last axis) is kept; `<name>.rows` holds their numbers.
- Resized frames are left out: a crop and the sum of each channel are kept instead.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

CASES = (
    "e2e", "forward", "frame_sampling", "generate", "id_map", "merge", "parameter_names", "prompts", "tables", "train",
)  # fmt: skip
COPIED = ("checkpoint/config.json", "checkpoint/generation_config.json", "checkpoint/model.safetensors",
          "siglip-tiny/config.json", "tokenizer/tokenizer.json", "tokenizer/special_tokens_map.json")  # fmt: skip
# Text that no test takes as input, and numbers that no test compares.
LEFT_OUT_FIELDS = {
    "conversation_value_after_processing", "model_attention_mask_storage", "note", "output_text", "prompt", "rule",
    "text_of_input_ids",
}  # fmt: skip
LEFT_OUT_TENSORS = (".u", ".t", ".masked_ce", ".loss", ".uniform_noise_f64", ".rand_confidence")
KEPT_LOGITS = "cfg0.5_gen16_b16_s16"  # the one generation of which the first step's logits are compared
NOISE = {"result"}  # what the random model says
LARGEST = 24 << 10
STRIDES = (1, 2, 4, 7, 11, 13, 17)  # no factor in common with a row of 14 and its newline, or with 729 patches
CROP = (100, 164, 200, 264)


def select(recording: Path, folder: Path) -> None:
    """Writes the selection of a recording into `folder`."""
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(recording / name, folder / name)
    settings = json.loads((recording / "tokenizer" / "tokenizer_config.json").read_text())
    settings.pop("chat_template")
    write_json(folder / "tokenizer" / "tokenizer_config.json", settings)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(recording / "tokenizer")
    (folder / "cases").mkdir(exist_ok=True)
    for name in CASES:
        content = json.loads((recording / "cases" / f"{name}.json").read_text())
        write_json(folder / "cases" / f"{name}.json", without_text(content, tokenizer))
    for path in sorted((recording / "cases").glob("*.safetensors")):
        save_file(select_tensors(path.stem, load_file(path)), folder / "cases" / path.name)
    manifest = json.loads((recording / "manifest.json").read_text())
    written = [
        *COPIED,
        "tokenizer/tokenizer_config.json",
        *(f"cases/{path.name}" for path in (folder / "cases").iterdir()),
    ]
    files = {name: digest(folder / name) for name in sorted(written)}
    kept = {name: manifest[name] for name in ("set", "versions", "tolerances")}
    write_json(folder / "manifest.json", kept | {"recording": digest(recording / "manifest.json"), "files": files})


def without_text(item: Any, tokenizer: PreTrainedTokenizerFast, key: str = "") -> Any:
    """The same content with sentences as token ids."""
    if isinstance(item, dict):
        return {k: without_text(v, tokenizer, k) for k, v in item.items() if k not in LEFT_OUT_FIELDS}
    if isinstance(item, list):
        return [without_text(i, tokenizer, key) for i in item]
    if key == "error":
        return item.partition(":")[0]
    if not isinstance(item, str) or key in NOISE or not any(character.isspace() for character in item):
        return item
    ids = tokenizer.encode(item, add_special_tokens=False)
    assert tokenizer.decode(ids) == item, item
    return {"text_as_ids": ids}


def select_tensors(file: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the selection keeps of a file of tensors."""
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(LEFT_OUT_TENSORS) or (file == "vision" and "hidden_states" in name):
            continue
        if name.endswith("_lm_head_out") and not name.startswith(KEPT_LOGITS):
            continue
        if name.endswith(".resized_u8_nchw"):
            video = name.partition(".")[0]
            top, bottom, left, right = CROP
            crop = f"{video}.resized_u8_rows{top}_{bottom}_cols{left}_{right}"
            kept[crop] = tensor[:, :, top:bottom, left:right].contiguous()
            kept[f"{video}.resized_u8_channel_sums"] = tensor.long().sum((2, 3))
        else:
            kept |= thin(name, tensor)
    return kept


def thin(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor, or every n-th of its rows and their numbers."""
    size = tensor.numel() * tensor.element_size()
    stride = next(stride for stride in STRIDES if size <= LARGEST * stride)
    if stride == 1 or not tensor.is_floating_point():
        return {name: tensor}
    rows = torch.arange(0, tensor[..., 0].numel(), stride)
    return {name: tensor.flatten(0, -2)[rows], f"{name}.rows": rows}


def write_json(path: Path, content: Any) -> None:
    """One line for each case of a list and each field of an object."""
    dump = json.JSONEncoder(separators=(",", ":")).encode
    if isinstance(content, list):
        lines, (opening, closing) = [dump(item) for item in content], "[]"
    else:
        lines, (opening, closing) = [f"{dump(name)}: {dump(item)}" for name, item in content.items()], "{}"
    path.write_text(opening + "\n" + ",\n".join(lines) + "\n" + closing + "\n")


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    select(arguments.recording, arguments.output)
