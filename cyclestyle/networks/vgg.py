"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015) as feature extractors and trainable encoders."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError

VGGName = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]

ORIGINAL_MEANS: dict[str, float] = {
    **{"relu1_1": 22.7, "relu1_2": 116.0, "relu2_1": 179.0, "relu2_2": 200.0},
    **{"relu3_1": 239.0, "relu3_2": 261.0, "relu3_3": 168.0, "relu3_4": 168.0},
    **{"relu4_1": 132.0, "relu4_2": 72.4, "relu4_3": 16.8, "relu4_4": 16.8},
    **{"relu5_1": 16.9, "relu5_2": 6.7, "relu5_3": 0.7, "relu5_4": 0.7},
}
"""Mean activations of the VGG-16 of Simonyan & Zisserman on pixels of 0 to 255, measured on 54 paintings and photos.

Those of its VGG-19, which was not measured, are taken to be the same; its fourth layers, those of the third.
"""
CONVOLUTIONS: dict[VGGName, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Number of convolutions in each of the five blocks."""
WIDTHS = (64, 128, 256, 512, 512)
"""Number of channels of each block."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


class VGG(nn.Module):
    """A VGG up to the deepest of `layers`; returns the activations of `layers`.

    Layers are named `relu{block}_{convolution}`, for example `relu4_2`. A 1×1 convolution, `input_transform`, converts
    RGB in [0, 1] to the input that the weights expect.

    Shape: `(N, 3, H, W)` in [-1, 1] → `{layer: (N, C, H / stride, W / stride)}`, rounded down. The stride is 1 in the
    first block and doubles with each block. H and W must be at least `min_size`.

    Args:
        layers: names of the layers to return.
        name: `vgg16` or `vgg19`.
        pooling: `max` (as in the original networks) or `average` (Gatys et al. 2016, section 2).
        padding: `zeros` (for torchvision's weights) or `reflect` (for the normalised weights).
        widths: channels of each block, for an encoder that is not a standard VGG.

    Attributes:
        normalised: whether the weights are already scaled to a mean activation of 1 for every filter.
        min_size: smallest height and width of the input.

    Raises:
        ValueError: a layer, `name` or `pooling` is unknown.
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
        self.names = _layers_up_to(self.layers, name)
        self.input_transform = nn.Conv2d(3, 3, 1)
        self.widths = tuple(widths)
        channels = [3, *(self.channels(layer) for layer in self.names)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode=padding)
            for in_channels, out_channels in pairwise(channels)
        )
        self.min_size = 2 * stride(self.names[-1])  # reflection padding requires two pixels on the deepest level
        self.register_load_state_dict_pre_hook(_rename_input_transform)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of `layers`."""
        return dict(self.activations(images))

    def activations(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each of `layers` with its activations as soon as they are computed.

        Compute the loss of a layer before the next layer is requested: the backward pass then frees the gradient of
        each layer before it reaches the previous one. If all losses are computed after the forward pass, the gradients
        of all layers are in memory at the same time.
        """
        features = self.input_transform((images + 1) / 2).to(self.convolutions[0].weight.dtype)
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and _block(name) > 1:
                features = self._pool(features)
            features = F.relu(convolution(features))
            if name in self.layers:
                yield name, features

    @torch.no_grad()
    def calibrate(self, images: Sequence[Tensor]) -> None:
        """Scale the weights so that the mean activation of each of `layers` over images `(1, 3, H, W)` is 1.

        The normalised weights have this property for every filter over ImageNet (Gatys et al. 2016, section 2), and
        are left as they are.
        """
        if self.normalised:
            return
        means = self._means(images)
        self._rescale({layer: 1 / mean for layer, mean in means.items() if mean > 0})
        self.normalised = True

    @torch.no_grad()
    def scale_as_original(self, images: Sequence[Tensor]) -> None:
        """Scale the weights so that activations are as large as those of Simonyan & Zisserman's network.

        The loss weights of Gatys et al. and of Johnson et al. are for that network on pixels of 0 to 255, whose mean
        activations are `ORIGINAL_MEANS`. Content losses grow with the square of the activations, style losses with
        their fourth power, so that a network with smaller activations needs them scaled, not other loss weights.
        The original network itself is recognised by its first layer, and is left as it is. An encoder of other widths,
        whose layers have no counterpart in the original, gets the same mean in every layer: that of `ORIGINAL_MEANS`.

        Args:
            images: `(1, 3, H, W)`, on which the activations of a network that is not normalised are measured.
        """
        if self.widths != WIDTHS:
            level = sum(ORIGINAL_MEANS.values()) / len(ORIGINAL_MEANS)
            self._rescale({layer: level / mean for layer, mean in self._means(images).items() if mean > 0})
            return
        if self.normalised:
            self._rescale({layer: ORIGINAL_MEANS[layer] for layer in self.layers})
            self.normalised = False
            return
        first = torch.stack([self._first(image).mean() for image in images]).mean()
        if first < ORIGINAL_MEANS["relu1_1"] / 4:
            means = self._means(images)
            self._rescale({layer: ORIGINAL_MEANS[layer] / mean for layer, mean in means.items() if mean > 0})

    def _first(self, image: Tensor) -> Tensor:
        transformed = self.input_transform((image.to(self.input_transform.weight) + 1) / 2)
        return F.relu(self.convolutions[0](transformed))

    def _means(self, images: Sequence[Tensor]) -> dict[str, float]:
        """The mean activation of each of `layers`."""
        means = dict.fromkeys(self.layers, 0.0)
        for image in images:
            for name, features in self.activations(image.to(self.input_transform.weight)):
                means[name] += float(features.mean()) / len(images)
        return means

    def _rescale(self, scales: Mapping[str, float]) -> None:
        """Multiply the activations of layers; the other layers keep theirs."""
        previous_scale = 1.0
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            scale = scales.get(name, 1.0)
            # ReLU commutes with a positive scale, so the weights of the next layer can undo the scale of this one.
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            convolution.weight.mul_(scale / previous_scale)
            convolution.bias.mul_(scale)
            previous_scale = scale

    def _pool(self, features: Tensor) -> Tensor:
        return F.max_pool2d(features, 2) if self.pooling == "max" else F.avg_pool2d(features, 2)

    @property
    def reach(self) -> int:
        """Radius in pixels, rounded up, of the receptive field of the deepest layer."""
        convolutions = sum(stride(name) for name in self.names)
        pools = sum(stride(name) // 2 for name in self.names if name.endswith("_1"))
        return convolutions + pools

    def channels(self, layer: str) -> int:
        """Return the number of channels of a layer."""
        return self.widths[_block(layer) - 1]


def build_vgg(
    layers: Iterable[str], weights: Mapping[str, Tensor], *, name: VGGName = "vgg19", pooling: Pooling = "max"
) -> VGG:
    """Build a frozen VGG in evaluation mode from weights in torchvision's layout or from the normalised VGG-19.

    The weights, and therefore the activations, have the memory format channels_last, which is faster.

    Args:
        layers: names of the layers to return.
        weights: in torchvision's layout, `features.0.weight`, …; or of the normalised VGG-19, `0.weight` (a 1×1
            convolution of the input), `2.weight`, `5.weight`, …, whose convolutions use reflection padding.
        name: `vgg16` or `vgg19`.
        pooling: `max` or `average`.

    Raises:
        CheckpointError: the weights are those of another network, or end before one of `layers`.
        ValueError: a layer is unknown.
    """
    if any(key.endswith("running_mean") for key in weights):
        raise CheckpointError(f"contains a network with batch norm; expected a plain {name}")
    tensors = _sorted_convolutions(weights)
    normalised = bool(tensors) and tensors[0][0].shape == (3, 3, 1, 1)
    network = VGG(layers, name=name, pooling=pooling, padding="reflect" if normalised else "zeros")
    input_transform = tensors.pop(0) if normalised else _imagenet_normalisation()
    known = all_layers(name)
    found = [(weight.shape[1], weight.shape[0]) for weight, _ in tensors]
    if not found or found != _channel_pairs(name)[: len(found)]:
        other: VGGName = "vgg16" if name == "vgg19" else "vgg19"
        holds_other = bool(found) and found == _channel_pairs(other)[: len(found)]
        hint = f"it holds {other}: set model.network to {other}" if holds_other else f"expected torchvision's {name}"
        raise CheckpointError(f"does not contain {name}: {hint}, or take the normalised VGG-19")
    for layer in network.layers:
        if known.index(layer) >= len(found):
            raise CheckpointError(f"ends at {known[len(found) - 1]} and does not contain the layer {layer}")
    modules = [network.input_transform, *network.convolutions]
    for module, (weight, bias) in zip(modules, [input_transform, *tensors], strict=False):
        module.load_state_dict({"weight": weight, "bias": bias})
    network.normalised = normalised
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def all_layers(name: VGGName) -> list[str]:
    """Return the names of all layers, in order."""
    return _layers_up_to([f"relu5_{CONVOLUTIONS[name][-1]}"], name)


def _channel_pairs(name: VGGName) -> list[tuple[int, int]]:
    """The numbers of input and output channels of every convolution."""
    return list(pairwise([3, *(WIDTHS[_block(layer) - 1] for layer in all_layers(name))]))


def random_weights(name: VGGName = "vgg19", seed: int = 0) -> dict[str, Tensor]:
    """Return random weights that preserve the variance of activations (He et al. 2015, eq. 10).

    Their names are those of torchvision (`features.N.weight`), but N counts the convolutions without gaps.

    Args:
        name: `vgg16` or `vgg19`.
        seed: seed of the random numbers; the weights are deterministic.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = _layers_up_to([f"relu5_{CONVOLUTIONS[name][-1]}"], name)
    weights: dict[str, Tensor] = {}
    in_channels = 3
    for index, layer in enumerate(layers):
        out_channels = WIDTHS[_block(layer) - 1]
        weight = torch.randn(out_channels, in_channels, 3, 3, generator=generator)
        weights[f"features.{index}.weight"] = weight * (2 / (9 * in_channels)) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(out_channels)
        in_channels = out_channels
    return weights


def stride(layer: str) -> int:
    """Return the distance in input pixels between neighbouring activations of a layer."""
    return 1 << (_block(layer) - 1)


def _block(layer: str) -> int:
    return int(layer[4])


def _layers_up_to(layers: Sequence[str], name: VGGName) -> list[str]:
    """Return all layers up to the deepest of `layers`; the first layer if `layers` is empty."""
    known = [f"relu{block}_{n}" for block, count in enumerate(CONVOLUTIONS[name], 1) for n in range(1, count + 1)]
    for layer in layers:
        if layer not in known:
            raise ValueError(f"{name} has no layer {layer!r}; its layers are {known[0]} to {known[-1]}")
    return known[: max(known.index(layer) for layer in layers) + 1] if layers else known[:1]


def _sorted_convolutions(weights: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return weights and biases of the convolutions, sorted by their index; the classifier is left out."""
    numbered = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"(?:features\.)?(\d+)\.weight", key):
            numbered[int(match[1])] = (value.float(), weights.get(key.removesuffix("weight") + "bias"))
    return [(w, b.float()) for _, (w, b) in sorted(numbered.items()) if b is not None and w.ndim == 4]


def _imagenet_normalisation() -> tuple[Tensor, Tensor]:
    """Return weight and bias of the ImageNet normalisation of RGB in [0, 1], (x − mean) / std, as a 1×1 convolution."""
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return torch.diag(1 / std)[:, :, None, None], -mean / std


def _rename_input_transform(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename the keys of old checkpoints, in which `input_transform` was called `colours`."""
    for kind in ("weight", "bias"):
        if (old := f"{prefix}colours.{kind}") in state_dict:
            state_dict[f"{prefix}input_transform.{kind}"] = state_dict.pop(old)
