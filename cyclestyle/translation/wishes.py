"""What users ask of a method: its styles by name or image, and how much of a translation is shown."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from cyclestyle import images
from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.finishing import Finishing
from cyclestyle.images.folders import find_images
from cyclestyle.networks.method import Method
from cyclestyle.translation.engine import Engine
from cyclestyle.weights.shipped import SHIPPED, shipped_name

Style = str | Path | Image.Image
"""A style image, or the path of one."""


def use_styles(method: Method, styles: Sequence[Style], weights: Sequence[float] | None = None) -> int:
    """Give a method its styles, as users name them, and return how many they are.

    Args:
        method: the method.
        styles: images, their paths, or folders of them; or, for one with `style_names`, names and mixtures such as
            `wave:0.3,starry_night:0.7`. A method that has learnt several takes its first style by default.
        weights: how the styles are mixed, one number each.

    Raises:
        CycleStyleError: the method takes no styles, a name is unknown, or the weights do not fit.
        ImageError: a style is not an image.
    """
    if not method.style_names:
        pictures = [image for one in styles for image in read_styles(one)] if method.takes_styles else styles
        if pictures or method.takes_styles:
            method.use_styles(pictures, weights)
        return len(pictures)
    words = [word.strip() for one in styles for word in str(one).split(",") if word.strip()]
    names, shares = [], []
    for word in words or method.style_names[:1]:
        name, _, share = word.partition(":")
        names.append(name)
        if name in SHIPPED and name not in method.style_names:
            raise CycleStyleError(f"{name} is a model of its own, and no style; use --ckpt_path {name}")
        if share:
            try:
                shares.append(float(share))
            except ValueError as error:
                raise CycleStyleError(f"{word} must be a style and its share, such as {name}:0.7") from error
    if shares and (weights is not None or len(shares) != len(names)):
        raise CycleStyleError(f"give each style of {','.join(words)} a share, or none of them, and no style_weights")
    method.use_styles(names, weights or shares or None)
    return len(names)


def finish_as(
    engine: Engine,
    checkpoint: Path | None,
    *,
    strength: float | None = None,
    preserve_color: bool = False,
    work_size: int | None = None,
) -> None:
    """Set how much of a translation is shown, and the size at which it is made.

    Args:
        engine: the method, and how it is used.
        checkpoint: the file that it was loaded from, if any; models of the package have a `work_size` of their own.
        strength: share of the translation, in [0, 1]; the rest is the photo, unless the method has a strength itself.
            None: what the method does.
        preserve_color: keep the colours of the photo, and take the luminance alone of the translation.
        work_size: longest side in pixels; 0: the size of the image; None: that of the model of the package, or 0.

    Raises:
        ValueError: a value is out of its range, or its images have no colours to keep.
    """
    if preserve_color and engine.in_channels != 3:
        raise ValueError("preserve_color is for colour images; leave it out")
    if work_size is None:
        shipped = None if checkpoint is None else shipped_name(checkpoint)
        work_size = SHIPPED[shipped].work_size if shipped else 0
    mixed = 1.0 if strength is None or engine.method.strength is not None else strength
    engine.finishing = Finishing(work_size=work_size or None, strength=mixed, preserve_color=preserve_color)
    if strength is not None and engine.method.strength is not None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {strength}")
        engine.method.strength = strength


def read_styles(style: Style) -> list[Tensor]:
    """Return a style image, or all of a folder, `(3, H, W)` in [-1, 1].

    Raises:
        ImageError: one is not an image.
    """
    if isinstance(style, Image.Image):
        return [images.to_tensor(images.convert(style))]
    paths = find_images(Path(style)) if Path(style).is_dir() else [Path(style)]
    return [images.to_tensor(images.read_image(path)) for path in paths]
