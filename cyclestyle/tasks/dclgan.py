"""DCLGAN: CUT in both directions, with an encoder for each domain (Han et al. 2021)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cyclestyle.functional import GanMode
from cyclestyle.functional.contrastive import Negatives
from cyclestyle.networks import build_discriminators, build_generator, initialise
from cyclestyle.networks.calls import call_at_any_size, call_on_both
from cyclestyle.networks.discriminators import DiscriminatorName, members
from cyclestyle.networks.generators import GeneratorName
from cyclestyle.networks.initialisation import InitName
from cyclestyle.networks.method import Direction
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_channels, check_not_negative, check_positive
from cyclestyle.tasks.contrastive import Encoder, PatchContrast, from_official
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
        generator: `resnet9` (256² and larger), `resnet6` (128²), `unet256` or `unet128`.
        discriminator: `basic` (PatchGAN), `n_layers` (as deep as `n_layers`), `pixel` or `projected` (in frozen
            features); or a list of these, whose losses are added.
        channels_A: channels of domain A's images, 1 to 4.
        channels_B: channels of domain B's images, 1 to 4.
        ngf: filters of the generators' first layer.
        ndf: filters of the discriminators' first layer.
        n_layers: layers of the `n_layers` discriminator.
        depth: residual blocks of a ResNet or levels of a U-Net, instead of those in the generator's name.
        resample: `blur` (antialiased, the original's), `transpose` (the only one of a U-Net) or `resize`.
        residual: above 0, the generators learn the change of an image instead of the result, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from translations; not in training.
        dropout: dropout in the generators' blocks.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        init_gain: standard deviation of `normal`, scale of `xavier` and `orthogonal`.
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
        betas: Adam's betas.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        compile: compile the networks with `torch.compile`, except for the encoder alone in PatchNCE.
        channels_last: keep the networks and images in the memory format that tensor cores prefer.
        checkpoint_activations: recompute the generators' activations in the backward pass: less memory, more time.
        options: those of every `ReconstructionTask`, such as `perceptual_weight`, of every `AdversarialTask`, such as
            `diff_augment`, and those of the learning rate that every `Task` has, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, the generators have no feature of a given name, or identity losses
            are asked for between domains whose numbers of channels differ.
    """

    monitor = "val/NCE"
    directions = ("AtoB", "BtoA")
    discriminators: ClassVar = {"D_A": "A", "D_B": "B"}
    averaged = ("G_AB", "G_BA")
    architecture = (
        *("spectral_norm", "generator", "depth", "resample", "residual", "ngf", "dropout", "channels_A", "channels_B"),
        *("discriminator", "ndf", "n_layers", "nce_features", "nce_width"),
    )

    def __init__(
        self,
        *,
        generator: GeneratorName = "resnet9",
        discriminator: DiscriminatorName | list[DiscriminatorName] = "basic",
        channels_A: int = 3,
        channels_B: int = 3,
        ngf: int = 64,
        ndf: int = 64,
        n_layers: int = 3,
        depth: int | None = None,
        resample: ResampleName = "blur",
        residual: float | bool = 0.0,
        comb_filter: bool = False,
        dropout: bool = False,
        init: InitName = "xavier",
        init_gain: float = 0.02,
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
        betas: tuple[float, float] = (0.5, 0.999),
        constant_epochs: int = 200,
        decay_epochs: int = 200,
        compile: bool = False,
        channels_last: bool = False,
        checkpoint_activations: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(gan_mode=gan_mode, constant_epochs=constant_epochs, decay_epochs=decay_epochs, **options)
        check_positive(ngf=ngf, ndf=ndf, lr=lr)
        check_not_negative(lambda_GAN=lambda_GAN, lambda_NCE=lambda_NCE, lambda_identity=lambda_identity)
        check_channels(channels_A=channels_A, channels_B=channels_B)
        if lambda_identity > 0 and channels_A != channels_B:
            raise ValueError(
                f"identity losses need the same channels in both domains, got channels_A={channels_A} and "
                f"channels_B={channels_B}; set lambda_identity to 0"
            )
        self.save_hyperparameters()
        self.lambda_GAN, self.lambda_NCE = lambda_GAN, lambda_NCE
        self.lambda_identity = lambda_identity
        self.lr, self.betas = lr, betas
        self.compile_networks, self.channels = compile, (channels_A, channels_B)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        new_generator = partial(build_generator, generator, ngf=ngf, dropout=dropout, depth=depth, resample=resample)
        new_generator = partial(
            new_generator, residual=residual, comb_filter=comb_filter, checkpoint_activations=checkpoint_activations
        )
        new_discriminator = partial(build_discriminators, discriminator, ndf=ndf, n_layers=n_layers, resample=resample)
        new_discriminator = partial(new_discriminator, projected_size=self.projected_size)
        self.G_AB = new_generator(in_channels=channels_A, out_channels=channels_B)
        self.G_BA = new_generator(in_channels=channels_B, out_channels=channels_A)
        self.D_A, self.D_B = new_discriminator(in_channels=channels_A), new_discriminator(in_channels=channels_B)
        usual = [name for name in self.G_AB.contrastive_features if name != "pixels"]
        self.contrast = PatchContrast(
            features=tuple(usual if nce_features is None else nce_features),
            patches=nce_patches,
            temperature=nce_temperature,
            negatives=nce_negatives,
        )
        self.F_AB, self.F_BA = (self.contrast.heads(network, nce_width) for network in (self.G_AB, self.G_BA))
        self.networks = (self.G_AB, self.G_BA, *members(self.D_A), *members(self.D_B))
        for network in (*self.networks, self.F_AB, self.F_BA):
            initialise(network, init, init_gain)
        self.normalise_discriminators()

    @classmethod
    def load_official(cls, folder: str | Path, *, epoch: str = "latest", **changes: Any) -> Self:
        """Build a task from the six files of the original implementation.

        See `CUT.load_official`. The original's heads F1 and F2 are `F_AB` and `F_BA`.

        Args:
            folder: contains `<epoch>_net_G_A.pth`, `…_G_B.pth`, `…_D_A.pth`, `…_D_B.pth`, `…_F1.pth` and `…_F2.pth`.
            epoch: `latest`, or an epoch's number.
            changes: constructor arguments that replace those of the files.

        Raises:
            CheckpointError: a file is missing, damaged, or not such a network, the six do not fit each other, or the
                heads are not those of `nce_features`.
            ValueError: a change is out of its range.
        """
        return from_official(cls, folder, epoch, changes)

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of Han et al. 2021, section 3, weighted, and the losses of the discriminators."""
        real_A, real_B = self._images(batch)
        fake_B, same_B = self._translate_both(self.G_AB, real_A, real_B)  # G_AB(A), G_AB(B)
        fake_A, same_A = self._translate_both(self.G_BA, real_B, real_A)  # G_BA(B), G_BA(A)
        # Adversarial losses: the discriminators move first, and judge the fakes again for the generators
        losses = self.update_discriminators(
            {
                "D_A": self.adversary.discriminator_loss(self.D_A, real_A, fake_A.detach(), "D_A"),
                "D_B": self.adversary.discriminator_loss(self.D_B, real_B, fake_B.detach(), "D_B"),
            }
        )
        losses["G_AB"] = self.lambda_GAN / 2 * self.adversary.generator_loss(self.D_B, fake_B)
        losses["G_BA"] = self.lambda_GAN / 2 * self.adversary.generator_loss(self.D_A, fake_A)
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

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width."""
        images = images.contiguous(memory_format=self.memory_format)
        return call_at_any_size(self.G_AB if direction == "AtoB" else self.G_BA, images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the generator of the direction."""
        return OnePass.of(self.G_AB if direction == "AtoB" else self.G_BA, self.in_channels(direction))

    def in_channels(self, direction: Direction) -> int:
        """Return the channels of the source domain."""
        return self.channels[0 if direction == "AtoB" else 1]
