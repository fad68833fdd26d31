"""An official VidLaDA checkpoint, rewritten in this package's format.

Every tensor keeps its values, its type and its shard; only the names change. A safetensors file is a header of names in
front of plain data, so a shard is converted by writing a new header and copying the data behind it: no tensor is ever
read into memory, whatever the shard's size.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor
from transformers.utils import logging

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..modeling.official_checkpoint_vidlada import (
    OFFICIAL_MODEL_TYPE,
    WEIGHT_RENAMINGS,
    is_official_config,
    translate_config,
)
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.prompts_vidlada import DEFAULT_SYSTEM_PROMPT
from ..processing.video_processing_vidlada import VidLaDAVideoProcessor
from .checksums import write_checksums
from .locate import read_config

logger = logging.get_logger(__name__)

CHUNK_BYTES = 16 << 20  # of a shard, in memory at a time
INDEX_NAME = "model.safetensors.index.json"


def convert_official_checkpoint(
    official_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    vision_config: str | os.PathLike | Mapping[str, Any] | None = None,
    tokenizer_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Path:
    """Converts an official checkpoint into a folder that `from_pretrained` and `AutoProcessor` load.

    Everything is checked before the first byte is written. A conversion that was interrupted continues when it is
    called again: shards that are there and equal to what would be written are kept. config.json is written last, so
    that an unfinished folder cannot be mistaken for a checkpoint; then the checksums (see `checksums`).

    Args:
        official_dir: folder with the official config.json and *.safetensors, one file or many.
        out_dir: folder to write; of checkpoints it may hold only an interrupted conversion of the same one.
        vision_config: the vision tower's own config: a dict, a config.json or a folder with one. None: its sizes are
            read off the tensors' shapes, and its number of heads is SigLIP2 so400m's if its width is.
        tokenizer_dir: folder with the tokenizer; None: `official_dir`.
        progress: show a progress bar on stderr.

    Returns:
        `out_dir`.

    Raises:
        FileNotFoundError: config.json, the weights, the tokenizer or `vision_config` are not there.
        FileExistsError: `out_dir` holds a finished checkpoint, or weights of another one.
        ValueError: not an official checkpoint, pickled weights only, a damaged shard, or names or shapes of tensors
            that are not the model's (the message lists every one).
    """
    official_dir, out_dir = Path(official_dir), Path(out_dir)
    official = read_official_config(official_dir)
    shards = [Shard.open(path) for path in find_shards(official_dir)]
    shapes = {name: shape for shard in shards for name, shape in shard.shapes.items()}
    fields = translate_config(official, shapes, vision_config=read_vision_config(vision_config))
    config = VidLaDAConfig.from_dict(fields)
    check_tensors(shapes, config)
    processor = build_processor(official, config, Path(tokenizer_dir or official_dir))
    config.image_token_id, config.video_token_id = processor.image_token_id, processor.video_token_id
    names = shard_names(len(shards))
    check_output(out_dir, names)

    out_dir.mkdir(parents=True, exist_ok=True)
    for partial in out_dir.glob(".model*.safetensors.partial"):  # of a conversion that was killed
        partial.unlink()
    digests = {}
    total = sum(shard.data_bytes for shard in shards)
    with tqdm(total=total, unit="B", unit_scale=True, desc="Converting", disable=not progress) as bar:
        for shard, name in zip(shards, names, strict=True):
            bar.set_postfix_str(name)
            if not shard.is_converted(out_dir / name):
                digests[name] = shard.convert(out_dir / name, bar)
            else:
                bar.update(shard.data_bytes)
    if len(shards) > 1:
        weight_map = {
            rename(tensor): name for shard, name in zip(shards, names, strict=True) for tensor in shard.shapes
        }
        write_json(out_dir / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})
    processor.save_pretrained(out_dir)
    VidLaDAGenerationConfig.from_model_config(config).save_pretrained(out_dir)
    config.save_pretrained(out_dir)
    write_checksums(out_dir, digests)
    return out_dir


# -- reading ----------------------------------------------------------------------------------------------------------


def read_official_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json of an official checkpoint; anything else raises."""
    config = read_config(folder)
    if not is_official_config(config):
        kind = config.get("model_type")
        remedy = "it is in this package's format already" if kind == VidLaDAConfig.model_type else "it is another model"
        raise ValueError(f"{folder / 'config.json'} says `model_type` {kind!r}, not {OFFICIAL_MODEL_TYPE!r}: {remedy}.")
    return config


