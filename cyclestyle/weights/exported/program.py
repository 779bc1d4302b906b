"""Programs of `torch.export`: how networks are traced with dynamic sizes, and files of them."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.weights.exported.description import KEY, Description

if TYPE_CHECKING:
    from torch.export import ExportedProgram  # takes a second to import, and is needed by few commands

LARGEST = 1 << 16
"""Largest height and width, which the exporter has to be told."""
MAX_BATCH = 4096


class Half(nn.Module):
    """A network with weights of 16 bits, whose images stay float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, *images: Tensor) -> Tensor:
        """Call the network."""
        result: Tensor = self.network(*(one.half() for one in images))
        return result.float()


def trace(one_pass: OnePass, precision: str, shape: tuple[int, int, int] | None = None) -> "ExportedProgram":
    """Trace a network for any batch, height and width, or for fixed ones.

    Args:
        one_pass: the network.
        precision: `half` for weights of 16 bits.
        shape: batch, height and width, if they are fixed.

    Raises:
        CheckpointError: an operation of the network cannot be traced.
    """
    from torch.export import Dim, export

    network = Half(one_pass.network) if precision == "half" else one_pass.network
    multiple = one_pass.multiple
    least = -(-one_pass.min_size // multiple)
    rows, columns = max(least, 2, 64 // multiple), max(least, 2, 64 // multiple) + 1
    batch, height, width = shape or (2, rows * multiple, columns * multiple)
    example = [torch.zeros(batch, one_pass.in_channels, height, width)]

    def sides(prefix: str) -> dict[int, Any]:
        names = (f"{prefix}rows", f"{prefix}columns")
        found = [Dim(name, min=least, max=LARGEST // multiple) for name in names]
        return {place: side if multiple == 1 else multiple * side for place, side in zip((2, 3), found, strict=True)}

    shapes = [{0: Dim("batch", min=1, max=MAX_BATCH), **sides("")}]
    if one_pass.takes_style:
        example.append(torch.zeros(1, 3, columns * multiple, rows * multiple))
        shapes.append(sides("style_"))
    if one_pass.styles:
        example.append(torch.full((1, len(one_pass.styles)), 1 / len(one_pass.styles)))
        shapes.append({})
    try:
        with torch.no_grad():
            dynamic = None if shape else (tuple(shapes),)
            program = export(_Call(network).eval(), tuple(example), dynamic_shapes=dynamic)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        if reason.startswith("Constraints violated"):
            reason = "it takes only some sizes; if these are multiples, its attribute `multiple` says of what"
        raise CheckpointError(f"PyTorch cannot export this network: {reason}") from error
    program.example_inputs = None  # files would hold them
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


class _Call(nn.Module):
    """A network with one parameter for any number of inputs, whose shapes are then given as a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        result: Tensor = self.network(*images)
        return result


def write_program(one_pass: OnePass, description: Description, path: Path) -> None:
    """Write a `.pt2` file of `torch.export`."""
    from torch.export import save

    save(trace(one_pass, description.precision, description.shape), path, extra_files={KEY: description.text()})


class ProgramRuntime:
    """A `.pt2` file that is open."""

    def __init__(self, program: "ExportedProgram", description: Description) -> None:
        self.description = description
        self._network: nn.Module = program.module(check_guards=False)

    def __call__(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate; see `Runtime`."""
        result: Tensor = self._network(*([images] if style is None else [images, style]))
        return result


def open_program(path: Path) -> ProgramRuntime:
    """Open a `.pt2` file that this process has written, to compare it: loading one of others can run their code.

    Raises:
        CheckpointError: the file has no description.
    """
    from torch.export import load

    extra = {KEY: ""}
    program = load(path, extra_files=extra)
    return ProgramRuntime(program, Description.read(extra[KEY], path))
