"""What would wait for a GPU, counted on the CPU."""

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default: "a number is read",  # item(), float(), bool()
    aten.lift_fresh.default: "a tensor is made of Python numbers",  # which are copied to the device
    aten.equal.default: "tensors are compared",
    aten.nonzero.default: "places are found",
    aten.masked_select.default: "a mask selects",
}


class Waits(TorchDispatchMode):
    """Notes each operation that makes the processor wait until a GPU has done all that it was given.

    Attributes:
        on: whether to note them.
        found: what was done, and the innermost lines that did it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on = True
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Note the operation."""
        if self.on and func in WAITING:
            lines = [
                f"{line.filename.rpartition('site-packages/')[2]}:{line.lineno}" for line in traceback.extract_stack()
            ]
            self.found.append(f"{WAITING[func]}: {' < '.join(reversed(lines[-8:-1]))}")
        return func(*args, **(kwargs or {}))
