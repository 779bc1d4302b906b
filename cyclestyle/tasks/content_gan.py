"""ContentGAN: one generator, whose translations keep the content of a photo in the features of a VGG-16."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.functional.style import relative_style_loss
from cyclestyle.networks.calls import call_on_both
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative
from cyclestyle.tasks.reconstruction import ReconstructionTask, check_layers

CONTENT_LAYERS = ("relu3_3", "relu4_2")
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_2")


class ContentGAN(ReconstructionTask):
    """Learns `G_AB: A → B` from two sets of unrelated images, without a way back.

    A cycle makes a generator keep every pixel that the way back needs, which forbids strokes. Here deep features of the
    translation are those of the image, as in the methods that turn photos into cartoons (CartoonGAN, Chen et al. 2018;
    AnimeGAN, Chen et al. 2019), and strokes are free. Proportions of the channels are compared, and not activations
    (see `perceptual_distance`), so that light and colours may change.

    | logged name | what it is |
    |---|---|
    | `train/G_AB` | λ_GAN · adversarial loss of G_AB |
    | `train/content` | λ_content · Σ over the layers of the distance of the features of G_AB(A) from those of A |
    | `train/style` | λ_style · `relative_style_loss` of G_AB(A) and B, summed over the layers |
    | `train/idt_B` | λ_identity · distance of G_AB(B) from B, which teaches the colours of B |
    | `train/D_B` | loss of D_B, halved |

    Generator and discriminator move together, as in CycleGAN: each sees the other as it was before the step.

    It is meant for generators that paint already, which `--init_style` names: from drawn weights, it first has to learn
    what a photo is.

    Args:
        lambda_GAN: weight of the adversarial loss.
        lambda_content: weight of the content loss.
        lambda_style: weight of the style loss; 0 for none. The Gram matrices are means over the images of a batch: of
            each image, they are those of its subject too.
        style_layers: layers of the VGG-16 whose Gram matrices are compared; null for relu1_2, relu2_2, relu3_3 and
            relu4_2.
        lambda_identity: weight of the identity loss; 0 for none. It is a reconstruction loss, with `pixel_weight` and
            `perceptual_weight`.
        perceptual_layers: layers of the VGG-16 that keep the content; null for relu3_3 and relu4_2.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        options: those of every `ReconstructionTask`, of every `GANTask`, such as `generator`; of every
            `AdversarialTask`, such as `gan_mode`; and of every `Task`, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, or a layer is unknown.
    """

    monitor = "val/content"
    directions = ("AtoB",)
    discriminators: ClassVar = {"D_B": "B"}
    averaged = ("G_AB",)

    def __init__(
        self,
        *,
        lambda_GAN: float = 1.0,
        lambda_content: float = 1.0,
        lambda_style: float = 0.5,
        lambda_identity: float = 0.3,
        style_layers: list[str] | None = None,
        perceptual_layers: list[str] | None = None,
        constant_epochs: int = 100,
        decay_epochs: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(
            perceptual_layers=list(CONTENT_LAYERS if perceptual_layers is None else perceptual_layers),
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            **options,
        )
        check_not_negative(lambda_GAN=lambda_GAN, lambda_content=lambda_content)
        check_not_negative(lambda_style=lambda_style, lambda_identity=lambda_identity)
        self.check_identity(lambda_identity)
        self.lambda_GAN, self.lambda_content = lambda_GAN, lambda_content
        self.lambda_style, self.lambda_identity = lambda_style, lambda_identity
        self.style_layers = tuple(STYLE_LAYERS if style_layers is None else style_layers)
        if lambda_style > 0:
            check_layers(style_layers=self.style_layers)
            self.feature_layers = (*self.perceptual_layers, *self.style_layers)
        self.feature_stages = ("fit", "validate", "test")  # validation measures the content
        self.initialise_networks()

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the table above."""
        real_A, real_B = self._images(batch)
        losses: dict[str, Tensor] = {}
        if self.lambda_identity > 0:
            fake_B, same_B = call_on_both(self.G_AB, real_A, real_B)
            losses["idt_B"] = self.lambda_identity * self.reconstruction_loss(same_B, real_B)
        else:
            fake_B = self.G_AB(real_A)
        losses |= self.domain_losses(batch, AtoB=fake_B)
        seen_B, inside_B = self.inside(batch, "A", fake_B), self.inside(batch, "B", real_B)
        losses["G_AB"] = self.lambda_GAN * self.adversary.generator_loss(self.D_B, seen_B)
        features = self.features(fake_B)
        with torch.no_grad():
            features_A = self.features(real_A)
            features_B = self.features(real_B) if self.lambda_style > 0 else {}
        losses["content"] = self.lambda_content * self.summed_distances(features, features_A)
        if self.lambda_style > 0:
            styles = [relative_style_loss(features[layer], features_B[layer]) for layer in self.style_layers]
            losses["style"] = self.lambda_style * torch.stack(styles).sum()
        losses["D_B"] = self.adversary.discriminator_loss(self.D_B, inside_B, seen_B.detach(), "D_B")
        return losses

    # Validation and prediction

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return real image and fake."""
        real_A = batch["A"].contiguous(memory_format=self.speed.memory_format)
        return {"real_A": real_A, "fake_B": self.G_AB(real_A)}

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted content loss and the identity error, a mean absolute difference in [0, 2]."""
        figures = {"content": self.feature_distance(sample["fake_B"], sample["real_A"])}
        if self.lambda_identity > 0:
            real_B = batch["B"].contiguous(memory_format=self.speed.memory_format)
            figures["idt_B"] = F.l1_loss(self.G_AB(real_B), real_B)
        return figures