def find_shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those that its index names, else all that are there.

    Raises:
        FileNotFoundError: none, or one that the index names is missing.
        ValueError: only pickled weights, which can run code when they are read.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = sorted({folder / name for name in weight_map.values()})
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} lacks {', '.join(missing)}, which its {INDEX_NAME} names: download the checkpoint again."
            )
        return paths
    paths = sorted(folder.glob("*.safetensors"))
    if paths:
        return paths
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise ValueError(
            f"{folder} holds its weights only as pickle files ({', '.join(pickled)}), which can run any code when they "
            "are read. Convert them to safetensors in an environment you trust "
            "(`safetensors.torch.save_file(torch.load(..., weights_only=True), ...)`) and try again."
        )
    raise FileNotFoundError(f"{folder} holds no *.safetensors files: pass the folder with the weights.")


def read_vision_config(source: str | os.PathLike | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The fields of a vision tower's config, of a tower by itself or of the image-text model that it is a part of."""
    if source is None or isinstance(source, Mapping):
        return source
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: pass the vision tower's config.json or the folder it is in.")
    config = json.loads(path.read_text(encoding="utf-8"))
    config = config.get("vision_config", config)
    return {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}  # the whole model's


def build_processor(official: Mapping[str, Any], config: VidLaDAConfig, tokenizer_dir: Path) -> VidLaDAProcessor:
    """The processor of a converted checkpoint: its tokenizer, and what its config.json says about prompts.

    Time stamps are written as in the official code, which the model saw in training.
    """
    if not (tokenizer_dir / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{tokenizer_dir} holds no tokenizer.json. Give its folder: `vidlada convert ... --tokenizer DIR`."
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    warn_of_other_template(tokenizer)
    vision = cast(Any, config.vision_config)
    size = {"height": vision.image_size, "width": vision.image_size}
    return VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size, resample=3),
        tokenizer=tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size, force_sample=bool(official.get("force_sample", False))),
        patch_size=vision.patch_size,
        pooling_stride=config.pooling_stride,
        pooling_mode=config.pooling_mode,
        newline_position=config.newline_position,
        add_time_instruction=bool(official.get("add_time_instruction", False)),
        timestamps="ordinal",
    )


def warn_of_other_template(tokenizer: Any) -> None:
    """Warns where the tokenizer's own chat template, usually LLaDA's, writes another prompt than ours."""
    if tokenizer.chat_template is None:
        return
    chat = [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": " What happens?\n"}]
    own = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    processor = VidLaDAProcessor(tokenizer=tokenizer)
    if processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) != own:
        logger.warning(
            "The tokenizer's chat template writes another prompt than the official code for VidLaDA does. The "
            "converted processor writes the latter; pass `chat_template=` to `apply_chat_template` for the former."
        )


# -- checking ---------------------------------------------------------------------------------------------------------


