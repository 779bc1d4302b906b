"""CycleGAN: two generators and two discriminators trained on unpaired images (Zhu et al. 2017)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.networks.calls import call_on_both
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative
from cyclestyle.tasks.image_pool import ImagePool
from cyclestyle.tasks.reconstruction import ReconstructionTask
from cyclestyle.weights.official import LOSSES


class CycleGAN(ReconstructionTask):
    """Learns `G_AB: A → B` and `G_BA: B → A` from two sets of unrelated images.

    | here | paper | what it is |
    |---|---|---|
    | `G_AB`, `G_BA` | G, F | generators from A to B and from B to A |
    | `D_A`, `D_B` | D_X, D_Y | discriminators of domain A and of domain B |
    | `train/G_AB` | L_GAN(G, D_Y) | adversarial loss of G_AB |
    | `train/G_BA` | L_GAN(F, D_X) | adversarial loss of G_BA |
    | `train/cycle_A` | λ L_cyc, first term | λ_A · mean abs(G_BA(G_AB(A)) − A) |
    | `train/cycle_B` | λ L_cyc, second term | λ_B · mean abs(G_AB(G_BA(B)) − B) |
    | `train/idt_A` | L_identity, second term | λ_A · λ_identity · mean abs(G_BA(A) − A) |
    | `train/idt_B` | L_identity, first term | λ_B · λ_identity · mean abs(G_AB(B) − B) |
    | `train/D_A`, `train/D_B` | | loss of D_A and of D_B, halved |

    With `perceptual_weight`, cycle and identity losses have the distance of features too, see `ReconstructionTask`.
    `train/loss_G` and `train/loss_D` are the sums of the first six and the last two. The original code uses other
    names, which docs/official.md lists.

    One backward pass does both updates of a step. The discriminator loss reads detached fakes, made before the
    generators move; the generator loss reads discriminators that are frozen and have not moved. So
    `loss_G + loss_D` under one Adam is the same update as two backward passes and two optimisers, and
    automatic optimisation, DDP, gradient accumulation, AMP and schedulers work as Lightning documents them.

    Args:
        lambda_A: weight of the cycle A → B → A.
        lambda_B: weight of the cycle B → A → B.
        lambda_identity: weight of the identity losses relative to the cycle weights; 0 turns them off.
        pool_size: generated images remembered for each discriminator.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        options: those of every `ReconstructionTask`, such as `perceptual_weight`; of every `GANTask`, such as
            `generator`; of every `AdversarialTask`, such as `gan_mode`; and of every `Task`, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, or identity losses are asked for between domains whose
            numbers of channels differ.
    """

    monitor = "val/cycle"
    directions = ("AtoB", "BtoA")
    discriminators: ClassVar = {"D_A": "A", "D_B": "B"}
    renamed_logs: ClassVar = {
        f"{stage}/{old}": f"{stage}/{new}" for stage in ("train", "val") for old, new in LOSSES.items()
    }

    def __init__(
        self,
        *,
        lambda_A: float = 10.0,
        lambda_B: float = 10.0,
        lambda_identity: float = 0.5,
        pool_size: int = 50,
        constant_epochs: int = 100,
        decay_epochs: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(constant_epochs=constant_epochs, decay_epochs=decay_epochs, **options)
        check_not_negative(lambda_A=lambda_A, lambda_B=lambda_B, lambda_identity=lambda_identity)
        self.check_identity(lambda_identity)
        self.lambda_A, self.lambda_B, self.lambda_identity = lambda_A, lambda_B, lambda_identity
        self.initialise_networks()
        self.pool_A = ImagePool(pool_size, seed=0)
        self.pool_B = ImagePool(pool_size, seed=1)

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of Zhu et al. 2017, eq. 3 and section 5.2, weighted, and the discriminator losses."""
        real_A, real_B = self._images(batch)
        fake_B, same_B = self._translate_both(self.G_AB, real_A, real_B)  # G_AB(A), G_AB(B)
        fake_A, same_A = self._translate_both(self.G_BA, real_B, real_A)  # G_BA(B), G_BA(A)
        losses = self.domain_losses(batch, AtoB=fake_B, BtoA=fake_A)
        # Adversarial loss, eq. 1
        seen_B, seen_A = self.inside(batch, "A", fake_B), self.inside(batch, "B", fake_A)
        losses["G_AB"] = self.adversary.generator_loss(self.D_B, seen_B)
        losses["G_BA"] = self.adversary.generator_loss(self.D_A, seen_A)
        # Cycle consistency loss, eq. 2
        losses["cycle_A"] = self.lambda_A * self.reconstruction_loss(self.G_BA(fake_B), real_A)
        losses["cycle_B"] = self.lambda_B * self.reconstruction_loss(self.G_AB(fake_A), real_B)
        # Identity loss, section 5.2: a generator does not change images of its target domain
        if self.lambda_identity > 0:
            losses["idt_B"] = self.lambda_B * self.lambda_identity * self.reconstruction_loss(same_B, real_B)
            losses["idt_A"] = self.lambda_A * self.lambda_identity * self.reconstruction_loss(same_A, real_A)
        # Discriminator losses, eq. 1, on fakes from the history (section 4)
        real_A, real_B = self.inside(batch, "A", real_A), self.inside(batch, "B", real_B)
        losses["D_B"] = self.adversary.discriminator_loss(self.D_B, real_B, self.pool_B.query(seen_B.detach()), "D_B")
        losses["D_A"] = self.adversary.discriminator_loss(self.D_A, real_A, self.pool_A.query(seen_A.detach()), "D_A")
        return losses

    def _translate_both(self, generator: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fake and the identity image; the latter is not computed where no loss needs it."""
        if self.lambda_identity > 0:
            return call_on_both(generator, source, target)
        return generator(source), target

    # Validation and prediction

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return real image, fake and reconstruction, in both directions."""
        real_A, real_B = self._images(batch)
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
        return {
            "real_A": real_A,
            "fake_B": fake_B,
            "rec_A": self.G_BA(fake_B),
            "real_B": real_B,
            "fake_A": fake_A,
            "rec_B": self.G_AB(fake_A),
        }

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted cycle and identity errors, mean absolute differences in [0, 2]."""
        errors = {f"cycle_{domain}": F.l1_loss(sample[f"rec_{domain}"], sample[f"real_{domain}"]) for domain in "AB"}
        errors["cycle"] = (errors["cycle_A"] + errors["cycle_B"]) / 2
        if self.lambda_identity > 0:
            errors["idt_A"] = F.l1_loss(self.G_BA(sample["real_A"]), sample["real_A"])
            errors["idt_B"] = F.l1_loss(self.G_AB(sample["real_B"]), sample["real_B"])
        return errors
