"""SHA256SUMS: what a checkpoint's folder holds, in the format that `sha256sum -c` checks.

A header of safetensors can be whole and the numbers behind it damaged, which no loader notices. Hashing takes about
a second a GB of a core, several files at a time; it is done once when a folder is written and once when it is checked.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

CHECKSUMS = "SHA256SUMS"
CHUNK_BYTES = 4 << 20  # of a file, in memory at a time
THREADS = 4  # files at a time: hashing lets go of Python's lock
EDITED = ("README.md", "LICENSE")  # people change them after the fact, and nothing loads them
# Ends of names of files that a loader may read.
LOADED = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".py", ".model", ".tiktoken", "vocab.txt", "merges.txt")


def write_checksums(folder: str | os.PathLike, known: Mapping[str, str] | None = None) -> None:
    """Writes SHA256SUMS, once all files that it lists are on the disk: its being there says that they are whole.

    Args:
        folder: its files are listed, those in its folders too. Left out are hidden ones and `EDITED`.
        known: name -> digest (hexadecimal) of files that were hashed when they were written.
    """
    folder, known = Path(folder), known or {}
    names = sorted(listed_names(folder))

    def finish(name: str) -> str:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
        return known.get(name) or digest_of(folder / name)

    with ThreadPoolExecutor(THREADS) as threads:
        digests = list(threads.map(finish, names))
    partial = folder / f".{CHECKSUMS}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / CHECKSUMS)
    sync_folder(folder)


def find_damage(folder: str | os.PathLike) -> list[str]:
    """What of a folder is not as its SHA256SUMS says, a line each ("NAME: is missing"); [] if all of it is.

    Nothing is read if a file is missing.

    Raises:
        FileNotFoundError: there is no folder, or no SHA256SUMS in it.
        ValueError: it is damaged itself.
    """
    folder = Path(folder)
    expected = read_checksums(folder)
    if missing := [f"{name}: is missing" for name in expected if not (folder / name).is_file()]:
        return missing
    with ThreadPoolExecutor(THREADS) as threads:
        digests = threads.map(lambda name: digest_of(folder / name), expected)
        return [
            f"{name}: is damaged or was changed"
            for (name, before), now in zip(expected.items(), digests, strict=True)
            if before != now
        ]


def find_extra(folder: str | os.PathLike) -> list[str]:
    """Files that a loader may read and that SHA256SUMS does not list, a line each."""
    folder = Path(folder)
    extra = sorted(set(listed_names(folder)) - read_checksums(folder).keys())
    return [f"{name}: is not in {CHECKSUMS}" for name in extra if name.endswith(LOADED)]


def read_checksums(folder: Path) -> dict[str, str]:
    """Name -> digest; for errors see `find_damage`."""
    path = folder / CHECKSUMS
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: pass the folder of a checkpoint.")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CHECKSUMS}, so nothing tells whether its files are whole. If you trust them: "
            f"(cd {folder} && sha256sum * > {CHECKSUMS})"
        )
    checksums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        digest, _, name = line.partition(" ")
        relative = PurePosixPath(name[1:])  # behind a space for text, or an asterisk for binary files
        if len(digest) != 64 or not name[1:] or relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"Line {number} of {path} is not 'DIGEST  NAME' but {line!r}: copy the folder again.")
        checksums[str(relative)] = digest.lower()
    if not checksums:
        raise ValueError(f"{path} is empty: copy the folder again.")
    return checksums


def listed_names(folder: Path) -> Iterator[str]:
    """The files that SHA256SUMS lists, relative to their folder."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and str(relative) not in (CHECKSUMS, *EDITED):
            yield relative.as_posix()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Writes a folder's names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


__all__ = ["CHECKSUMS", "find_damage", "find_extra", "sync_folder", "write_checksums"]
