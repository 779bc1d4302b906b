"""DCLGAN: CUT in both directions, with an encoder for each domain (Han et al. 2021)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cyclestyle.functional import GanMode
from cyclestyle.functional.contrastive import Negatives
from cyclestyle.networks.calls import call_on_both
from cyclestyle.networks.initialisation import InitName
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative
from cyclestyle.tasks.contrastive import Encoder, PatchContrast
from cyclestyle.tasks.discriminators_first import DiscriminatorsFirst
from cyclestyle.tasks.reconstruction import ReconstructionTask


class DCLGAN(DiscriminatorsFirst, ReconstructionTask):
    """Learns `G_AB: A → B` and `G_BA: B → A` by comparing patches of image and translation, without cycles.

    Each generator's encoder, with its heads, embeds images of its own source domain: an image of A is embedded by
    `G_AB` and `F_AB`, its translation by `G_BA` and `F_BA`. The domains may therefore have different channels.

    | here | paper | what it is |
    |---|---|---|
    | `G_AB`, `G_BA` | G, F | generators from A to B and from B to A |
    | `D_A`, `D_B` | D_X, D_Y | discriminators of domain A and of domain B |
    | `F_AB`, `F_BA` | H_X, H_Y | heads of the features of G_AB and of G_BA |
    | `train/G_AB`, `train/G_BA` | λ_GAN L_GAN | ½ λ_GAN · adversarial losses |
    | `train/NCE_AB`, `train/NCE_BA` | λ_NCE L_PatchNCE | ½ λ_NCE · PatchNCE of A and G_AB(A), of B and G_BA(B) |
    | `train/idt_A`, `train/idt_B` | λ_idt L_identity | ½ λ_identity · mean abs(G_BA(A) − A), mean abs(G_AB(B) − B) |
    | `train/D_A`, `train/D_B` | | losses of D_A and of D_B, halved |

    `train/loss_G` and `train/loss_D` are the sums of the first six and the last two. The ½ is that of the authors'
    code. The discriminators are updated first, and the adversarial losses of the generators come from the updated
    ones.

    A batch may carry `patch_ids`, a dictionary of lists with one `(P,)` for each feature, under `NCE_AB` and `NCE_BA`.

    Args:
        resample: `blur` (antialiased, the original's), `transpose` (the only one of a U-Net) or `resize`.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        gan_mode: `hinge` (the paper's), `lsgan`, `vanilla` or `wgangp` (with a gradient penalty).
        lambda_GAN: weight of the adversarial losses.
        lambda_NCE: weight of the PatchNCE losses.
        lambda_identity: weight of the identity losses; 0 turns them off.
        nce_features: names of the features that are compared; null for those of CUT without the pixels.
        nce_patches: patches drawn of each feature; 0 for all.
        nce_width: channels of the embeddings.
        nce_temperature: what similarities are divided by.
        nce_negatives: what a patch is told apart from: the other patches of its `image`, or of the `batch`.
        lr: Adam's learning rate.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        options: those of every `ReconstructionTask`, such as `perceptual_weight`; of every `GANTask`, such as
            `generator`; of every `AdversarialTask`, such as `diff_augment`; and of every `Task`, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, the generators have no feature of a given name, or identity losses
            are asked for between domains whose numbers of channels differ.
    """

    monitor = "val/NCE"
    directions = ("AtoB", "BtoA")
    discriminators: ClassVar = {"D_A": "A", "D_B": "B"}
    averaged = ("G_AB", "G_BA")
    architecture = (*ReconstructionTask.architecture, "nce_features", "nce_width")

    def __init__(
        self,
        *,
        resample: ResampleName = "blur",
        init: InitName = "xavier",
        gan_mode: GanMode = "hinge",
        lambda_GAN: float = 1.0,
        lambda_NCE: float = 2.0,
        lambda_identity: float = 1.0,
        nce_features: list[str] | None = None,
        nce_patches: int = 256,
        nce_width: int = 256,
        nce_temperature: float = 0.07,
        nce_negatives: Negatives = "image",
        lr: float = 1e-4,
        constant_epochs: int = 200,
        decay_epochs: int = 200,
        **options: Any,
    ) -> None:
        super().__init__(
            resample=resample,
            init=init,
            gan_mode=gan_mode,
            lr=lr,
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            **options,
        )
        check_not_negative(lambda_GAN=lambda_GAN, lambda_NCE=lambda_NCE, lambda_identity=lambda_identity)
        self.check_identity(lambda_identity)
        self.lambda_GAN, self.lambda_NCE, self.lambda_identity = lambda_GAN, lambda_NCE, lambda_identity
        usual = [name for name in self.G_AB.contrastive_features if name != "pixels"]
        self.contrast = PatchContrast(
            features=tuple(usual if nce_features is None else nce_features),
            patches=nce_patches,
            temperature=nce_temperature,
            negatives=nce_negatives,
        )
        self.F_AB, self.F_BA = (self.contrast.heads(network, nce_width) for network in (self.G_AB, self.G_BA))
        self.initialise_networks(self.F_AB, self.F_BA)

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of Han et al. 2021, section 3, weighted, and the losses of the discriminators."""
        real_A, real_B = self._images(batch)
        fake_B, same_B = self._translate_both(self.G_AB, real_A, real_B)  # G_AB(A), G_AB(B)
        fake_A, same_A = self._translate_both(self.G_BA, real_B, real_A)  # G_BA(B), G_BA(A)
        # Adversarial losses: the discriminators move first, and judge the fakes again for the generators
        seen_B, seen_A = self.inside(batch, "A", fake_B), self.inside(batch, "B", fake_A)
        inside_A, inside_B = self.inside(batch, "A", real_A), self.inside(batch, "B", real_B)
        losses = self.update_discriminators(
            {
                "D_A": self.adversary.discriminator_loss(self.D_A, inside_A, seen_A.detach(), "D_A"),
                "D_B": self.adversary.discriminator_loss(self.D_B, inside_B, seen_B.detach(), "D_B"),
            }
        )
        losses |= self.domain_losses(batch, AtoB=fake_B, BtoA=fake_A)
        losses["G_AB"] = self.lambda_GAN / 2 * self.adversary.generator_loss(self.D_B, seen_B)
        losses["G_BA"] = self.lambda_GAN / 2 * self.adversary.generator_loss(self.D_A, seen_A)
        # PatchNCE: each image is a key of its own domain, its translation a query of the other one
        ids = batch.get("patch_ids", {})
        losses["NCE_AB"] = self.lambda_NCE / 2 * self._nce_AB(real_A, fake_B, ids=ids.get("NCE_AB"))
        losses["NCE_BA"] = self.lambda_NCE / 2 * self._nce_BA(real_B, fake_A, ids=ids.get("NCE_BA"))
        # Identity losses: a generator does not change images of its target domain
        if self.lambda_identity > 0:
            losses["idt_A"] = self.lambda_identity / 2 * self.reconstruction_loss(same_A, real_A)
            losses["idt_B"] = self.lambda_identity / 2 * self.reconstruction_loss(same_B, real_B)
        return losses

    def _translate_both(self, generator: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fake and the identity image; the latter is not computed where no loss needs it."""
        if self.lambda_identity > 0:
            return call_on_both(generator, source, target)
        return generator(source), target

    def _nce_AB(self, real_A: Tensor, fake_B: Tensor, **options: Any) -> Tensor:
        return self.contrast(real_A, fake_B, keys_by=self._of_A, queries_by=self._of_B, **options)

    def _nce_BA(self, real_B: Tensor, fake_A: Tensor, **options: Any) -> Tensor:
        return self.contrast(real_B, fake_A, keys_by=self._of_B, queries_by=self._of_A, **options)

    @property
    def _of_A(self) -> Encoder:
        """What embeds images of domain A."""
        return self.G_AB, self.F_AB

    @property
    def _of_B(self) -> Encoder:
        """What embeds images of domain B."""
        return self.G_BA, self.F_BA

    # Validation and prediction

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return real image and fake, in both directions."""
        real_A, real_B = self._images(batch)
        return {"real_A": real_A, "fake_B": self.G_AB(real_A), "real_B": real_B, "fake_A": self.G_BA(real_B)}

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted PatchNCE losses, whose places are the same in every validation, and their mean."""
        draws = torch.Generator().manual_seed(0)
        figures = {
            "NCE_AB": self._nce_AB(sample["real_A"], sample["fake_B"], generator=draws),
            "NCE_BA": self._nce_BA(sample["real_B"], sample["fake_A"], generator=draws),
        }
        return figures | {"NCE": (figures["NCE_AB"] + figures["NCE_BA"]) / 2}
