"""Networks in the file formats of other programs: written with a description, and run again from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.weights.exported.description import KEY, Description
from cyclestyle.weights.exported.onnx_file import open_onnx, write_onnx
from cyclestyle.weights.exported.openvino_file import open_openvino, write_openvino
from cyclestyle.weights.exported.program import open_program, write_program

__all__ = ["KEY", "RUNTIMES", "Description", "ExportFormat", "Precision", "Runtime", "is_exported", "open_exported"]

Precision = Literal["float32", "half", "int8"]


class Runtime(Protocol):
    """A file that is open: what runs its network."""

    description: Description

    def __call__(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate `(N, C, H, W)` in [-1, 1] whose sides fit; `style`, `(1, 3, h, w)`, where the network takes one."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format that holds a whole network.

    Attributes:
        ending: of its file.
        write: writes a network in float32 or half to a file.
        open: opens a file.
        quantised: whether it can hold int8.
    """

    ending: str
    write: Callable[[OnePass, Description, Path], None]
    open: Callable[[Path], Runtime]
    quantised: bool = False


RUNTIMES = {
    "onnx": ExportFormat(ending=".onnx", write=write_onnx, open=open_onnx, quantised=True),
    "openvino": ExportFormat(ending=".xml", write=write_openvino, open=open_openvino, quantised=True),
    "pt2": ExportFormat(ending=".pt2", write=write_program, open=open_program),
}
"""The formats by their names on the command line."""


def is_exported(path: Path) -> bool:
    """Return whether a path has the ending of one of `RUNTIMES`."""
    return path.suffix.lower() in {form.ending for form in RUNTIMES.values()}


def open_exported(path: Path) -> Runtime:
    """Open a file of one of `RUNTIMES`, whose ending tells which.

    Raises:
        CheckpointError: the file is missing, damaged, was not written by cyclestyle, or could run code.
        CycleStyleError: the program that runs it is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.suffix.lower() == RUNTIMES["pt2"].ending:
        raise CheckpointError(
            f"{path} is a program for PyTorch alone, which could run code and is not loaded; translate with the "
            "checkpoint that it is from, or with a file of onnx, openvino or safetensors"
        )
    form = next(form for form in RUNTIMES.values() if form.ending == path.suffix.lower())
    return form.open(path)
