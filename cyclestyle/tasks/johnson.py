"""Feed-forward style transfer (Johnson et al. 2016): a network is trained for one fixed style."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError, DataError
from cyclestyle.functional.style import content_loss, gram_matrix, style_loss, total_variation
from cyclestyle.images import read_image, to_tensor
from cyclestyle.networks.calls import call_at_any_size
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.transform import OUTPUT_SCALE, OutputName, TransformNetwork, UpsampleName
from cyclestyle.networks.vgg import VGG, VGGName
from cyclestyle.tasks.base import Batch, Direction, Task
from cyclestyle.tasks.checks import check_choices, check_not_negative, check_positive
from cyclestyle.tasks.gatys import normalised_weights, resized, working_size
from cyclestyle.weights.vgg import load_vgg

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Loss weights and output of a published implementation.

    Attributes:
        content_layers: VGG layers of the content loss.
        content_weight: factor of the mean squared difference of activations.
        style_weight: factor of the mean squared difference of Gram matrices G = F Fᵀ / (C H W), for each layer.
        tv_weight: factor of the squared differences of neighbouring pixels of 0 to 255, summed over the batch.
        output: of the network, see `TransformNetwork`.
        original: whether the weights are for the activations of `VGG.scale_as_original`, and not for those of
            torchvision's networks, which are left as they are.
    """

    content_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    output: OutputName
    original: bool


PRESETS = {
    # Johnson, Alahi & Fei-Fei 2016, the authors' code in Torch.
    "reference": Preset(
        content_layers=("relu3_3",), content_weight=1, style_weight=5, tv_weight=1e-6, output="tanh", original=True
    ),
    # PyTorch's fast_neural_style, https://github.com/pytorch/examples
    "pytorch_example": Preset(
        content_layers=("relu2_2",), content_weight=1e5, style_weight=1e10, tv_weight=0, output="levels", original=False
    ),
}


