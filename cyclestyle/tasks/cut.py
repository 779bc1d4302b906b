"""CUT and FastCUT: one generator, trained by comparing patches of image and translation (Park et al. 2020)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cyclestyle.functional.contrastive import Negatives
from cyclestyle.networks.calls import call_on_both
from cyclestyle.networks.initialisation import InitName
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative
from cyclestyle.tasks.contrastive import PatchContrast
from cyclestyle.tasks.discriminators_first import DiscriminatorsFirst
from cyclestyle.tasks.gan import GANTask


class CUT(DiscriminatorsFirst, GANTask):
    """Learns `G_AB: A → B` from two sets of unrelated images, without a generator back.

    Instead of a reconstruction, a contrastive loss keeps the content: each patch of the translation has to be more
    similar to the patch of the input at the same place than to other patches of the input. The features are those of
    the generator's own encoder, embedded by small perceptrons, `F_AB`.

    | here | paper | what it is |
    |---|---|---|
    | `G_AB`, `D_B`, `F_AB` | G, D, H | generator, discriminator of domain B, and the heads of the features |
    | `train/G_AB` | L_GAN | λ_GAN · adversarial loss of G_AB |
    | `train/NCE` | λ_X L_PatchNCE(G, H, X) | PatchNCE of A and G_AB(A), weighted |
    | `train/NCE_idt` | λ_Y L_PatchNCE(G, H, Y) | PatchNCE of B and G_AB(B), weighted |
    | `train/D_B` | | loss of D_B, halved |

    `train/loss_G` is the sum of the first three. The weight of the two PatchNCE losses is λ_NCE / 2 each, as in the
    authors' code, or λ_NCE for the first one without the second.

    The discriminator is updated first, and the generator's adversarial loss comes from the updated one.

    FastCUT is `nce_identity` False, `lambda_NCE` 10, `flip_equivariance` True and 150 + 50 epochs.

    A batch may carry what is drawn at random otherwise: `patch_ids`, a dictionary of lists with one `(P,)` for each
    feature, under `NCE` and `NCE_idt` (or `NCE_Y`, its name in the authors' code); and `flip`.

    Args:
        resample: `blur` (antialiased, the original's), `transpose` (the only one of a U-Net) or `resize`.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        lambda_GAN: weight of the adversarial loss.
        lambda_NCE: weight of the PatchNCE losses; raise it if the translation invents content.
        nce_identity: compare B with G_AB(B) too, which keeps the generator from changing what is in domain B already.
        nce_features: names of the features that are compared; null for pixels, down1, down2, block0, block4 of a
            ResNet (those it has) or pixels, down1 to down4 of a U-Net.
        nce_patches: patches drawn of each feature; 0 for all.
        nce_width: channels of the embeddings.
        nce_temperature: what similarities are divided by.
        nce_negatives: what a patch is told apart from: the other patches of its `image`, or of the `batch` (each
            process has its own).
        flip_equivariance: translate mirrored images in half of the steps, and mirror the features back.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        options: those of every `GANTask`, such as `generator`; of every `AdversarialTask`, such as `gan_mode`; and of
            every `Task`, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, the domains have different numbers of channels, or the generator has
            no feature of a given name.
    """

    monitor = "val/NCE"
    directions = ("AtoB",)
    discriminators: ClassVar = {"D_B": "B"}
    averaged = ("G_AB",)
    architecture = (*GANTask.architecture, "nce_features", "nce_width")

    def __init__(
        self,
        *,
        resample: ResampleName = "blur",
        init: InitName = "xavier",
        lambda_GAN: float = 1.0,
        lambda_NCE: float = 1.0,
        nce_identity: bool = True,
        nce_features: list[str] | None = None,
        nce_patches: int = 256,
        nce_width: int = 256,
        nce_temperature: float = 0.07,
        nce_negatives: Negatives = "image",
        flip_equivariance: bool = False,
        constant_epochs: int = 200,
        decay_epochs: int = 200,
        **options: Any,
    ) -> None:
        super().__init__(
            resample=resample, init=init, constant_epochs=constant_epochs, decay_epochs=decay_epochs, **options
        )
        check_not_negative(lambda_GAN=lambda_GAN, lambda_NCE=lambda_NCE)
        if self.channels["A"] != self.channels["B"]:
            raise ValueError(
                "CUT embeds images and translations with one encoder and needs the same channels in both domains, got "
                f"channels_A={self.channels['A']} and channels_B={self.channels['B']}; use DCLGAN or CycleGAN with "
                "lambda_identity 0"
            )
        self.lambda_GAN, self.lambda_NCE = lambda_GAN, lambda_NCE
        self.nce_identity, self.flip_equivariance = nce_identity, flip_equivariance
        self.contrast = PatchContrast(
            features=tuple(self.G_AB.contrastive_features if nce_features is None else nce_features),
            patches=nce_patches,
            temperature=nce_temperature,
            negatives=nce_negatives,
        )
        self.F_AB = self.contrast.heads(self.G_AB, nce_width)
        self.initialise_networks(self.F_AB)

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of Park et al. 2020, eq. 5, weighted, and the loss of the discriminator."""
        real_A, real_B = self._images(batch)
        ids, flip = batch.get("patch_ids", {}), self._flips(batch)
        fake_B, idt_B = self._translate_both(real_A, real_B, flip)  # G_AB(A), G_AB(B), mirrored or not
        # Adversarial loss, eq. 1: D_B moves first, and judges the fakes again for the generator
        seen_B, inside_B = self.inside(batch, "A", fake_B, mirrored=flip), self.inside(batch, "B", real_B)
        loss_D = self.adversary.discriminator_loss(self.D_B, inside_B, seen_B.detach(), "D_B")
        losses = self.update_discriminators({"D_B": loss_D})
        losses |= self.domain_losses(batch, AtoB=fake_B.flip(-1) if flip else fake_B)
        losses["G_AB"] = self.lambda_GAN * self.adversary.generator_loss(self.D_B, seen_B)
        # PatchNCE, eq. 3: the translation of each image, and of each image of B, corresponds to it
        weight = self.lambda_NCE / 2 if self.nce_identity else self.lambda_NCE
        losses["NCE"] = weight * self._nce(real_A, fake_B, ids=ids.get("NCE"), mirrored=flip)
        if self.nce_identity:
            idt_ids = ids.get("NCE_idt", ids.get("NCE_Y"))
            losses["NCE_idt"] = weight * self._nce(real_B, idt_B, ids=idt_ids, mirrored=flip)
        return losses

    def _flips(self, batch: Batch) -> bool:
        """Return whether this step translates mirrored images."""
        if not self.flip_equivariance:
            return False
        return bool(batch["flip"]) if "flip" in batch else torch.rand(()).item() < 0.5

    def _translate_both(self, real_A: Tensor, real_B: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
        """Return the fake and the identity image; the latter is not computed where no loss needs it."""
        if flip:
            real_A, real_B = real_A.flip(-1), real_B.flip(-1)
        if self.nce_identity:
            return call_on_both(self.G_AB, real_A, real_B)
        return self.G_AB(real_A), real_B

    def _nce(self, source: Tensor, translation: Tensor, **options: Any) -> Tensor:
        encoder = (self.G_AB, self.F_AB)
        return self.contrast(source, translation, keys_by=encoder, queries_by=encoder, **options)

    # Validation and prediction

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return real image and fake."""
        real_A = batch["A"].contiguous(memory_format=self.speed.memory_format)
        return {"real_A": real_A, "fake_B": self.G_AB(real_A)}

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted PatchNCE losses, whose places are the same in every validation."""
        draws = torch.Generator().manual_seed(0)
        figures = {"NCE": self._nce(sample["real_A"], sample["fake_B"], generator=draws)}
        if self.nce_identity:
            real_B = batch["B"].contiguous(memory_format=self.speed.memory_format)
            figures["NCE_idt"] = self._nce(real_B, self.G_AB(real_B), generator=draws)
        return figures
