"""Methods that translate and cannot be trained: generators alone, networks of many styles, and exported files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.networks import build_generator
from cyclestyle.networks.calls import call_at_any_size, pad_to_multiple
from cyclestyle.networks.generators import GeneratorName
from cyclestyle.networks.method import DOMAINS, Direction, Method, stored_ranges
from cyclestyle.networks.normalisation import NormName
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.networks.styles import Mixture, shares_of, with_shares
from cyclestyle.networks.transform import TransformNetwork
from cyclestyle.scratch import available_memory, format_bytes
from cyclestyle.weights.exported import Runtime, open_exported

GENERATOR_SETTINGS = ("depth", "ngf", "dropout", "resample", "norm", "residual", "comb_filter")
"""Arguments of `build_generator` that tasks have under the same name."""


class Generators(Method):
    """The generators of a task, without what trains them.

    Args:
        task: name of the task.
        settings: its constructor arguments.
        networks: the submodule that translates in each direction.
    """

    in_bfloat16 = ("translating",)

    def __init__(self, task: str, settings: Mapping[str, Any], networks: Mapping[Direction, str]) -> None:
        super().__init__()
        self._name, self._settings = task, dict(settings)
        self.directions, self.submodules = tuple(networks), dict(networks)
        channels = {"A": settings.get("channels_A", 3), "B": settings.get("channels_B", 3)}
        self.ranges = stored_ranges(settings.get("ranges"))
        self.channels: dict[Direction, int] = {one: int(channels[DOMAINS[one][0]]) for one in DOMAINS}
        options = {key: settings[key] for key in GENERATOR_SETTINGS if key in settings}
        for direction, name in networks.items():
            source, target = DOMAINS[direction]
            network = build_generator(
                settings["generator"], in_channels=channels[source], out_channels=channels[target], **options
            )
            self.add_module(name, network)

    def network(self, direction: Direction) -> nn.Module:
        """Return the generator of a direction; where there is one, it has this direction."""
        return self.get_submodule(self.submodules.get(direction, next(iter(self.submodules.values()))))

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width."""
        return call_at_any_size(self.network(direction), images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the generator of a direction."""
        return OnePass.of(self.network(direction), self.in_channels(direction))

    def in_channels(self, direction: Direction) -> int:
        """Return the channels that the generator of a direction takes."""
        return self.channels[direction if direction in self.submodules else next(iter(self.submodules))]

    @property
    def name(self) -> str:
        """The name of the task."""
        return self._name

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments of the task."""
        return self._settings


class GeneratorOnly(Generators):
    """A trained generator on its own, such as a generator file of an original implementation.

    It translates in the one direction that it was trained for.

    Args:
        generator: `resnet9`, `resnet6`, `unet256` or `unet128`.
        depth: residual blocks of a ResNet or levels of a U-Net.
        in_channels: channels of the images that it takes.
        out_channels: channels of the images that it returns.
        ngf: filters of the first layer.
        dropout: whether its blocks have dropout, which changes the names of the weights.
        resample: `transpose`, `resize` or `blur`.
        residual: above 0, the generators learn the change of an image instead of the result, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from translations.
        norm: `instance`; or `none`, for weights into which norms have been folded.

    Raises:
        ValueError: an argument is unknown or out of its range.
    """

    def __init__(
        self,
        *,
        generator: GeneratorName = "resnet9",
        depth: int | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        dropout: bool = False,
        resample: ResampleName = "transpose",
        residual: float | bool = 0.0,
        comb_filter: bool = False,
        norm: NormName = "instance",
    ) -> None:
        settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        domains = {**settings, "channels_A": in_channels, "channels_B": out_channels}
        super().__init__("GeneratorOnly", domains, {"AtoB": "generator"})
        self._settings, self.directions = settings, ()


class ManyStyles(Method):
    """The network of `Johnson` with `conditional`, without what trains it.

    Args:
        settings: constructor arguments of `Johnson`; `output` is named.
    """

    in_bfloat16 = ("translating",)
    takes_masks = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._settings = dict(settings)
        self.style_names = tuple(settings["style_names"])
        self.transform = TransformNetwork(
            upsample=settings.get("upsample", "resize"),
            output=settings["output"],
            width=settings.get("width", 32),
            styles=len(self.style_names),
        )
        self.mixture: Mixture = Mixture.of(self.style_names[:1], self.style_names)

    def use_styles(self, styles: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        """Translate with a style, or with a mixture of several; see `Mixture`."""
        self.mixture = Mixture.of(styles, self.style_names, weights)

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Paint photos of any size; there is one direction."""
        return self.mixture.paint(self.transform, images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the network, which takes the shares of the styles as its second input."""
        return with_shares(self.transform, self.style_names)

    @property
    def name(self) -> str:
        """The name of the task that trained it."""
        return "Johnson"

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments of the task."""
        return self._settings


class Exported(Method):
    """Translates with a file that `cyclestyle export` has written: ONNX or OpenVINO.

    The image is translated as a whole: other runtimes cannot be streamed.

    Args:
        file: its path.
        runtime: the open file; None: it is opened.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by cyclestyle.
        CycleStyleError: the program that runs it is not installed.
    """

    one_pass = False

    def __init__(self, *, file: str, runtime: Runtime | None = None) -> None:
        super().__init__()
        self.file, self.runtime = Path(file), runtime or open_exported(Path(file))
        self.description = self.runtime.description
        self.takes_styles, self.style_names = self.description.takes_style, self.description.styles
        self.ranges = stored_ranges(self.description.settings.get("ranges"))
        # There is one direction, which may be named, as with the checkpoint.
        self.directions = ("BtoA",) if self.description.directions[0] == "BtoA" else ("AtoB",)
        self.style: Tensor | None = None
        self.shares = torch.eye(len(self.style_names))[:1] if self.style_names else None  # of the styles

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width; there is one direction.

        Raises:
            ImageError: they are not of the size that the file takes, or do not fit into memory.
        """
        height, width = images.shape[-2:]
        self._check_fits(width, height)
        if self.style_names:
            style = None if self.shares is None else self.shares.to(images.device)
        else:
            style = None if self.style is None else self._padded(self.style.to(images)[None])
        return self._run(self._padded(images), style)[..., :height, :width]

    def use_styles(self, styles: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        """Take the style from an image, or from names of styles that the network has learnt.

        Raises:
            CycleStyleError: the network takes no style, not exactly one image is given, or a name is unknown.
        """
        if self.style_names:
            self.shares = shares_of(styles, self.style_names, weights)
            return
        if not self.takes_styles:
            super().use_styles(styles, weights)
        if len(styles) != 1:
            raise CycleStyleError(f"{self.file} takes one style image, got {len(styles)}; name one with --style")
        self.style = styles[0]

    def exported(self, direction: Direction) -> OnePass:
        """Refuse: it is exported already.

        Raises:
            CycleStyleError: always.
        """
        raise CycleStyleError(f"{self.name} cannot be exported")

    def in_channels(self, direction: Direction) -> int:
        """Return the channels that the network takes."""
        return self.description.in_channels

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor argument."""
        return {"file": str(self.file)}

    def _check_fits(self, width: int, height: int) -> None:
        shape, least, multiple = self.description.shape, self.description.min_size, self.description.multiple
        padded = [max(-(-side // multiple) * multiple, least) for side in (height, width)]
        if shape and padded != list(shape[1:]):
            raise ImageError(
                f"an image of {width}×{height} is not of the size that {self.file.name} was exported for, "
                f"{shape[2]}×{shape[1]}; crop or resize it, or export without --shape"
            )
        needed, free = width * height * self.description.bytes_per_pixel, available_memory()
        if needed > free:
            raise ImageError(
                f"an image of {width}×{height} needs about {format_bytes(needed)} with {self.file.name}, but "
                f"{format_bytes(free)} are free; translate it with the checkpoint, which streams it"
            )

    def _run(self, images: Tensor, style: Tensor | None) -> Tensor:
        """Run the network, in parts of its number of images, filled up with zeros, where that is fixed."""
        shape = self.description.shape
        if shape is None:
            return self.runtime(images, style)
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % shape[0]))
        return torch.cat([self.runtime(part, style) for part in torch.split(filled, shape[0])])[: len(images)]

    def _padded(self, images: Tensor) -> Tensor:
        return pad_to_multiple(images, self.description.multiple, self.description.min_size)
