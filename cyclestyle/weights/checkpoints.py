"""Reading checkpoints without running code, and writing them atomically."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cyclestyle.errors import CheckpointError
from cyclestyle.files import atomic_write

# Exceptions that torch.load raises for a file that is truncated, is text, or contains random bytes.
_LOAD_ERRORS = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU with `weights_only=True`, which runs no code, and verify its checksums.

    Args:
        path: a checkpoint, or the folder of a run, whose best checkpoint is read, else the last one.

    Raises:
        CheckpointError: the file does not exist, is damaged, or contains anything other than tensors and plain values.
    """
    if (path / "checkpoints").is_dir():
        path = run_checkpoint(path)
    if path.is_dir():
        found = sorted(path.rglob("*.ckpt"))
        hint = f"name a file, such as {found[0]}" if found else "expected a checkpoint file, or the folder of a run"
        raise CheckpointError(f"{path} is a folder; {hint}")
    try:
        _verify_checksums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except PermissionError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        if kind := _other_kind(path):
            raise CheckpointError(f"{path} is {kind}") from error
        raise CheckpointError(
            f"{path} is not a checkpoint of plain tensors and values; it is not loaded because it could run code"
        ) from error
    except _LOAD_ERRORS as error:
        if kind := _other_kind(path):
            raise CheckpointError(f"{path} is {kind}") from error
        raise CheckpointError(f"{path} is damaged or not a checkpoint; use an earlier one") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} contains a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def run_checkpoint(folder: Path) -> Path:
    """Return the best checkpoint of the folder of a run, else the last one.

    Raises:
        CheckpointError: the folder has none.
    """
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / "checkpoints" / name).is_file():
            return folder / "checkpoints" / name
    raise CheckpointError(
        f"{folder} has no checkpoints/best.ckpt or checkpoints/last.ckpt; train first, or name a checkpoint with "
        "--ckpt_path"
    )


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint of tensors and plain values atomically; an existing file at `path` is replaced.

    Raises:
        CheckpointError: the folder cannot be written, or the disk is full.
    """
    buffer = io.BytesIO()  # errors of torch.save to a file do not give the reason
    torch.save(checkpoint, buffer)
    try:
        with atomic_write(path, sync=True) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; the existing file is unchanged"
        ) from error


_OTHER_KINDS = {
    b"version https://git-lfs": "the pointer of a file that Git LFS has not downloaded; `git lfs pull` downloads it",
    b"\x89HDF\r\n\x1a\n": "a file of Keras (HDF5); expected a checkpoint of PyTorch",
    b"<!doctype html": "a web page, not a checkpoint; download the file itself",
    b"<html": "a web page, not a checkpoint; download the file itself",
}
"""How files begin that are often saved as checkpoints by mistake, and what they are."""


def _other_kind(path: Path) -> str | None:
    """Return what a file is that is no checkpoint, and what to do; None if that is unknown."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        return "empty; copy or download it again"
    return next((kind for start, kind in _OTHER_KINDS.items() if head.startswith(start.lower())), None)


def _verify_checksums(path: Path) -> None:
    """Verify the checksums of the zip archive, which `torch.load` does not do; files before PyTorch 1.6 have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (name := archive.testzip()) is not None:
                raise zipfile.BadZipFile(name)
