"""An exported folder to the Hub, after a look at everything that can be wrong with it."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .checksums import CHECKSUMS, find_damage, find_extra, read_checksums


@dataclass(frozen=True)
class Upload:
    """What is uploaded.

    Args:
        files: name -> bytes.
        address: of the repository.
    """

    files: dict[str, int]
    address: str


def push_checkpoint(
    folder: str | os.PathLike, repo_id: str, private: bool | None = None, dry_run: bool = False
) -> Upload:
    """Uploads what SHA256SUMS lists, the checksums and the model card in one commit; the repository is made if need be.

    Args:
        folder: of `vidlada export`.
        repo_id: "user/name".
        private: whether a new repository is; None: as the account's settings say.
        dry_run: check everything and upload nothing; the Hub is not asked.

    Raises:
        FileNotFoundError: there are no checksums or no model card.
        ValueError: files are missing, damaged or not listed; the card's metadata are not what the Hub reads; `repo_id`
            is impossible.
    """
    folder = Path(folder)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no id of a repository: pass USER/NAME ({error}).") from error
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} is no id of a repository: pass USER/NAME.")
    if problems := find_damage(folder) + find_extra(folder):
        raise ValueError(f"{folder} is not as its {CHECKSUMS} says ({'; '.join(problems)}): export it again.")
    check_card(folder / "README.md")
    names = sorted([*read_checksums(folder), CHECKSUMS, "README.md"])
    upload = Upload({name: (folder / name).stat().st_size for name in names}, f"https://huggingface.co/{repo_id}")
    if not dry_run:
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        message = "Upload a checkpoint of vidlada_hf"
        api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names, commit_message=message)
    return upload


def check_card(path: Path) -> None:
    """Reads a model card as huggingface_hub does.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its metadata cannot be read, or lack what makes the model found and loaded.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `vidlada export` writes a model card.")
    try:
        data = ModelCard.load(path).data.to_dict()
    except Exception as error:  # of YAML's and of huggingface_hub's own kinds
        raise ValueError(f"The metadata at the head of {path} cannot be read ({error}): correct them.") from error
    if missing := [name for name in ("library_name", "pipeline_tag", "license") if not data.get(name)]:
        raise ValueError(f"The metadata at the head of {path} lack {', '.join(missing)}: add them.")


__all__ = ["Upload", "push_checkpoint"]
