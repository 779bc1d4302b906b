"""ONNX files, run by ONNX Runtime."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.weights.exported.description import KEY, Description
from cyclestyle.weights.exported.program import trace

INPUTS = ("images", "style")
OUTPUT = "translations"


def write_onnx(one_pass: OnePass, description: Description, path: Path) -> None:
    """Write an `.onnx` file with its weights inside.

    Raises:
        CheckpointError: an operation of the network has no counterpart in ONNX.
        CycleStyleError: the packages that write it are not installed.
    """
    for module in ("onnx", "onnxscript"):
        optional(module, "writing an ONNX file", "export")
    import onnx

    names = INPUTS if one_pass.takes_style or one_pass.styles else INPUTS[:1]
    program = trace(one_pass, description.precision, description.shape)
    try:
        # The program has one parameter with all inputs, whose names are set below
        exported = torch.onnx.export(program, (), dynamo=True, verbose=False)
    except Exception as error:  # of many kinds
        raise CheckpointError(f"ONNX cannot hold this network: {' '.join(str(error).split())[:200]}") from error
    assert exported is not None
    model = exported.model_proto
    _rename(model.graph, dict(zip([one.name for one in model.graph.input], names, strict=True)))
    _rename(model.graph, {model.graph.output[0].name: OUTPUT})
    for one in (*model.graph.input, *model.graph.output) if description.shape is None else ():
        batch, _, *sides = one.type.tensor_type.shape.dim
        prefix = "style_" if one.name == "style" else ""
        for dimension, name in zip(sides, ("height", "width"), strict=False):  # shares of styles have no sides
            dimension.dim_param = f"{prefix}{name}"
        if one.name != "style":
            batch.dim_param = "batch"
    del model.graph.value_info[:]  # has other names of the same sizes, of which runtimes warn
    describe(model, description)
    onnx.save(model, path)


def describe(model: Any, description: Description) -> None:
    """Write the description into a model, in place of the one that it has."""
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=description.text())


def quantise(source: Path, target: Path, description: Description, images: Sequence[tuple[Tensor, ...]]) -> None:
    """Write an ONNX file with weights and activations of 8 bits, by ONNX Runtime's static quantiser.

    The first and the last convolution, which read and write the image, stay as they are: they hold few of the weights,
    and most of the visible error.

    Args:
        source: an ONNX file in float32.
        target: the new file.
        description: of the new file.
        images: inputs of the network, from whose activations the ranges are found.

    Raises:
        CheckpointError: the quantiser fails.
        CycleStyleError: ONNX Runtime is not installed.
    """
    quantization = optional("onnxruntime.quantization", "int8", "export")
    import onnx

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            given = next(self.left, None)
            return None if given is None else {name: one.numpy() for name, one in zip(INPUTS, given, strict=False)}

    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type in ("Conv", "ConvTranspose")]
    logging.disable(logging.WARNING)  # it advises steps that change nothing here
    try:
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    except Exception as error:  # of many kinds
        raise CheckpointError(f"ONNX Runtime cannot quantise this network: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(target)
    describe(model, description)
    onnx.save(model, target)


class OnnxRuntime:
    """An ONNX file that is open."""

    def __init__(self, session: Any, description: Description) -> None:
        self.description, self._session = description, session

    def __call__(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate; see `Runtime`."""
        given = {INPUTS[0]: _array(images)} | ({} if style is None else {INPUTS[1]: _array(style)})
        return torch.from_numpy(self._session.run([OUTPUT], given)[0]).to(images.device)


def open_onnx(path: Path) -> OnnxRuntime:
    """Open an `.onnx` file, on the GPU where ONNX Runtime has one.

    Raises:
        CheckpointError: the file is damaged, or was not written by cyclestyle.
        CycleStyleError: ONNX Runtime is not installed.
    """
    runtime = optional("onnxruntime", "an ONNX file", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    known = runtime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of many kinds
        raise CheckpointError(f"{path} is damaged, or no ONNX file") from error
    return OnnxRuntime(session, Description.read(session.get_modelmeta().custom_metadata_map.get(KEY), path))


def _array(images: Tensor) -> NDArray[np.float32]:
    return images.detach().float().contiguous().cpu().numpy()


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values of a graph."""
    for one in (*graph.input, *graph.output):
        one.name = names.get(one.name, one.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
