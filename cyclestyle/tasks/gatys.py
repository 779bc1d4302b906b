"""Style transfer by optimisation of the pixels of an image (Gatys et al. 2016). No network is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.functional.colour import ColourMatch, ColourTransfer, put_luminance, to_grey
from cyclestyle.functional.style import Reduction
from cyclestyle.networks.method import Direction
from cyclestyle.networks.styles import normalised_weights
from cyclestyle.networks.vgg import Pooling, VGGName
from cyclestyle.tasks.base import Batch, Task
from cyclestyle.tasks.checks import check_choices, check_not_negative
from cyclestyle.tasks.pixel_optimisation import GramObjective, GramWeights, Painter, Painting
from cyclestyle.weights.vgg import load_vgg

Start = Literal["content", "noise", "style"]
Colour = Literal["style", "luminance", "match"]
FeaturesPrecision = Literal["fp32", "bf16"]

CALIBRATION = 512  # activations are measured on images of at most CALIBRATION² pixels
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclass(frozen=True)
class Preset:
    """Settings in which the paper and the code of its authors differ."""

    pooling: Pooling
    start: Start
    reduction: Reduction

    def of_layer(self, channels: int, layers: int) -> float:
        """Return the factor of the mean squared difference of Gram matrices (`pixels` normalisation) of a layer."""
        return 0.25 / layers if self is PRESETS["paper"] else 1e3 / channels**2


PRESETS = {
    # Gatys et al. 2016, eq. 1, 4, 5: content ½ Σ (F − P)²; style Σ (G − A)² / (4 N² M²), weight 1/5 for each layer.
    # The paper's α/β of 1e-3 to 1e-4 is for activations of mean 1; for unscaled ones that is about 10 to 1.
    "paper": Preset(pooling="average", start="noise", reduction="half_sum"),
    # The authors' PyTorch code: mean squared errors; G = F Fᵀ / (H W); weight 1e3 / C² for each layer.
    "reference": Preset(pooling="max", start="content", reduction="mean"),
}
"""Loss weights for the activations of Simonyan & Zisserman's network on pixels of 0 to 255; see
`VGG.scale_as_original`."""


class Gatys(Task):
    """Optimises the pixels of each image to match the content of a photo and the Gram matrices of styles in a VGG.

    Gatys, Ecker & Bethge 2016, *Image Style Transfer Using Convolutional Neural Networks*; pyramid, regions and
    colour as in Gatys et al. 2017, *Controlling Perceptual Factors in Neural Style Transfer*. The task supports only
    `predict`.

    Args:
        network: `vgg19` or `vgg16`.
        weights: a file of VGG weights, `random`, or None for the weights of torchvision.
        features: a checkpoint of the autoencoder, whose encoder is used instead of a VGG; its layers are those of
            VGG-19, as far as it goes.
        features_precision: `fp32` (the precision of the images), or `bf16` for the convolutions of the features: faster
            and half the memory on hardware that computes in bfloat16. The losses and the image keep their precision.
        preset: `reference` (the authors' code) or `paper`: reduction, loss weights, default pooling and start.
        content_layers: VGG layers of the content loss.
        style_layers: VGG layers of the style loss.
        content_weight: factor of the content loss of the preset; 0 synthesises a texture.
        style_weight: factor of the style loss of the preset; 0 reconstructs the content.
        tv_weight: factor of the total-variation loss, the mean squared difference of neighbouring pixels.
        pooling: `max` or `average`.
        start: initial image, `content`, `noise` or `style`.
        colour: `style` (colours of the painting), `luminance` (colours of the photo; only the luminance is painted), or
            `match` (colours of the photo; the mean and covariance of the painting are matched to them first).
        colour_match: method of `match`, `cholesky`, `pca` or `transport`.
        seed: random seed of the noise.
        painting: those of `Painting`, such as `sizes` and `steps`.

    Raises:
        ValueError: a value is out of its range, or a layer is unknown.
        CheckpointError: the weights are missing or do not reach a layer.
    """

    averaged = ()
    takes_styles = True
    one_pass = False
    takes_masks = True

    def __init__(
        self,
        *,
        network: VGGName = "vgg19",
        weights: str | None = None,
        features: str | None = None,
        features_precision: FeaturesPrecision = "fp32",
        preset: Literal["reference", "paper"] = "reference",
        content_layers: Sequence[str] = ("relu4_2",),
        style_layers: Sequence[str] = STYLE_LAYERS,
        content_weight: float = 1.0,
        style_weight: float = 1.0,
        tv_weight: float = 0.0,
        pooling: Pooling | None = None,
        start: Start | None = None,
        colour: Colour = "style",
        colour_match: ColourMatch = "transport",
        seed: int = 0,
        **painting: Any,
    ) -> None:
        super().__init__()
        check_choices(preset=(preset, tuple(PRESETS)))
        check_choices(colour=(colour, get_args(Colour)), colour_match=(colour_match, get_args(ColourMatch)))
        check_choices(features_precision=(features_precision, get_args(FeaturesPrecision)))
        check_not_negative(content_weight=content_weight, style_weight=style_weight, tv_weight=tv_weight)
        self.painting = Painting(**painting)
        defaults = PRESETS[preset]
        self.start = defaults.start if start is None else start
        check_choices(start=(self.start, get_args(Start)))
        layers = [*(content_layers if content_weight else ()), *(style_layers if style_weight else ())]
        if not layers:
            raise ValueError("nothing is left to paint: no layer of content or style has a weight above 0")
        pooling = pooling or defaults.pooling
        self.features = load_vgg(layers, weights=weights, name=network, pooling=pooling, features=features)
        self.weights = GramWeights(
            content={layer: content_weight / len(content_layers) for layer in content_layers if content_weight},
            style={
                layer: style_weight * defaults.of_layer(self.features.channels(layer), len(style_layers))
                for layer in style_layers
                if style_weight
            },
            total_variation=tv_weight,
            reduction=defaults.reduction,
        )
        self.colour, self.colour_match, self.seed = colour, colour_match, seed
        self.half_features = features_precision == "bf16"
        self._scaled = False  # the activations are those that the loss weights are for
        self.styles: list[Tensor] = []
        self.style_weights: list[float] = []

    def use_styles(self, styles: Sequence[Tensor], weights: Sequence[float] | None = None) -> None:
        """Set the style images, `(3, H, W)` in [-1, 1]. Their Gram matrices are averaged with `weights`."""
        if self.weights.style and not styles:
            raise CycleStyleError("no style: name a painting with --style, or set --model.style_weight 0")
        self.styles = list(styles)
        self.style_weights = normalised_weights(len(styles), weights)
        used = [style[None] for style, weight in zip(styles, self.style_weights, strict=True) if weight]
        if used and not self._scaled:
            size = min(CALIBRATION, self.painting.sizes[-1])
            self.features.scale_as_original([self._resized_style(style, size) for style in used])
            self._scaled = True

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Not supported, because no network is trained.

        Raises:
            CycleStyleError: always.
        """
        raise CycleStyleError("Gatys trains nothing; use it with predict")

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return the photos and their stylisations."""
        return {"photo": batch["images"], "painted": self.translate(batch["images"], "AtoB")}

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Paint photos of any size, one after the other. `direction` is ignored.

        Channels beyond the third are the regions of the styles, 1 inside and -1 outside.
        """
        photos, regions = images[:, :3], (images[:, 3:] + 1) / 2
        masks = [region[:, None] if len(region) else None for region in regions]
        return torch.cat([self.paint(photo, mask) for photo, mask in zip(torch.split(photos, 1), masks, strict=True)])

    def paint(self, photo: Tensor, masks: Tensor | None = None) -> Tensor:
        """Paint a photo `(1, 3, H, W)`. With masks `(R, 1, H, W)`, each style is applied to its own region.

        Raises:
            CycleStyleError: the number of masks is not that of the styles, or the photo is in half precision.
            DivergedError: the losses of the initial image are not finite.
        """
        if masks is not None and len(masks) != len(self.styles):
            raise CycleStyleError(f"{len(masks)} masks for {len(self.styles)} styles; give one mask for each style")
        if photo.dtype not in (torch.float32, torch.float64):
            raise CycleStyleError("images are not painted in half precision; use float32")
        painter = Painter(self.painting.optimiser, self.painting.lr, self.painting.history, self.on_evaluation)
        image: Tensor | None = None
        # The gradients of Gram matrices underflow in half precision, and there is no gradient scaler here.
        full_precision = torch.autocast(photo.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), full_precision:
            if self.half_features:  # not earlier, because the scale of the weights is set by the first style
                self.features.convolutions.to(torch.bfloat16)
            photo, styles = photo.clone(), [style.to(photo)[None] for style in self.styles]
            for size, steps in zip(self.painting.sizes, self.painting.steps, strict=True):
                shape = working_size(photo.shape, size, self.features.min_size)
                target, matched = self._match_colours(
                    resized(photo, shape), [self._resized_style(style, size) for style in styles]
                )
                objective = GramObjective(self.features, self.weights, self.painting.tile)
                objective.keep_content(target)
                objective.keep_styles(matched, self.style_weights, None if masks is None else resized(masks, shape))
                image = painter(
                    objective, self._start_image(target, matched) if image is None else resized(image, shape), steps
                )
            assert image is not None
        result = resized(image, photo.shape[-2:]) if self.painting.keep_size else image
        return put_luminance(result, resized(photo, result.shape[-2:])) if self.colour == "luminance" else result

    def _match_colours(self, photo: Tensor, styles: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the photo and the styles after the colour transfer selected by `colour`."""
        # Gatys et al. 2017, section 5.1: luminance only, after matching its mean and deviation
        if self.colour == "luminance":
            grey = to_grey(photo)
            return grey, [ColourTransfer.fit([style[0]], [grey[0]])(style[0])[None] for style in map(to_grey, styles)]
        if self.colour == "match":  # section 5.2
            transfers = [ColourTransfer.fit([style[0]], [photo[0]], self.colour_match) for style in styles]
            return photo, [transfer(style[0])[None] for transfer, style in zip(transfers, styles, strict=True)]
        return photo, styles

    def _resized_style(self, style: Tensor, size: int) -> Tensor:
        return resized(
            style, working_size(style.shape, round(size * self.painting.style_scale), self.features.min_size)
        )

    def _start_image(self, photo: Tensor, styles: list[Tensor]) -> Tensor:
        """Return the initial image of the optimisation."""
        if self.start == "style" and styles:
            return resized(styles[0], photo.shape[-2:])
        if self.start == "content":
            return photo
        generator = torch.Generator().manual_seed(self.seed)
        return 0.5 * torch.randn(photo.shape, generator=generator).to(photo)


def working_size(shape: Sequence[int], size: int, least: int) -> tuple[int, int]:
    """Return the height and width of an image resized to `size`² pixels, with the same aspect ratio.

    Images are not enlarged, except that a side is at least `least` pixels, the minimum input size of a network.
    """
    height, width = shape[-2:]
    scale = min(1.0, size / (height * width) ** 0.5)
    return max(least, round(height * scale)), max(least, round(width * scale))


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images `(N, C, H, W)` by bicubic interpolation with antialiasing."""
    if images.shape[-2:] == tuple(size):
        return images
    return F.interpolate(images, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)
