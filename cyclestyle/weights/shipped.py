"""The models that are part of the package, by name."""

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "models"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A model of the package.

    Attributes:
        purpose: what it is for, in a few words.
        work_size: longest side, in pixels, at which it translates unless another is asked for: strokes have a size in
            pixels, and those of a few pixels on a large photo look like a filter.
    """

    purpose: str
    work_size: int


SHIPPED = {
    "monet": Shipped(purpose="photos in the manner of Monet, in the colours of each photo", work_size=512),
    "styles": Shipped(purpose="photos in the styles of painters, one network for all", work_size=1024),
}
"""The names that `--ckpt_path` takes."""


def default_model(*, styles: bool) -> str:
    """Return the model that is used where none is named: `styles` where a style is, else `monet`."""
    return "styles" if styles else "monet"


def shipped_path(name: str) -> Path:
    """Return the file of a model of the package."""
    return FOLDER / f"{name}.safetensors"


def shipped_styles(name: str) -> list[str]:
    """Return the names of the styles of a model of the package, from the header of its file, which needs no torch."""
    with shipped_path(name).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")  # the format of safetensors
        description = json.loads(file.read(length))["__metadata__"]["cyclestyle"]
    return list(json.loads(description)["settings"].get("style_names") or [])


def shipped_name(path: Path) -> str | None:
    """Return the name of the model of the package that a file is; None for any other file."""
    return path.stem if path.parent == FOLDER and path.stem in SHIPPED else None
