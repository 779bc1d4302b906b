"""Programs of `torch.export`: how networks are traced with dynamic sizes, and files of them."""

import copy
import io
import json
import re
import zipfile
from collections.abc import Iterator
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

# What a program of this package may call. Others could be any function of PyTorch or of Python.
_CALLS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|getitem|pow|truediv)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_\w+"
)
# Sizes are expressions, which PyTorch evaluates as Python.
_EXPRESSION = re.compile(
    r"(Symbol\('[su]\d+'|[su]\d+\b|(positive|nonnegative|integer|real)=(True|False)"
    r"|\b(Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CleanDiv|PythonMod|IntTrueDiv|FloatTrueDiv|ToFloat"
    r"|FloorToInt|CeilToInt|TruncToInt|floor|ceiling)(?=\()|'[\d.]+'|\d+(\.\d+)?|precision=|[-+*/(), ])*"
)


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
        self._program, self._device = program, torch.device("cpu")
        self._network: nn.Module = program.module(check_guards=False)  # guards are Python code in the file

    def __call__(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate; see `Runtime`."""
        if images.device != self._device:  # constants are part of the graph, and `.to` of the module leaves them
            from torch.export.passes import move_to_device_pass

            self._program, self._device = move_to_device_pass(self._program, images.device), images.device
            self._network = self._program.module(check_guards=False)
        result: Tensor = self._network(*([images] if style is None else [images, style]))
        return result


def open_program(path: Path) -> ProgramRuntime:
    """Open a `.pt2` file, unless it could run code.

    Raises:
        CheckpointError: the file is damaged, was not written by cyclestyle, or holds anything but a network.
    """
    from torch.export import load

    extra = {KEY: ""}
    try:
        check_harmless(path)
        program = load(path, extra_files=extra)
    except CheckpointError:
        raise
    except Exception as error:  # of many kinds
        raise CheckpointError(f"{path} is damaged, or no program of torch.export") from error
    return ProgramRuntime(program, Description.read(extra[KEY], path))


def check_harmless(path: Path) -> None:
    """Check that a `.pt2` file holds tensors and arithmetic only: loading one can run code otherwise.

    PyTorch unpickles some of its parts, evaluates expressions of sizes, and looks up functions by their names.

    Raises:
        CheckpointError: it holds something else.
        Exception: of many kinds: the file is damaged.
    """
    refused = CheckpointError(f"{path} could run code and is not loaded; expected a file of `cyclestyle export`")
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
        for name in archive.namelist():
            content = archive.read(name)
            if "/data/sample_inputs/" in name and content:
                try:
                    torch.load(io.BytesIO(content), weights_only=True)
                except Exception as error:
                    raise refused from error
            elif "/data/aotinductor/" in name or name.endswith(".so"):
                raise refused
            elif name.endswith(".json"):
                for key, value in _entries(json.loads(content)):
                    if not _is_harmless(key, value):
                        raise refused


def _is_harmless(key: str, value: Any) -> bool:
    if key == "use_pickle":
        return value is False
    if key == "path_name":
        return not str(value).startswith("custom_obj")
    if key == "target" and isinstance(value, str):  # of a node; parameters have targets such as model.1.weight
        return bool(_CALLS.fullmatch(value)) or not value.startswith(("torch", "_operator", "math", "#"))
    if key == "expr_str":
        return bool(_EXPRESSION.fullmatch(str(value)))
    if key == "range_constraints":
        return all(_EXPRESSION.fullmatch(name) for name in value)
    return True


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key, one
            yield from _entries(one)
    elif isinstance(value, list):
        for one in value:
            yield from _entries(one)
