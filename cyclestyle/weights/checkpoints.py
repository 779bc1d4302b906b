"""Reading and writing checkpoints: whole or not at all, and never code."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cyclestyle.errors import CheckpointError
from cyclestyle.files import atomic_write

# What torch.load raises for a file that is cut off, is text, or holds random bytes.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed, and its checksums are compared.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a checkpoint file such as {path / 'last.ckpt'}")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except PermissionError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint of plain tensors and values, and is not loaded: it could run code"
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint; use an earlier one") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values, whole or not at all; what lies at `path` is replaced at the very end.

    Raises:
        CheckpointError: the folder cannot be written, or the disk is full.
    """
    buffer = io.BytesIO()  # torch's own writer does not say why a file could not be written
    torch.save(checkpoint, buffer)
    try:
        with atomic_write(path, sync=True) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}; what was there is intact") from error


def _check_sums(path: Path) -> None:
    """Compare the checksums of the archive, which `torch.load` does not; files before PyTorch 1.6 have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (name := archive.testzip()) is not None:
                raise zipfile.BadZipFile(name)