def rename(name: str) -> str:
    """This package's name of a tensor with an official name."""
    for pattern, replacement in WEIGHT_RENAMINGS:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def check_tensors(shapes: Mapping[str, tuple[int, ...]], config: VidLaDAConfig) -> None:
    """Compares the official tensors with those of the model, built without memory.

    Args:
        shapes: official name -> shape.

    Raises:
        ValueError: lists every tensor that is missing (by both names), unexpected, or of another shape.
    """
    with torch.device("meta"):
        model = VidLaDAForConditionalGeneration(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {rename(name): (name, shape) for name, shape in shapes.items()}
    tied = set(model._tied_weights_keys) if config.tie_word_embeddings else set()
    missing = sorted(wanted.keys() - given.keys() - tied)
    unexpected = sorted(given[name][0] for name in given.keys() - wanted.keys())
    mismatched = [
        f"{given[name][0]}: {given[name][1]} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & given.keys())
        if given[name][1] != wanted[name]
    ]
    problems = (("Missing", missing), ("Unexpected", unexpected), ("Of another shape", mismatched))
    if any(names for _, names in problems):
        lists = "\n".join(f"{what} ({len(names)}):\n  " + "\n  ".join(names) for what, names in problems if names)
        raise ValueError(
            "The checkpoint's tensors are not those of the model that its config.json describes, so nothing was "
            f"converted.\n{lists}"
        )


def check_output(out_dir: Path, names: list[str]) -> None:
    """Raises a FileExistsError where the conversion would mix with another checkpoint or replace one."""
    if (out_dir / "config.json").exists():
        raise FileExistsError(f"{out_dir} holds a checkpoint already: pass another folder, or remove that one.")
    foreign = sorted(path.name for path in out_dir.glob("*.safetensors") if path.name not in names)
    if foreign:
        raise FileExistsError(
            f"{out_dir} holds weights that this conversion does not write ({', '.join(foreign)}): pass another folder, "
            "or remove them."
        )


# -- writing ----------------------------------------------------------------------------------------------------------


def shard_names(count: int) -> list[str]:
    """The names that transformers gives to `count` shards."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


@dataclass(frozen=True)
class Shard:
    """One safetensors file of the official checkpoint.

    The format (github.com/huggingface/safetensors, "Format"): 8 bytes with the header's length as a little-endian
    unsigned integer, the header as JSON (name -> dtype, shape, offsets into the data), the data.

    Args:
        path: the file.
        header: its parsed header.
        data_start, data_bytes: where its data begins and how long it is, in bytes.
    """

    path: Path
    header: dict[str, Any]
    data_start: int
    data_bytes: int

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Reads the header.

        Raises:
            ValueError: the file is damaged or cut short.
        """
        try:
            with safe_open(path, framework="pt"):  # checks the header, and that the data are all there
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or cut short ({error}): download it again.") from error
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        return cls(path, header, 8 + length, path.stat().st_size - 8 - length)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Official name -> shape."""
        return {name: tuple(info["shape"]) for name, info in self.header.items() if name != "__metadata__"}

    @property
    def converted_header(self) -> bytes:
        """Length and header of the converted file, padded so that the data stay aligned to 8 bytes."""
        metadata = {**self.header.get("__metadata__", {}), "format": "pt"}
        tensors = {rename(name): info for name, info in self.header.items() if name != "__metadata__"}
        header = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header

    def is_converted(self, target: Path) -> bool:
        """Whether `target` is what `convert` would write, compared byte by byte."""
        header = self.converted_header
        if not target.is_file() or target.stat().st_size != len(header) + self.data_bytes:
            return False
        with open(self.path, "rb") as source, open(target, "rb") as file:
            source.seek(self.data_start)
            return file.read(len(header)) == header and all(
                a == b for a, b in zip(chunks_of(source), chunks_of(file), strict=True)
            )

    def convert(self, target: Path, bar: Any) -> str:
        """Writes the converted file under another name, and gives it its own when it is complete.

        Returns:
            The SHA-256 of what was to be written, hexadecimal.
        """
        digest = hashlib.sha256(self.converted_header)
        partial = target.with_name(f".{target.name}.partial")
        try:
            with open(self.path, "rb") as source, open(partial, "wb") as file:
                file.write(self.converted_header)
                source.seek(self.data_start)
                for chunk in chunks_of(source):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return digest.hexdigest()


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, piece by piece."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file as transformers does."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
