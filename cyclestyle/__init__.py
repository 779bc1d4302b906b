"""Unpaired image-to-image translation: photos to paintings, and back, from two folders of unrelated images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclestyle.translator import Translator

__version__ = "0.1.0"
__all__ = ["Translator", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `cyclestyle --help` need not wait for torch.
    if name == "Translator":
        from cyclestyle.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
