"""Files of OpenVINO: an `.xml` with the network and a `.bin` with its weights."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.weights.exported.description import KEY, Description
from cyclestyle.weights.exported.onnx_file import write_onnx

_INFO = [KEY, "description"]


def write_openvino(one_pass: OnePass, description: Description, path: Path) -> None:
    """Write an `.xml` file, and the `.bin` file beside it. Half precision is that of the stored weights.

    Raises:
        CheckpointError: an operation of the network has no counterpart in ONNX or OpenVINO.
        CycleStyleError: the packages that write it are not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.onnx"
        write_onnx(one_pass, Description(method=description.method, shape=description.shape), source)
        convert(source, description, path)


def convert(source: Path, description: Description, path: Path) -> None:
    """Convert an ONNX file.

    Raises:
        CheckpointError: an operation has no counterpart in OpenVINO.
        CycleStyleError: OpenVINO is not installed.
    """
    openvino = optional("openvino", "OpenVINO", "export")
    try:
        model = openvino.convert_model(source)
    except Exception as error:  # of many kinds
        raise CheckpointError(f"OpenVINO cannot hold this network: {' '.join(str(error).split())[:200]}") from error
    model.set_rt_info(description.text(), _INFO)
    openvino.save_model(model, path, compress_to_fp16=description.precision == "half")


class OpenVinoRuntime:
    """A file of OpenVINO that is open."""

    def __init__(self, network: Any, description: Description) -> None:
        self.description, self._network = description, network

    def __call__(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate; see `Runtime`."""
        given = [one.detach().float().contiguous().cpu().numpy() for one in (images, style) if one is not None]
        return torch.from_numpy(self._network(given)[0].copy()).to(images.device)


def open_openvino(path: Path) -> OpenVinoRuntime:
    """Open an `.xml` file, on the CPU.

    Raises:
        CheckpointError: one of the two files is missing or damaged, or they were not written by cyclestyle.
        CycleStyleError: OpenVINO is not installed.
    """
    openvino = optional("openvino", "a file of OpenVINO", "export")
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path.with_suffix('.bin')} is missing, which has the weights of {path.name}")
    core = openvino.Core()
    try:
        model = core.read_model(path)
        text = model.get_rt_info(_INFO).astype(str) if model.has_rt_info(_INFO) else None
        description = Description.read(text, path)
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if description.precision != "half":  # else the precision that the processor prefers
            options["INFERENCE_PRECISION_HINT"] = "f32"
        network = core.compile_model(model, "CPU", options)
    except CheckpointError:
        raise
    except Exception as error:  # of many kinds
        raise CheckpointError(f"{path} is damaged, or no file of OpenVINO") from error
    return OpenVinoRuntime(network, description)
