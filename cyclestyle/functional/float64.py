"""Double precision, which not every device has."""

from torch import Tensor


def to_float64(tensor: Tensor) -> Tensor:
    """Return the tensor in float64: on its device, or on the CPU where that has no float64 (MPS)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
