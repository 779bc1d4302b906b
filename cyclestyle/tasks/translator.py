"""Translates images of any size from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cyclestyle import images
from cyclestyle.data.folders import find_images
from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.finishing import Finishing
from cyclestyle.networks.streaming import Statistics
from cyclestyle.tasks import hub
from cyclestyle.tasks.base import Direction, Task, task_name
from cyclestyle.tasks.large import LargeImages
from cyclestyle.tasks.load import Averaging, load
from cyclestyle.tasks.speed import SpeedName, Tuning, choose, hardware_for, set_tf32
from cyclestyle.weights.located import located
from cyclestyle.weights.shipped import SHIPPED, shipped_name

Style = str | Path | Image.Image
"""A style image, or the path of one."""

Array = NDArray[Any]


class Translator(nn.Module):
    """A trained method that takes images of any size and returns them in the same size.

    ```python
    translate = Translator.load("runs/monet2photo/checkpoints/last.ckpt", direction="BtoA")
    painting = translate("photo.jpg")
    translate.save(painting, "painting.jpg")
    ```

    Args:
        task: the method.
        direction: `AtoB` or `BtoA`; methods with one direction ignore it.
        device: where to translate, such as `cuda` or `cpu`; None: where the task is.

    Raises:
        ValueError: `direction` is neither `AtoB` nor `BtoA`.
    """

    def __init__(self, task: Task, *, direction: Direction = "AtoB", device: str | torch.device | None = None) -> None:
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be AtoB or BtoA, got {direction!r}")
        self.task = task.eval().requires_grad_(False)
        self.task.direction = direction
        self.checkpoint: Path | None = None
        if device is not None:
            task.to(device)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        direction: Direction = "AtoB",
        averaging: Averaging = "auto",
        style: Style | Sequence[Style] = (),
        style_weights: Sequence[float] | None = None,
        strength: float | None = None,
        preserve_color: bool = False,
        work_size: int | None = None,
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        scratch: str | Path | None = None,
        statistics: Statistics = "exact",
        speed: SpeedName = "auto",
        **changes: Any,
    ) -> "Translator":
        """Build a translator from a checkpoint or a file of another program; see `cyclestyle.tasks.load`.

        Args:
            path: the file.
            direction: `AtoB` or `BtoA`.
            averaging: `ema`, `raw`, or `auto` for the averaged weights where there are any.
            style: style images or folders of them, for methods that take their style from images; names such as
                `wave`, or `wave:0.7`, for those that have learnt several.
            style_weights: how the styles are mixed, one number each.
            strength: share of the translation, in [0, 1]; see `finish_as`.
            preserve_color: keep the colours of the photo.
            work_size: longest side at which images are translated; see `finish_as`.
            device: where to translate, such as `cuda`; None: on the CPU.
            memory: bytes for the activations of an image, or a text such as `4GB`; see `LargeImages`.
            scratch: folder for what does not fit into memory; None: the system's folder for temporary files.
            statistics: `exact` or `reduced`; see `LargeImages`.
            speed: `exact` changes no number; `auto` takes what is faster on the device with results that are as good.
            changes: constructor arguments of the task that replace those of the checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
            CycleStyleError: the method needs styles, or takes none.
            ImageError: a style is not an image.
            ValueError: a value is out of its range.
        """
        large_images = LargeImages(memory=memory, scratch=scratch, statistics=statistics)
        path = located(path)
        task = load(path, averaging=averaging, **changes)
        task.large_images = large_images
        finish_as(task, path, strength=strength, preserve_color=preserve_color, work_size=work_size)
        use_styles(task, [style] if isinstance(style, str | Path | Image.Image) else list(style), style_weights)
        translator = cls(task, direction=direction, device=device)
        translator.choose_speed(speed)
        translator.checkpoint = Path(path)
        return translator

    def choose_speed(self, speed: SpeedName = "auto") -> None:
        """Choose what makes translating faster on the device where the task is, once.

        Args:
            speed: `exact` changes nothing; `auto` takes what is faster with results that are as good.
        """
        hardware = hardware_for(speed, self.task.device.type)
        fast = "translating" in self.task.in_bfloat16
        choice = choose(speed, Tuning(), hardware, bfloat16=fast, training=False)
        self.task.tune(choice.tuning, training=False)
        set_tf32(choice.tuning, hardware.kind)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None, **options: Any
    ) -> "Translator":
        """Build a translator from a folder of `save_pretrained`, or from a repository of the Hugging Face Hub.

        A repository is downloaded once. `HF_HUB_OFFLINE=1` uses what has been downloaded.

        Args:
            name: the folder, or a repository such as `user/name`.
            revision: branch, tag or commit of the repository.
            token: for private repositories; None: the one that `hf auth login` has stored.
            options: those of `load`, such as `device`; the direction is by default the one that was saved.

        Raises:
            CheckpointError: the folder has no translator, or the repository cannot be reached.
            CycleStyleError: huggingface_hub or safetensors is not installed.
        """
        folder = hub.folder_of(name, revision=revision, token=token)
        return cls.load(folder, **{"direction": hub.saved_direction(folder), **options})

    def save_pretrained(self, folder: str | Path, *, licence: str = "not stated") -> None:
        """Write the weights, a config and a model card into a folder.

        Args:
            folder: it is created if it does not exist.
            licence: of the weights.

        Raises:
            CheckpointError: this is an exported file, whose weights cannot be taken out.
            CycleStyleError: safetensors is not installed, or the folder cannot be written.
        """
        hub.save(self, Path(folder), licence=licence)

    def push_to_hub(self, repository: str, *, licence: str = "not stated", **options: Any) -> str:
        """Upload what `save_pretrained` writes to a repository of the Hugging Face Hub, which is created if need be.

        Args:
            repository: such as `user/name`.
            licence: of the weights.
            options: those of `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private` and `token`.

        Returns:
            The address of the commit.

        Raises:
            CycleStyleError: huggingface_hub or safetensors is not installed.
        """
        return hub.push(self, repository, licence=licence, **options)

    def __repr__(self) -> str:
        """Return the method, the direction, the checkpoint, the device and the size, a line each."""
        task = self.task
        networks = [task.get_submodule(name) for name in task.averaged_modules()]
        parameters = sum(value.numel() for network in networks for value in network.parameters())
        lines = {
            "method": task_name(type(task)),
            "direction": f"{task.direction} of {', '.join(task.directions)}" if len(task.directions) > 1 else None,
            "checkpoint": self.checkpoint,
            "device": task.device,
            "parameters": f"{parameters:,}" if parameters else None,
            "work size": task.finishing.work_size,
        }
        shown = "\n".join(f"  {name}: {value}" for name, value in lines.items() if value is not None)
        return f"Translator\n{shown}"

    @property
    def in_channels(self) -> int:
        """Channels of the images that `translate` takes."""
        return self.task.in_channels(self.task.direction)

    @overload
    def forward(self, image: str | Path | Image.Image) -> Image.Image: ...
    @overload
    def forward(self, image: Tensor) -> Tensor: ...
    @overload
    def forward(self, image: Array) -> Array: ...
    @overload
    def forward(self, image: Sequence[Any]) -> list[Any]: ...

    def forward(self, image: Any) -> Any:
        """Translate an image, or each of a list of images, and return the same kind as was given.

        | given | taken as | returned |
        |---|---|---|
        | a path | the first image of a file | a PIL image |
        | a PIL image | any mode; turned by its EXIF orientation, in the colours of its profile | a PIL image |
        | a NumPy array | `(H, W)` or `(H, W, C)`; uint8, uint16, or floating point in [0, 1] | an array `(H, W, C)` |
        | a tensor | `(C, H, W)` or `(N, C, H, W)`; floating point in [-1, 1], or uint8 | a tensor of this kind |

        C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). Alpha is given back. The `info` of a PIL image has the
        EXIF tags, the profile and the resolution of its source, which `save` writes.

        Raises:
            ImageError: a file is not an image.
            TypeError: the image is of another kind.
            ValueError: an array or a tensor has another shape or type.
        """
        if isinstance(image, str | Path):
            return self._translate_file(Path(image))
        if isinstance(image, Image.Image):
            pixels, source = images.take_apart(image, self.in_channels, levels=True)
            return images.to_pil(self._translate_one(pixels), source)
        if isinstance(image, np.ndarray):
            return self._translate_array(image)
        if isinstance(image, Tensor):
            return self._translate_tensor(image)
        if isinstance(image, Sequence):
            return [self(one) for one in image]
        raise TypeError(
            f"an image must be a path, a PIL image, a NumPy array, a tensor or a list of these, got {type(image)}"
        )

    @torch.inference_mode()
    def translate(self, batch: Tensor) -> Tensor:
        """Translate `(N, in_channels, H, W)` to `(N, out_channels, H, W)`, for any H and W.

        Both are in [-1, 1], or both in levels of 0 to 255 in uint8, and both on the same device, which need not be
        that of the task.

        Raises:
            ImageError: memory or scratch disk are too small.
        """
        return self.task.translate_any_size(batch)

    @staticmethod
    def save(image: Image.Image, path: str | Path, *, quality: int | None = None) -> None:
        """Write a translated image atomically, with the EXIF tags, profile, resolution and alpha of its source.

        Args:
            image: what the translator has returned for a path or a PIL image.
            path: the file. Its ending gives the format, which has to hold what is to be kept.
            quality: 1 to 100 for a lossy format; None: 95, and 90 for AVIF and HEIC.

        Raises:
            CycleStyleError: images are not written with this ending.
            ImageError: the file cannot be written.
        """
        images.write_image(image, Path(path), quality=quality)

    def _translate_file(self, path: Path) -> Image.Image:
        file = images.ImageFile(path)
        try:
            pixels, source = file.read(0, self.in_channels, levels=True)
        finally:
            file.close()
        return images.to_pil(self._translate_one(pixels), source)

    def _translate_one(self, pixels: Tensor) -> Tensor:
        """Translate `(C, H, W)`."""
        return self.translate(pixels[None])[0]

    def _translate_array(self, array: Array) -> Array:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in images.MODES):
            raise ValueError(f"an array must be (H, W) or (H, W, C) with 1 to 4 channels, got {array.shape}")
        if not array.size:
            raise ValueError(f"an array must have pixels, got {array.shape}")
        if array.dtype not in (np.uint8, np.uint16) and not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"an array must be uint8, uint16 or floating point in [0, 1], got {array.dtype}")
        highest = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
        scaled = np.atleast_3d(array).astype(np.float32).transpose(2, 0, 1) / (highest / 2) - 1
        result = self._with_alpha(torch.from_numpy(scaled))
        levels = ((result.permute(1, 2, 0).numpy() + 1) * (highest / 2)).clip(0, highest)
        return (np.rint(levels) if array.dtype.kind == "u" else levels).astype(array.dtype)

    def _translate_tensor(self, tensor: Tensor) -> Tensor:
        if not tensor.numel():
            raise ValueError(f"a tensor must have pixels, got {tuple(tensor.shape)}")
        if tensor.ndim == 4:
            return torch.stack([self._translate_tensor(one) for one in tensor])
        if tensor.ndim != 3 or tensor.shape[0] not in images.MODES:
            raise ValueError(
                f"a tensor must be (C, H, W) or (N, C, H, W) with 1 to 4 channels, got {tuple(tensor.shape)}"
            )
        if tensor.dtype == torch.uint8:
            result = self._with_alpha(tensor.float() / 127.5 - 1)
            return result.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        if not tensor.is_floating_point():
            raise ValueError(f"a tensor must be floating point in [-1, 1] or uint8, got {tensor.dtype}")
        return self._with_alpha(tensor.float()).to(tensor.dtype)

    def _with_alpha(self, pixels: Tensor) -> Tensor:
        """Translate `(C, H, W)` in [-1, 1] with 1 to 4 channels, and give its alpha back."""
        colours, alpha = images.split_alpha(pixels)
        result = self._translate_one(images.with_channels(colours, alpha, self.in_channels))
        own_alpha = result.shape[0] in (2, 4)
        return result if alpha is None or own_alpha else torch.cat([result, alpha])


def use_styles(task: Task, styles: Sequence[Style], weights: Sequence[float] | None = None) -> int:
    """Give a task its styles, as users name them, and return how many they are.

    Args:
        task: the task.
        styles: images, their paths, or folders of them; or, for a task with `style_names`, names and mixtures such as
            `wave:0.3,starry_night:0.7`. A task that has learnt several takes its first style by default.
        weights: how the styles are mixed, one number each.

    Raises:
        CycleStyleError: the task takes no styles, a name is unknown, or the weights do not fit.
        ImageError: a style is not an image.
    """
    if not task.style_names:
        pictures = [image for one in styles for image in read_styles(one)] if task.takes_styles else styles
        if pictures or task.takes_styles:
            task.use_styles(pictures, weights)
        return len(pictures)
    words = [word.strip() for one in styles for word in str(one).split(",") if word.strip()]
    names, shares = [], []
    for word in words or task.style_names[:1]:
        name, _, share = word.partition(":")
        names.append(name)
        if share:
            try:
                shares.append(float(share))
            except ValueError as error:
                raise CycleStyleError(f"{word} must be a style and its share, such as {name}:0.7") from error
    if shares and (weights is not None or len(shares) != len(names)):
        raise CycleStyleError(f"give each style of {','.join(words)} a share, or none of them, and no style_weights")
    task.use_styles(names, weights or shares or None)
    return len(names)


def finish_as(
    task: Task,
    checkpoint: Path | None,
    *,
    strength: float | None = None,
    preserve_color: bool = False,
    work_size: int | None = None,
) -> None:
    """Set how much of a translation is shown, and the size at which it is made.

    Args:
        task: the task.
        checkpoint: the file that it was loaded from, if any; models of the package have a `work_size` of their own.
        strength: share of the translation, in [0, 1]; the rest is the photo, unless the method has a strength itself.
            None: what the method does.
        preserve_color: keep the colours of the photo, and take the luminance alone of the translation.
        work_size: longest side in pixels; 0: the size of the image; None: that of the model of the package, or 0.

    Raises:
        ValueError: a value is out of its range, or the images of the task have no colours to keep.
    """
    if preserve_color and task.in_channels(task.direction) != 3:
        raise ValueError("preserve_color is for colour images; leave it out")
    if work_size is None:
        shipped = None if checkpoint is None else shipped_name(checkpoint)
        work_size = SHIPPED[shipped].work_size if shipped else 0
    mixed = 1.0 if strength is None or task.strength is not None else strength
    task.finishing = Finishing(work_size=work_size or None, strength=mixed, preserve_color=preserve_color)
    if strength is not None and task.strength is not None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {strength}")
        task.strength = strength


def read_styles(style: Style) -> list[Tensor]:
    """Return a style image, or all of a folder, `(3, H, W)` in [-1, 1].

    Raises:
        ImageError: one is not an image.
    """
    if isinstance(style, Image.Image):
        return [images.to_tensor(images.convert(style))]
    paths = find_images(Path(style)) if Path(style).is_dir() else [Path(style)]
    return [images.to_tensor(images.read_image(path)) for path in paths]