class Johnson(Task):
    """Trains a `TransformNetwork` to match the content of photos and the style of paintings in VGG features.

    Johnson, Alahi & Fei-Fei 2016, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, with
    instance norm (Ulyanov et al. 2016). `cyclestyle predict --ckpt_path <run>/checkpoints/last.ckpt` paints photos of
    any size with the trained network, and needs neither the paintings nor the VGG.

    | logged name | weighted loss term |
    |---|---|
    | `train/content` | mean squared difference of the content layers' activations, summed over the layers |
    | `train/style` | mean squared difference of Gram matrices, summed over the layers |
    | `train/tv` | squared differences of neighbouring pixels in levels of 0 to 255, summed over the batch |
    | `train/loss` | their sum |

    `val/…` are the same for the validation photos. The weights are those of `PRESETS`. Those of `reference` are for the
    network of Simonyan & Zisserman: the activations of others, such as torchvision's or the normalised VGG-19, are
    rescaled to its own by `VGG.scale_as_original` on the paintings. Those of `pytorch_example` are for torchvision's
    VGG-16; with weights of larger activations, style outweighs content more than in the example.

    Args:
        style: files of the style images.
        style_weights: weight of each style image in the average of the Gram matrices; equal by default.
        style_size: square root of the number of pixels that style images are resized to; none is enlarged.
        network: `vgg16` or `vgg19`.
        weights: a file of VGG weights, `random`, or None for the weights of torchvision.
        features: a checkpoint of the autoencoder, whose encoder is used instead of a VGG; its layers are those of
            VGG-19, as far as it goes.
        preset: `reference` (the authors' code) or `pytorch_example`: loss weights, output of the network, and the
            default of `content_layers`.
        content_layers: VGG layers of the content loss.
        style_layers: VGG layers of the style loss.
        content_weight: factor of the content loss of the preset.
        style_weight: factor of the style loss of the preset.
        tv_weight: factor of the total-variation loss of the preset.
        upsample: `resize` (no checkerboard artefacts) or `transpose`.
        output: what the network's last convolution gives, `tanh` or `levels`; see `TransformNetwork`. None: that of the
            preset.
        width: output channels of the first convolution.
        lr: learning rate of Adam.
        schedule: the options of the learning rate that every `Task` has, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, or a layer is unknown.
    """

    in_bfloat16 = ("translating",)
    architecture = ("width", "upsample", "output", "preset")

    def __init__(
        self,
        *,
        style: list[str] | None = None,
        style_weights: list[float] | None = None,
        style_size: int = 256,
        network: VGGName = "vgg16",
        weights: str | None = None,
        features: str | None = None,
        preset: Literal["reference", "pytorch_example"] = "reference",
        content_layers: list[str] | None = None,
        style_layers: Sequence[str] = STYLE_LAYERS,
        content_weight: float = 1.0,
        style_weight: float = 1.0,
        tv_weight: float = 1.0,
        upsample: UpsampleName = "resize",
        output: OutputName | None = None,
        width: int = 32,
        lr: float = 1e-3,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        check_choices(preset=(preset, tuple(PRESETS)))
        check_positive(style_size=style_size, style_weight=style_weight, lr=lr)
        check_not_negative(content_weight=content_weight, tv_weight=tv_weight)
        if not style_layers:
            raise ValueError("style_layers must name at least one layer, got none")
        self.save_hyperparameters()
        self.preset = PRESETS[preset]
        self.style, self.style_weights, self.style_size = style or [], style_weights, style_size
        self.network: VGGName = "vgg19" if features else network
        self.weights, self.encoder = weights, features
        self.content_layers = _unique(self.preset.content_layers if content_layers is None else content_layers)
        self.style_layers = _unique(style_layers)
        with torch.device("meta"):  # raises an error for an unknown layer without allocating memory
            VGG([*self.content_layers, *self.style_layers], name=self.network)
        self.factors = {
            "content": content_weight * self.preset.content_weight,
            "style": style_weight * self.preset.style_weight,
            "tv": tv_weight * self.preset.tv_weight,
        }
        self.lr = lr
        self.transform = TransformNetwork(upsample=upsample, output=output or self.preset.output, width=width)
        if preset == "pytorch_example" and self.transform.last.bias is not None:  # its images begin near black
            with torch.no_grad():
                self.transform.last.bias.sub_(OUTPUT_SCALE)
        # A tuple does not register the VGG as a submodule, so checkpoints and optimisers do not contain it.
        self.perceptual: tuple[PerceptualLoss, ...] = ()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss terms of Johnson et al. 2016, eq. 5."""
        photos: Tensor = batch["images"]
        perceptual = self.perceptual[0].to(photos)
        height, width = photos.shape[-2:]
        if min(height, width) < perceptual.features.min_size:
            raise DataError(
                f"photos of {width}×{height} are too small for {perceptual.features.names[-1]}, which needs "
                f"{perceptual.features.min_size} pixels; raise data.crop_size"
            )
        painted = self.transform(photos)
        content, style = perceptual(painted, photos)
        variation = total_variation(painted * OUTPUT_SCALE, "sum")
        losses = {"content": content, "style": style, "tv": variation}
        return {name: self.factors[name] * loss for name, loss in losses.items()}

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return the photos and their stylisations."""
        return {"photo": batch["images"], "painted": self.transform(batch["images"])}

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Paint photos of any size. `direction` is ignored."""
        return call_at_any_size(self.transform, images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the trained network."""
        return OnePass.of(self.transform, self.transform.in_channels)

    def setup(self, stage: str) -> None:
        """Load the style images and the VGG, which `predict` does not need.

        Raises:
            CycleStyleError: `style` is empty, or the number of weights is not that of the style images.
            ImageError: a style image is missing or not an image.
            CheckpointError: the VGG weights are missing or do not contain a layer.
        """
        super().setup(stage)
        if stage == "predict" or self.perceptual:
            return
        if not self.style:
            raise CycleStyleError("no painting: list files in model.style")
        paintings = [to_tensor(read_image(Path(path)))[None] for path in self.style]
        shares = normalised_weights(len(paintings), self.style_weights)
        layers = [*self.content_layers, *self.style_layers]
        features = load_vgg(layers, weights=self.weights, name=self.network, features=self.encoder)
        sizes = [working_size(painting.shape, self.style_size, features.min_size) for painting in paintings]
        resized_paintings = [resized(painting, size) for painting, size in zip(paintings, sizes, strict=True)]
        if self.preset.original:
            features.scale_as_original(resized_paintings)
        self.perceptual = (PerceptualLoss(features, self.content_layers, self.style_layers),)
        self.perceptual[0].keep(resized_paintings, shares)


class PerceptualLoss(nn.Module):
    """Content and style loss in the features of a VGG.

    Args:
        features: a frozen VGG that returns all layers.
        content_layers: layers of the content loss.
        style_layers: layers of the style loss.
    """

    def __init__(self, features: VGG, content_layers: Sequence[str], style_layers: Sequence[str]) -> None:
        super().__init__()
        self.features = features
        self.shallow = _truncated(content_layers, features)
        self.content_layers, self.style_layers = content_layers, style_layers

    @torch.no_grad()
    def keep(self, paintings: Sequence[Tensor], shares: Sequence[float]) -> None:
        """Store the average of the Gram matrices of style images `(1, 3, H, W)`, weighted by `shares`."""
        activations = [self.features(painting) for painting in paintings]
        for layer in self.style_layers:
            grams = [gram_matrix(features[layer], "elements") for features in activations]
            mean = sum(share * gram for share, gram in zip(shares, grams, strict=True))
            assert isinstance(mean, Tensor)
            self.register_buffer(layer, mean)  # (1, C, C)

    def forward(self, painted: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unweighted content and style loss of images `(N, 3, H, W)`."""
        with torch.no_grad():
            target = self.shallow(photos)
        contents, styles = [photos.new_zeros(())], []
        for layer, features in self.features.activations(painted):
            if layer in self.content_layers:
                contents.append(content_loss(features, target[layer]))
            if layer in self.style_layers:
                styles.append(style_loss(gram_matrix(features, "elements"), self.get_buffer(layer)))
        return torch.stack(contents).sum(), torch.stack(styles).sum()


def _truncated(layers: Iterable[str], vgg: VGG) -> VGG:
    """Return the part of `vgg` up to the deepest of `layers`. The weights are shared."""
    shallow = VGG(layers, name=vgg.name, pooling=vgg.pooling)
    shallow.input_transform, shallow.convolutions = vgg.input_transform, vgg.convolutions[: len(shallow.convolutions)]
    return shallow


def _unique(layers: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layers))
