"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015) as feature extractors, and encoders of the same shape."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError

VGGName = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]

CONVOLUTIONS: dict[VGGName, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks."""
WIDTHS = (64, 128, 256, 512, 512)
"""Channels of each block."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]


class VGG(nn.Module):
    """The part of a VGG that reaches the deepest of `layers`; returns those layers' activations.

    Layers are named `relu{block}_{convolution}`, as `relu4_2`. Colours are brought to what the weights expect by a
    1×1 convolution, `colours`, which takes RGB in [0, 1].

    Shape: `(N, 3, H, W)` in [-1, 1] → `{layer: (N, C, H / stride, W / stride)}`, the stride doubling with each
    block and sizes rounded down; H and W at least `min_size`.

    Args:
        layers: the names asked for.
        name: `vgg16` or `vgg19`.
        pooling: `max` (the networks' own) or `average` (Gatys et al. 2016, section 2).
        padding: `zeros` (torchvision's weights) or `reflect` (the normalised weights).
        widths: channels of each block, where they are not a VGG's.

    Attributes:
        normalised: whether the weights already give every filter a mean activation of 1.

    Raises:
        ValueError: a layer, the name or the pooling is unknown.
    """

    def __init__(
        self,
        layers: Iterable[str],
        *,
        name: VGGName = "vgg19",
        pooling: Pooling = "max",
        padding: Literal["zeros", "reflect"] = "zeros",
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        if name not in CONVOLUTIONS:
            raise ValueError(f"network must be vgg16 or vgg19, got {name!r}")
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be max or average, got {pooling!r}")
        self.layers = tuple(dict.fromkeys(layers))
        self.name, self.pooling, self.normalised = name, pooling, False
        self.names = _names_until(self.layers, name)
        self.colours = nn.Conv2d(3, 3, 1)
        self.widths = tuple(widths)
        channels = [3, *(self.channels(layer) for layer in self.names)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding) for inputs, outputs in pairwise(channels)
        )
        self.min_size = 2 * stride(self.names[-1])  # reflection needs two pixels on the deepest level

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of every layer asked for."""
        return dict(self.activations(images))

    def activations(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield every layer asked for and its activations as soon as they are computed.

        Of losses that are computed at once the backward pass takes each when its layer's turn has come; of losses
        that are computed at the end it begins with all, and holds the gradients of all layers together.
        """
        features = self.colours((images + 1) / 2)
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and _block(name) > 1:
                features = self._pool(features)
            features = F.relu(convolution(features))
            if name in self.layers:
                yield name, features

    @torch.no_grad()
    def calibrate(self, images: Sequence[Tensor]) -> None:
        """Scale each layer so that its mean activation over images `(1, 3, H, W)` is 1.

        The normalised weights have this for every filter over ImageNet (Gatys et al. 2016, section 2); weights of
        losses that were found on those then mean about the same for any other network.
        """
        means = dict.fromkeys(self.layers, 0.0)
        for image in images:
            for name, features in self.activations(image.to(self.colours.weight)):
                means[name] += float(features.mean()) / len(images)
        before = 1.0
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            scale = 1 / means[name] if means.get(name, 0.0) > 0 else 1.0
            # Activations are rectified, so that a layer's scale can be taken off by the next one's weights.
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            convolution.weight.mul_(scale / before)
            convolution.bias.mul_(scale)
            before = scale

    def _pool(self, features: Tensor) -> Tensor:
        return F.max_pool2d(features, 2) if self.pooling == "max" else F.avg_pool2d(features, 2)

    @property
    def reach(self) -> int:
        """Pixels to each side, rounded up, that an activation of the deepest layer depends on."""
        convolutions = sum(stride(name) for name in self.names)
        pools = sum(stride(name) // 2 for name in self.names if name.endswith("_1"))
        return convolutions + pools

    def channels(self, layer: str) -> int:
        """Number of channels of a layer."""
        return self.widths[_block(layer) - 1]


def build_vgg(
    layers: Iterable[str], weights: Mapping[str, Tensor], *, name: VGGName = "vgg19", pooling: Pooling = "max"
) -> VGG:
    """Build a VGG, frozen and in evaluation mode, from weights in torchvision's layout or of the normalised VGG-19.

    Weights, and therefore activations, are in the memory format channels_last, in which it is faster.

    Args:
        layers: the names asked for.
        weights: torchvision's `features.0.weight`, …; or `0.weight` (a 1×1 convolution of the colours),
            `2.weight`, `5.weight`, …, whose convolutions are padded by reflection.
        name: `vgg16` or `vgg19`.
        pooling: `max` or `average`.

    Raises:
        CheckpointError: the weights are another network's, or end before a layer that is asked for.
        ValueError: a layer is unknown.
    """
    if any(key.endswith("running_mean") for key in weights):
        raise CheckpointError(f"holds a network with batch norm; expected a plain {name}")
    tensors = _in_order(weights)
    normalised = bool(tensors) and tensors[0][0].shape == (3, 3, 1, 1)
    network = VGG(layers, name=name, pooling=pooling, padding="reflect" if normalised else "zeros")
    colours = tensors.pop(0) if normalised else _standardisation()
    everything = _names_until([f"relu5_{CONVOLUTIONS[name][-1]}"], name)
    shapes = [(WIDTHS[_block(layer) - 1], 0 if n == 0 else WIDTHS[_block(everything[n - 1]) - 1])
              for n, layer in enumerate(everything)]  # fmt: skip
    found = [(weight.shape[0], weight.shape[1] if n else 0) for n, (weight, _) in enumerate(tensors)]
    if not found or found != shapes[: len(found)]:
        raise CheckpointError(f"holds no {name}: expected torchvision's {name}, or the normalised VGG-19")
    for layer in network.layers:
        if everything.index(layer) >= len(found):
            raise CheckpointError(f"ends at {everything[len(found) - 1]} and does not reach the layer {layer}")
    for module, (weight, bias) in zip([network.colours, *network.convolutions], [colours, *tensors], strict=False):
        module.load_state_dict({"weight": weight, "bias": bias})
    network.normalised = normalised
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def random_weights(name: VGGName = "vgg19", seed: int = 0) -> dict[str, Tensor]:
    """Draw weights that keep the variance of activations (He et al. 2015, eq. 10), in torchvision's layout."""
    generator = torch.Generator().manual_seed(seed)
    names = _names_until([f"relu5_{CONVOLUTIONS[name][-1]}"], name)
    weights: dict[str, Tensor] = {}
    inputs = 3
    for index, layer in enumerate(names):
        outputs = WIDTHS[_block(layer) - 1]
        drawn = torch.randn(outputs, inputs, 3, 3, generator=generator)
        weights[f"features.{index}.weight"] = drawn * (2 / (9 * inputs)) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return weights


def stride(layer: str) -> int:
    """Pixels between two neighbouring activations of a layer."""
    return 1 << (_block(layer) - 1)


def _block(layer: str) -> int:
    return int(layer[4])


def _names_until(layers: Sequence[str], name: VGGName) -> list[str]:
    """All layers up to the deepest of `layers`."""
    known = [f"relu{block}_{n}" for block, count in enumerate(CONVOLUTIONS[name], 1) for n in range(1, count + 1)]
    for layer in layers:
        if layer not in known:
            raise ValueError(f"{name} has no layer {layer!r}; its layers are {known[0]} to {known[-1]}")
    return known[: max(known.index(layer) for layer in layers) + 1] if layers else known[:1]


def _in_order(weights: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the convolutions in the order of their numbers; a classifier's are left out."""
    numbered = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"(?:features\.)?(\d+)\.weight", key):
            numbered[int(match[1])] = (value.float(), weights.get(key.removesuffix("weight") + "bias"))
    return [(w, b.float()) for _, (w, b) in sorted(numbered.items()) if b is not None and w.ndim == 4]


def _standardisation() -> tuple[Tensor, Tensor]:
    """ImageNet's standardisation of RGB in [0, 1] as a 1×1 convolution."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    return torch.diag(1 / deviation)[:, :, None, None], -mean / deviation
