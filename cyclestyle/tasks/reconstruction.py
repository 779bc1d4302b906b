"""How far a reconstruction is from its image: in pixels, and in the features of a VGG-16."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import DataError
from cyclestyle.functional.perceptual import perceptual_distance
from cyclestyle.images import as_rgb
from cyclestyle.networks.vgg import VGG, all_layers
from cyclestyle.tasks.checks import check_not_negative
from cyclestyle.tasks.gan import GANTask
from cyclestyle.weights.vgg import load_vgg

LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


class ReconstructionTask(GANTask):
    """A `GANTask` that compares images with what they should be, in cycle or identity losses.

    Such a loss is pixel_weight · mean abs(x − y) + perceptual_weight · Σ over the layers of `perceptual_distance`. The
    mean over pixels forbids strokes, because the way back cannot remove them; features allow them. CycleGAN-Turbo
    (Parmar et al. 2024) has both terms. The VGG-16 is frozen, and neither in checkpoints nor in optimisers.

    Args:
        pixel_weight: weight of the mean absolute difference of pixels in cycle and identity losses.
        perceptual_weight: weight of the distance of VGG-16 features beside it; 0 for none.
        perceptual_layers: layers of the VGG-16 that are compared; null for those of LPIPS: relu1_2, relu2_2, relu3_3,
            relu4_3, relu5_3. Deep layers alone leave most freedom to strokes.
        perceptual_features: a file of VGG-16 weights, or `random`; null for the weights of torchvision.
        options: those of every `GANTask`.

    Raises:
        ValueError: a weight is below 0, or a layer is unknown.
    """

    def __init__(
        self,
        *,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 0.0,
        perceptual_layers: list[str] | None = None,
        perceptual_features: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_not_negative(pixel_weight=pixel_weight, perceptual_weight=perceptual_weight)
        layers = tuple(LPIPS_LAYERS if perceptual_layers is None else perceptual_layers)
        check_layers(perceptual_layers=layers)
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.perceptual_layers, self.perceptual_features = layers, perceptual_features
        # What the VGG is for: stages of the trainer, and layers
        self.feature_stages: tuple[str, ...] = ("fit",) if perceptual_weight > 0 else ()
        self.feature_layers = layers
        # A tuple does not register the VGG as a submodule, so checkpoints and optimisers do not contain it.
        self.perceptual: tuple[VGG, ...] = ()

    def check_identity(self, weight: float) -> None:
        """Refuse identity losses, with their weight, between domains of different channels.

        Raises:
            ValueError: the channels differ.
        """
        if weight > 0 and self.channels["A"] != self.channels["B"]:
            raise ValueError(
                f"identity losses need the same channels in both domains, got channels_A={self.channels['A']} and "
                f"channels_B={self.channels['B']}; set lambda_identity to 0"
            )

    def setup(self, stage: str) -> None:
        """Load the VGG-16 where a loss or a figure needs it.

        Raises:
            CheckpointError: the weights are missing or do not contain a layer.
        """
        if stage in self.feature_stages and not self.perceptual:
            self.perceptual = (load_vgg(self.feature_layers, weights=self.perceptual_features, name="vgg16"),)
            self.networks = (*self.networks, *self.perceptual)  # arranged and compiled with the others
        super().setup(stage)

    def reconstruction_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the distance of images from what they should be, `(N, C, H, W)` each, a scalar.

        Raises:
            DataError: the images are too small for the layers.
        """
        loss = self.pixel_weight * F.l1_loss(images, targets)
        if self.perceptual_weight > 0:
            loss = loss + self.perceptual_weight * self.feature_distance(images, targets)
        return loss

    def feature_distance(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the `perceptual_distance` of images from targets, `(N, C, H, W)` each, summed over the layers.

        Raises:
            DataError: the images are too small for the layers.
        """
        with torch.no_grad():
            wanted = self.features(targets)
        return self.summed_distances(self.features(images), wanted)

    def summed_distances(self, features: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        """Return the `perceptual_distance` of what `features` returned, summed over `perceptual_layers`."""
        return torch.stack(
            [perceptual_distance(features[layer], wanted[layer]) for layer in self.perceptual_layers]
        ).sum()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of the VGG-16 for images `(N, C, H, W)`, by its layers.

        Raises:
            DataError: the images are too small for the layers.
        """
        images = as_rgb(images).to(torch.promote_types(images.dtype, torch.float32))  # the VGG keeps its precision
        features = self.perceptual[0].to(images)
        if min(images.shape[-2:]) < features.min_size:
            raise DataError(
                f"images of {images.shape[-1]}×{images.shape[-2]} are too small for {features.names[-1]}, which needs "
                f"{features.min_size} pixels; raise data.crop_size, or name other model.perceptual_layers"
            )
        activations: dict[str, Tensor] = features(images)
        return activations


def check_layers(**names: Sequence[str]) -> None:
    """Check names of layers of a VGG-16.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    known = all_layers("vgg16")
    for setting, layers in names.items():
        if not layers or not set(layers) <= set(known):
            raise ValueError(f"{setting} must name some of {', '.join(known)}, got {list(layers)}")
