"""What would wait for a GPU, noted on the CPU."""

import traceback
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
OPERATIONS = {
    aten._local_scalar_dense.default,  # item(), float(), bool()
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
}


class Waits(TorchDispatchMode):
    """Notes where the processor would have to wait until a GPU has done all that it was given.

    That is where numbers are read from a tensor, and where a tensor on a device is made of numbers of Python.

    Attributes:
        on: whether to note them.
        found: a few lines of the program for each wait, the innermost first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on = True
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Note an operation that waits."""
        if func in OPERATIONS:
            self.note()
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> "Waits":
        """Watch calls that are no operations, too."""
        make, copy = torch.tensor, {name: getattr(Tensor, name) for name in ("new_tensor", "cpu", "numpy", "tolist")}

        def tensor(*args: Any, **options: Any) -> Tensor:
            if options.get("device") is not None:
                self.note()
            return make(*args, **options)

        def noted(call: Any) -> Any:
            return lambda *args, **options: self.note() or call(*args, **options)

        self._patches = [mock.patch.object(torch, "tensor", tensor)]
        self._patches += [mock.patch.object(Tensor, name, noted(call)) for name, call in copy.items()]
        for patch in self._patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """Stop watching."""
        for patch in self._patches:
            patch.stop()
        super().__exit__(*error)

    def note(self) -> None:
        """Note where the program is, unless it reads the steps of Adam, which lie in the memory of the processor."""
        stack = traceback.extract_stack()[-8:-2] if self.on else []
        if stack and "_get_value" not in [one.name for one in stack]:
            lines = [f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in stack]
            self.found.append(" < ".join(reversed(lines)))
