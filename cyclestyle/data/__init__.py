"""Images from folders: datasets, sampler, datamodules, and the procedural sample domains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclestyle.data.datamodule import UnpairedImages
    from cyclestyle.data.photos import Photos

__all__ = ["Photos", "UnpairedImages"]


def __getattr__(name: str) -> Any:
    """Import a datamodule when it is asked for: the sample domains need no Lightning, which takes seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'photos' if name == 'Photos' else 'datamodule'}"), name)
