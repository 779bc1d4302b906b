"""CycleGAN: two generators and two discriminators trained on unpaired images (Zhu et al. 2017)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.functional import GanMode
from cyclestyle.networks import build_discriminators, build_generator, initialise
from cyclestyle.networks.calls import call_at_any_size, call_on_both
from cyclestyle.networks.discriminators import DiscriminatorName, members
from cyclestyle.networks.generators import GeneratorName
from cyclestyle.networks.initialisation import InitName
from cyclestyle.networks.method import Direction
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.adversary import refuse_unofficial
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative, check_positive
from cyclestyle.tasks.image_pool import ImagePool
from cyclestyle.tasks.reconstruction import ReconstructionTask
from cyclestyle.weights.official import LOSSES, read_official


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
        generator: `resnet9` (256² and larger), `resnet6` (128²), `unet256` or `unet128`.
        discriminator: `basic` (70×70 PatchGAN), `n_layers` (as deep as `n_layers`), `pixel` or `projected` (in frozen
            features); or a list of these, whose losses are added.
        channels_A: channels of domain A's images, 1 to 4.
        channels_B: channels of domain B's images, 1 to 4.
        ngf: filters of the generators' first layer.
        ndf: filters of the discriminators' first layer.
        n_layers: layers of the `n_layers` discriminator.
        depth: residual blocks of a ResNet or levels of a U-Net, instead of those in the generator's name.
        resample: `transpose` (the original's); for a ResNet also `resize` (no checkerboards) or `blur` (antialiased
            generators and discriminators, as in CUT).
        residual: above 0, the generators learn the change of an image instead of the result, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from translations; not in training.
        dropout: dropout in the generators' blocks.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        init_gain: standard deviation of `normal`, scale of `xavier` and `orthogonal`.
        gan_mode: `lsgan` (the paper's), `vanilla`, `hinge` or `wgangp` (with a gradient penalty).
        lambda_A: weight of the cycle A → B → A.
        lambda_B: weight of the cycle B → A → B.
        lambda_identity: weight of the identity losses relative to the cycle weights; 0 turns them off.
        pool_size: generated images remembered for each discriminator.
        lr: Adam's learning rate.
        betas: Adam's betas.
        constant_epochs: epochs at `lr`.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        compile: compile the networks with `torch.compile`.
        channels_last: keep the networks and images in the memory format that tensor cores prefer.
        checkpoint_activations: recompute the generators' activations in the backward pass: less memory, more time.
        options: those of every `ReconstructionTask`, such as `perceptual_weight`, of every `AdversarialTask`, such as
            `diff_augment`, and those of the learning rate that every `Task` has, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, or identity losses are asked for between domains whose
            numbers of channels differ.
    """

    monitor = "val/cycle"
    directions = ("AtoB", "BtoA")
    discriminators: ClassVar = {"D_A": "A", "D_B": "B"}
    architecture = (
        *("spectral_norm", "generator", "depth", "resample", "residual", "ngf", "dropout", "channels_A", "channels_B"),
        *("discriminator", "ndf", "n_layers"),
    )
    renamed_logs: ClassVar = {
        f"{stage}/{old}": f"{stage}/{new}" for stage in ("train", "val") for old, new in LOSSES.items()
    }

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
        resample: ResampleName = "transpose",
        residual: float | bool = 0.0,
        comb_filter: bool = False,
        dropout: bool = False,
        init: InitName = "normal",
        init_gain: float = 0.02,
        gan_mode: GanMode = "lsgan",
        lambda_A: float = 10.0,
        lambda_B: float = 10.0,
        lambda_identity: float = 0.5,
        pool_size: int = 50,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        constant_epochs: int = 100,
        decay_epochs: int = 100,
        compile: bool = False,
        channels_last: bool = False,
        checkpoint_activations: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(gan_mode=gan_mode, constant_epochs=constant_epochs, decay_epochs=decay_epochs, **options)
        check_positive(ngf=ngf, ndf=ndf, lr=lr)
        check_not_negative(lambda_A=lambda_A, lambda_B=lambda_B, lambda_identity=lambda_identity)
        for name, channels in (("channels_A", channels_A), ("channels_B", channels_B)):
            if channels not in (1, 2, 3, 4):
                raise ValueError(f"{name} must be 1 to 4, got {channels}")
        if lambda_identity > 0 and channels_A != channels_B:
            raise ValueError(
                f"identity losses need the same channels in both domains, got channels_A={channels_A} and "
                f"channels_B={channels_B}; set lambda_identity to 0"
            )
        self.save_hyperparameters()
        self.lambda_A, self.lambda_B, self.lambda_identity = lambda_A, lambda_B, lambda_identity
        self.lr, self.betas = lr, betas
        self.compile_networks = compile
        self.channels = channels_A, channels_B
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

        def new_generator(inputs: int, outputs: int) -> nn.Module:
            return build_generator(
                generator,
                in_channels=inputs,
                out_channels=outputs,
                ngf=ngf,
                dropout=dropout,
                depth=depth,
                resample=resample,
                residual=residual,
                comb_filter=comb_filter,
                checkpoint_activations=checkpoint_activations,
            )

        def new_discriminator(inputs: int) -> nn.Module:
            return build_discriminators(
                discriminator,
                in_channels=inputs,
                ndf=ndf,
                n_layers=n_layers,
                resample=resample,
                projected_size=self.projected_size,
            )

        self.G_AB = new_generator(channels_A, channels_B)
        self.G_BA = new_generator(channels_B, channels_A)
        self.D_A = new_discriminator(channels_A)
        self.D_B = new_discriminator(channels_B)
        self.networks = (self.G_AB, self.G_BA, *members(self.D_A), *members(self.D_B))
        for network in self.networks:
            initialise(network, init, init_gain)
        self.normalise_discriminators()
        self.pool_A = ImagePool(pool_size, seed=0)
        self.pool_B = ImagePool(pool_size, seed=1)

    @classmethod
    def load_official(cls, folder: str | Path, *, epoch: str = "latest", **changes: Any) -> Self:
        """Build a task from the four files of the original implementation.

        The architecture is inferred from the shapes of the weights. Losses and schedule are those in the
        `train_opt.txt` of the original if it is in the same folder, else the defaults. The optimiser starts without
        state, because the original does not store it.

        Args:
            folder: contains `<epoch>_net_G_A.pth`, `…_G_B.pth`, `…_D_A.pth` and `…_D_B.pth`.
            epoch: `latest`, or an epoch's number.
            changes: constructor arguments that replace those of the files.

        Raises:
            CheckpointError: a file is missing, damaged, or not such a network, or the four do not fit each other.
            ValueError: a change is out of its range, or asks for spectral norm or residual generators.
        """
        refuse_unofficial(changes)
        settings, weights = read_official(Path(folder), epoch)
        task = cls(**{**settings, **changes})
        for name, network in weights.items():
            task.get_submodule(name).load_state_dict(network)
        return task

    # The step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of Zhu et al. 2017, eq. 3 and section 5.2, weighted, and the discriminator losses."""
        real_A, real_B = self._images(batch)
        fake_B, same_B = self._translate_both(self.G_AB, real_A, real_B)  # G_AB(A), G_AB(B)
        fake_A, same_A = self._translate_both(self.G_BA, real_B, real_A)  # G_BA(B), G_BA(A)
        losses = {}
        # Adversarial loss, eq. 1
        losses["G_AB"] = self.adversary.generator_loss(self.D_B, fake_B)
        losses["G_BA"] = self.adversary.generator_loss(self.D_A, fake_A)
        # Cycle consistency loss, eq. 2
        losses["cycle_A"] = self.lambda_A * self.reconstruction_loss(self.G_BA(fake_B), real_A)
        losses["cycle_B"] = self.lambda_B * self.reconstruction_loss(self.G_AB(fake_A), real_B)
        # Identity loss, section 5.2: a generator does not change images of its target domain
        if self.lambda_identity > 0:
            losses["idt_B"] = self.lambda_B * self.lambda_identity * self.reconstruction_loss(same_B, real_B)
            losses["idt_A"] = self.lambda_A * self.lambda_identity * self.reconstruction_loss(same_A, real_A)
        # Discriminator losses, eq. 1, on fakes from the history (section 4)
        losses["D_B"] = self.adversary.discriminator_loss(self.D_B, real_B, self.pool_B.query(fake_B.detach()), "D_B")
        losses["D_A"] = self.adversary.discriminator_loss(self.D_A, real_A, self.pool_A.query(fake_A.detach()), "D_A")
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
