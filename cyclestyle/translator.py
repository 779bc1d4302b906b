"""Translates images of any size from Python."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cyclestyle import images
from cyclestyle.networks.method import Direction, Method
from cyclestyle.networks.streaming import Statistics
from cyclestyle.speed.choice import SpeedName, Tuning, choose, hardware_for, set_tf32
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.large import LargeImages
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.reading import Ranges
from cyclestyle.translation.wishes import Style, finish_as, use_styles
from cyclestyle.weights.contents import Averaging
from cyclestyle.weights.resolve import resolve_checkpoint, saved_direction

Array = NDArray[Any]


class Translator(nn.Module):
    """A trained method that takes images of any size and returns them in the same size.

    ```python
    translate = Translator.load("runs/monet2photo/checkpoints/last.ckpt", direction="BtoA")
    painting = translate("photo.jpg")
    translate.save(painting, "painting.jpg")
    ```

    Args:
        method: what translates, such as a `Task` after its training.
        direction: `AtoB` or `BtoA`; methods with one direction ignore it.
        device: where to translate, such as `cuda` or `cpu`; None: where the method is.

    Attributes:
        method: what translates.
        engine: the direction, and how the method is used.
        checkpoint: where the weights are from, if they were loaded.

    Raises:
        ValueError: `direction` is neither `AtoB` nor `BtoA`.
    """

    def __init__(
        self, method: Method, *, direction: Direction = "AtoB", device: str | torch.device | None = None
    ) -> None:
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be AtoB or BtoA, got {direction!r}")
        self.method = method
        self.engine = Engine(method, direction=direction, device=device)
        self.checkpoint: Path | None = None

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
        """Build a translator from a checkpoint or a file of another program; see `open_method`.

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
            changes: constructor arguments of the method that replace those of the checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
            CycleStyleError: the method needs styles, or takes none.
            ImageError: a style is not an image.
            ValueError: a value is out of its range.
        """
        large_images = LargeImages(memory=memory, scratch=scratch, statistics=statistics)
        path = resolve_checkpoint(path)
        method = open_method(path, averaging=averaging, **changes)
        translator = cls(method, direction=direction, device=device)
        translator.engine.large_images = large_images
        finish_as(translator.engine, path, strength=strength, preserve_color=preserve_color, work_size=work_size)
        use_styles(method, [style] if isinstance(style, str | Path | Image.Image) else list(style), style_weights)
        translator.choose_speed(speed)
        translator.checkpoint = Path(path)
        return translator

    def choose_speed(self, speed: SpeedName = "auto") -> None:
        """Choose what makes translating faster on the device where the method is, once.

        Args:
            speed: `exact` changes nothing; `auto` takes what is faster with results that are as good.
        """
        hardware = hardware_for(speed, self.engine.device.type)
        fast = "translating" in self.method.in_bfloat16 and not self.method.ranges  # it has 8 bits of precision
        choice = choose(speed, Tuning(), hardware, bfloat16=fast, training=False)
        self.engine.tune(choice.tuning)
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
        from cyclestyle.sharing import hub  # imports the metrics that model cards name

        folder = hub.folder_of(name, revision=revision, token=token)
        return cls.load(folder, **{"direction": saved_direction(folder), **options})

    def save_pretrained(self, folder: str | Path, *, licence: str = "not stated") -> None:
        """Write the weights, a config and a model card into a folder.

        Args:
            folder: it is created if it does not exist.
            licence: of the weights.

        Raises:
            CheckpointError: this is an exported file, whose weights cannot be taken out.
            CycleStyleError: safetensors is not installed, or the folder cannot be written.
        """
        from cyclestyle.sharing import hub

        hub.save(self.engine, self.checkpoint, Path(folder), licence=licence)

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
        from cyclestyle.sharing import hub

        return hub.push(self.engine, self.checkpoint, repository, licence=licence, **options)

    def __repr__(self) -> str:
        """Return the method, the direction, the checkpoint, the device and the size, a line each."""
        method, engine, ways = self.method, self.engine, self.method.directions
        parameters = sum(value.numel() for value in method.translating_weights().values())
        lines = {
            "method": method.name,
            "direction": f"{engine.direction} of {', '.join(ways)}" if len(ways) > 1 else None,
            "checkpoint": self.checkpoint,
            "device": engine.device,
            "parameters": f"{parameters:,}" if parameters else None,
            "work size": engine.finishing.work_size,
        }
        shown = "\n".join(f"  {name}: {value}" for name, value in lines.items() if value is not None)
        return f"Translator\n{shown}"

    @property
    def in_channels(self) -> int:
        """Channels of the images that `translate` takes."""
        return self.engine.in_channels

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

        A method that translates numbers takes arrays `(H, W, C)` of any type in the units of its domain, and files of
        them, and returns arrays in the units of the other domain; see `Ranges`.

        C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). Alpha is given back. The `info` of a PIL image has the
        EXIF tags, the profile and the resolution of its source, which `save` writes.

        Raises:
            ImageError: a file is not an image.
            TypeError: the image is of another kind.
            ValueError: an array or a tensor has another shape or type.
        """
        if self.engine.ranges != (None, None) and isinstance(image, str | Path | np.ndarray | Image.Image):
            return self._translate_numbers(image)
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

    def translate(self, batch: Tensor) -> Tensor:
        """Translate `(N, in_channels, H, W)` to `(N, out_channels, H, W)`, for any H and W.

        Both are in [-1, 1], or both in levels of 0 to 255 in uint8, and both on the same device, which need not be
        that of the method.

        Raises:
            ImageError: memory or scratch disk are too small.
        """
        return self.engine(batch)

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

    def _translate_numbers(self, image: str | Path | Array | Image.Image) -> Array:
        ranges = Ranges(*self.engine.ranges)
        if isinstance(image, str | Path):
            with closing(images.ImageFile(Path(image), ranges.source, self.in_channels)) as file:
                pixels, source = file.read(0, self.in_channels)
        else:
            array = images.with_bands(np.atleast_3d(np.asarray(image)), self.in_channels)
            images.check_finite(array)
            given = ranges.source or images.ValueRange.of_type(array.dtype)
            pixels, source = given.to_unit(array), images.Source(dtype=str(array.dtype))
        values = ranges.written(source)
        assert values is not None
        return values.range.to_values(self._translate_one(pixels), values.dtype)

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
        if tensor.ndim != 3 or tensor.shape[0] not in (*images.MODES, self.in_channels):
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
        if self.in_channels not in images.MODES:
            return self._translate_one(pixels)
        colours, alpha = images.split_alpha(pixels)
        result = self._translate_one(images.with_channels(colours, alpha, self.in_channels))
        own_alpha = result.shape[0] in (2, 4)
        return result if alpha is None or own_alpha else torch.cat([result, alpha])
