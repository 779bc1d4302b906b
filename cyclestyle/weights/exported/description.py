"""What a file says about its network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from cyclestyle.errors import CheckpointError

KEY = "cyclestyle"
"""Name of the description among the metadata of a file."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is written into every exported file, as JSON under `KEY`.

    Attributes:
        method: name of the task.
        directions: what the file translates, `AtoB`, `BtoA` or both.
        in_channels: channels of the images that the first direction takes.
        multiple: what height and width must be multiples of; `predict` pads.
        min_size: smallest height and width; `predict` pads.
        takes_style: whether the network has the style image as its second input.
        styles: names of the styles whose shares, `(1, number of styles)`, are its second input.
        shape: number, height and width of the images, where the file takes no others; None for any.
        precision: `float32`, `half` or `int8`.
        value_range: lowest and highest value of images.
        bytes_per_pixel: memory that a pixel takes in a pass, estimated; 0 if unknown.
        weights_sha256: hash of the weights in float32.
        settings: constructor arguments of the task.
        training: the config of the training run, without folders.
        licence: of the weights.
        version: of cyclestyle.
    """

    method: str
    directions: tuple[str, ...] = ("AtoB",)
    in_channels: int = 3
    multiple: int = 1
    min_size: int = 1
    takes_style: bool = False
    styles: tuple[str, ...] = ()
    shape: tuple[int, int, int] | None = None
    precision: str = "float32"
    value_range: tuple[float, float] = (-1.0, 1.0)
    bytes_per_pixel: float = 0.0
    weights_sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = "not stated"
    version: str = ""

    def text(self) -> str:
        """Return the description as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def read(cls, text: str | None, path: Path) -> "Description":
        """Read a description.

        Args:
            text: JSON; None if the file has none.
            path: the file, for error messages.

        Raises:
            CheckpointError: there is no description, or it is of another kind.
        """
        try:
            found = json.loads(text or "")
            known = {one.name for one in fields(cls)}
            values = {name: value for name, value in found.items() if name in known}
            styles = tuple(values.get("styles", ()))
            shape = tuple(values["shape"]) if values.get("shape") else None
            tuples = {"directions": tuple(values["directions"]), "styles": styles, "shape": shape}
            described = cls(**{**values, **tuples})
            sizes = (described.in_channels, described.multiple, described.min_size, *(shape or ()))
            if not all(isinstance(one, int) and one > 0 for one in sizes) or not described.directions:
                raise ValueError(f"in_channels, multiple, min_size and shape are {sizes}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{path} has no description by cyclestyle, which says what images it takes; expected a file that "
                "`cyclestyle export` has written"
            ) from error
        return described


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
