"""CycleGAN: two generators and two discriminators trained on unpaired images (Zhu et al. 2017)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from cyclestyle.functional import GanMode, discriminator_loss, generator_loss
from cyclestyle.functional.adversarial import check_gan_mode
from cyclestyle.networks import build_discriminator, build_generator, initialise
from cyclestyle.networks.discriminators import DiscriminatorName
from cyclestyle.networks.generators import GeneratorName, UpsampleName
from cyclestyle.networks.initialisation import InitName
from cyclestyle.tasks.checks import check_not_negative, check_positive
from cyclestyle.tasks.image_pool import ImagePool
from cyclestyle.weights.official import read_official

Batch = dict[str, Any]
"""`{"A": (N, C_A, H, W), "B": (N, C_B, H, W), "paths_A": [...], "paths_B": [...]}`, images in [-1, 1]."""


class CycleGAN(pl.LightningModule):
    """Learns `G_AB: A → B` and `G_BA: B → A` from two sets of unrelated images.

    Names here, in the logs, and in the paper and the original code:

    | here | paper | original code | what it is |
    |---|---|---|---|
    | `G_AB` | G | `netG_A` | generator from A to B |
    | `G_BA` | F | `netG_B` | generator from B to A |
    | `D_B` | D_Y | `netD_A` | discriminator of domain **B** |
    | `D_A` | D_X | `netD_B` | discriminator of domain **A** |
    | `train/G_A` | L_GAN(G, D_Y) | `loss_G_A` | adversarial loss of G_AB |
    | `train/G_B` | L_GAN(F, D_X) | `loss_G_B` | adversarial loss of G_BA |
    | `train/cycle_A` | λ L_cyc, first term | `loss_cycle_A` | λ_A · mean abs(G_BA(G_AB(A)) − A) |
    | `train/cycle_B` | λ L_cyc, second term | `loss_cycle_B` | λ_B · mean abs(G_AB(G_BA(B)) − B) |
    | `train/idt_A` | L_identity, first term | `loss_idt_A` | λ_B · λ_identity · mean abs(G_AB(B) − B) |
    | `train/idt_B` | L_identity, second term | `loss_idt_B` | λ_A · λ_identity · mean abs(G_BA(A) − A) |
    | `train/D_A` | | `loss_D_A` | discriminator loss in domain **B**, halved |
    | `train/D_B` | | `loss_D_B` | discriminator loss in domain **A**, halved |

    `train/loss_G` and `train/loss_D` are the sums of the first eight and the last two.

    One backward does both updates of a step. The discriminator loss reads detached fakes, made before the
    generators move; the generator loss reads discriminators that are frozen and have not moved. So
    `loss_G + loss_D` under one Adam is the same update as two backward passes and two optimisers, and
    automatic optimisation, DDP, gradient accumulation, AMP and schedulers work as Lightning documents them.

    Args:
        generator: `resnet9` (256² and larger), `resnet6` (128²), `unet256` or `unet128`.
        discriminator: `basic` (70×70 PatchGAN), `n_layers` (as deep as `n_layers`) or `pixel`.
        channels_A: channels of domain A's images, 1 to 4.
        channels_B: channels of domain B's images, 1 to 4.
        ngf: filters of the generators' first layer.
        ndf: filters of the discriminators' first layer.
        n_layers: layers of the `n_layers` discriminator.
        depth: residual blocks of a ResNet or levels of a U-Net, instead of those in the generator's name.
        upsample: `transpose` (the original's) or `resize` (a ResNet without checkerboards).
        dropout: dropout in the generators' blocks.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        init_gain: standard deviation of `normal`, scale of `xavier` and `orthogonal`.
        gan_mode: `lsgan` (the paper's), `vanilla` or `hinge`.
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

    Raises:
        ValueError: a value is out of its range, or identity losses are asked for between domains whose
            numbers of channels differ.
    """

    def __init__(
        self,
        *,
        generator: GeneratorName = "resnet9",
        discriminator: DiscriminatorName = "basic",
        channels_A: int = 3,
        channels_B: int = 3,
        ngf: int = 64,
        ndf: int = 64,
        n_layers: int = 3,
        depth: int | None = None,
        upsample: UpsampleName = "transpose",
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
    ) -> None:
        super().__init__()
        check_gan_mode(gan_mode)
        check_positive(ngf=ngf, ndf=ndf, lr=lr)
        check_not_negative(
            lambda_A=lambda_A, lambda_B=lambda_B, lambda_identity=lambda_identity, decay_epochs=decay_epochs
        )
        for name, channels in (("channels_A", channels_A), ("channels_B", channels_B)):
            if channels not in (1, 2, 3, 4):
                raise ValueError(f"{name} must be 1 to 4, got {channels}")
        if lambda_identity > 0 and channels_A != channels_B:
            raise ValueError(
                f"identity losses need the same channels in both domains, got channels_A={channels_A} and "
                f"channels_B={channels_B}; set lambda_identity to 0"
            )
        self.save_hyperparameters()
        self.gan_mode = gan_mode
        self.lambda_A, self.lambda_B, self.lambda_identity = lambda_A, lambda_B, lambda_identity
        self.lr, self.betas = lr, betas
        self.constant_epochs, self.decay_epochs = constant_epochs, decay_epochs
        self.compile_networks = compile
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

        def new_generator(inputs: int, outputs: int) -> nn.Module:
            return build_generator(
                generator,
                in_channels=inputs,
                out_channels=outputs,
                ngf=ngf,
                dropout=dropout,
                depth=depth,
                upsample=upsample,
                checkpoint_activations=checkpoint_activations,
            )

        def new_discriminator(inputs: int) -> nn.Module:
            return build_discriminator(discriminator, in_channels=inputs, ndf=ndf, n_layers=n_layers)

        self.G_AB = new_generator(channels_A, channels_B)
        self.G_BA = new_generator(channels_B, channels_A)
        self.D_A = new_discriminator(channels_A)
        self.D_B = new_discriminator(channels_B)
        self.networks = (self.G_AB, self.G_BA, self.D_A, self.D_B)  # a tuple: not registered a second time
        for network in self.networks:
            initialise(network, init, init_gain)
        self.pool_A = ImagePool(pool_size, seed=0)
        self.pool_B = ImagePool(pool_size, seed=1)
        self._random: dict[str, Tensor] | None = None  # a checkpoint's, until training starts

    @classmethod
    def load_official(cls, folder: str | Path, *, epoch: str = "latest", **changes: Any) -> Self:
        """Build a task that goes on from the four files of the original implementation.

        The architecture is read off the weights' shapes; losses and schedule are those of the original's
        `train_opt.txt`, where it lies beside them, else the defaults. Optimisers start anew: the original
        does not keep theirs.

        Args:
            folder: holds `<epoch>_net_G_A.pth`, `…_G_B.pth`, `…_D_A.pth` and `…_D_B.pth`.
            epoch: `latest`, or an epoch's number.
            changes: arguments of this class that replace what was read.

        Raises:
            CheckpointError: a file is missing, damaged, or not such a network, or the four do not fit each other.
            ValueError: a change is out of its range.
        """
        settings, weights = read_official(Path(folder), epoch)
        task = cls(**{**settings, **changes})
        for name, network in weights.items():
            task.get_submodule(name).load_state_dict(network)
        return task

    # The step

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return `loss_G + loss_D` of one step, and log their terms."""
        real_A, real_B = self._images(batch)
        fake_B, idt_A = self._translate(self.G_AB, real_A, real_B)
        fake_A, idt_B = self._translate(self.G_BA, real_B, real_A)
        generators = self._generator_losses(real_A, real_B, fake_A, fake_B, idt_A, idt_B)
        discriminators = {
            "D_A": self._discriminator_loss(self.D_B, real_B, self.pool_B.query(fake_B.detach())),
            "D_B": self._discriminator_loss(self.D_A, real_A, self.pool_A.query(fake_A.detach())),
        }
        loss_G, loss_D = sum_of(generators), sum_of(discriminators)
        losses = {**generators, **discriminators, "loss_G": loss_G, "loss_D": loss_D}
        self._log("train", losses, batch_size=len(real_A), prog_bar=("loss_G", "loss_D"))
        return {"loss": loss_G + loss_D, "losses": {name: value.detach() for name, value in losses.items()}}

    def _images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        A, B = (batch[domain].contiguous(memory_format=self.memory_format) for domain in ("A", "B"))
        return A, B

    def _generator_losses(
        self, real_A: Tensor, real_B: Tensor, fake_A: Tensor, fake_B: Tensor, idt_A: Tensor, idt_B: Tensor
    ) -> dict[str, Tensor]:
        """The terms of Zhu et al. 2017, eq. 3 and section 5.2, weighted, under the original's names."""
        losses = {}
        with frozen(self.D_A, self.D_B):
            # Adversarial loss, eq. 1
            losses["G_A"] = generator_loss(self.D_B(fake_B), self.gan_mode)
            losses["G_B"] = generator_loss(self.D_A(fake_A), self.gan_mode)
        # Cycle consistency loss, eq. 2
        losses["cycle_A"] = self.lambda_A * F.l1_loss(self.G_BA(fake_B), real_A)
        losses["cycle_B"] = self.lambda_B * F.l1_loss(self.G_AB(fake_A), real_B)
        # Identity loss, section 5.2: a generator leaves images of its target domain as they are
        if self.lambda_identity > 0:
            losses["idt_A"] = self.lambda_B * self.lambda_identity * F.l1_loss(idt_A, real_B)
            losses["idt_B"] = self.lambda_A * self.lambda_identity * F.l1_loss(idt_B, real_A)
        return losses

    def _discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        scores_real, scores_fake = apply_to_both(discriminator, real, fake)
        return discriminator_loss(scores_real, scores_fake, self.gan_mode)

    def _translate(self, generator: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fake and the identity image; without an identity loss the latter is not computed."""
        if self.lambda_identity > 0:
            return apply_to_both(generator, source, target)
        return generator(source), target

    # Validation and prediction

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log the unweighted cycle and identity errors of held-out images, mean absolute, in [0, 2].

        Returns:
            What `sample` returns.
        """
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log and return the same as validation."""
        return self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        real_A, real_B = self._images(batch)
        fake_B, idt_A = self._translate(self.G_AB, real_A, real_B)
        fake_A, idt_B = self._translate(self.G_BA, real_B, real_A)
        rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
        errors = {"cycle_A": F.l1_loss(rec_A, real_A), "cycle_B": F.l1_loss(rec_B, real_B)}
        errors["cycle"] = (errors["cycle_A"] + errors["cycle_B"]) / 2
        if self.lambda_identity > 0:
            errors |= {"idt_A": F.l1_loss(idt_A, real_B), "idt_B": F.l1_loss(idt_B, real_A)}
        self._log(stage, errors, batch_size=len(real_A), sync_dist=True)
        return {"real_A": real_A, "fake_B": fake_B, "rec_A": rec_A, "real_B": real_B, "fake_A": fake_A, "rec_B": rec_B}

    def _log(
        self,
        stage: str,
        values: dict[str, Tensor],
        *,
        batch_size: int,
        prog_bar: tuple[str, ...] = (),
        sync_dist: bool = False,
    ) -> None:
        for name, value in values.items():
            self.log(
                f"{stage}/{name}",
                value.detach(),
                batch_size=batch_size,
                prog_bar=name in prog_bar,
                sync_dist=sync_dist,
            )

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return what a sample grid shows of a batch: real, fake and reconstruction, in both directions."""
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

    # Optimisation

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One Adam with a group a player; the rate is constant, then falls linearly to 0, epoch by epoch."""
        groups = [
            {"params": [*self.G_AB.parameters(), *self.G_BA.parameters()], "name": "generators"},
            {"params": [*self.D_A.parameters(), *self.D_B.parameters()], "name": "discriminators"},
        ]
        optimizer = torch.optim.Adam(groups, lr=self.lr, betas=self.betas)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def _decay(self, epoch: int) -> float:
        """Factor of the learning rate in `epoch`, counted from 0; the last epoch still learns, as the original's."""
        past = max(0, epoch + 1 - self.constant_epochs)
        return max(0.0, 1.0 - past / (self.decay_epochs + 1))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each player's gradients by themselves: a norm over both would let one player scale the other."""
        if not gradient_clip_val:
            return
        for group in optimizer.param_groups:
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(group["params"], gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    # State beside the weights

    def setup(self, stage: str) -> None:
        """Give each rank a pool of its own, and put the networks into the form that they are run in."""
        self.pool_A = ImagePool(self.pool_A.size, seed=2 * self.global_rank)
        self.pool_B = ImagePool(self.pool_B.size, seed=2 * self.global_rank + 1)
        for network in self.networks:
            network.to(memory_format=self.memory_format)
            if self.compile_networks:
                network.compile()  # in place: the keys of the state_dict stay

    def on_train_start(self) -> None:
        """Go on with the random numbers of the checkpoint; without one, give each rank its own."""
        if self._random is not None:
            restore_random(self._random, self.device)
        elif self.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + self.global_rank)
        self._random = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what names this checkpoint's kind, and the pools and random numbers of every rank."""
        checkpoint["cyclestyle_task"] = "CycleGAN"
        pools = {"A": self.pool_A.state_dict(), "B": self.pool_B.state_dict()}
        states = gather_ranks({"pools": pools, "random": random_state(self.device)})
        checkpoint["image_pools"] = [state["pools"] for state in states]
        checkpoint["random"] = [state["random"] for state in states]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore this rank's pools and random numbers; a rank that the checkpoint does not know starts anew."""
        pools, random = checkpoint.get("image_pools", []), checkpoint.get("random", [])
        if self.global_rank < len(pools):
            self.pool_A.load_state_dict(pools[self.global_rank]["A"], self.device)
            self.pool_B.load_state_dict(pools[self.global_rank]["B"], self.device)
        if self.global_rank < len(random):
            self._random = random[self.global_rank]


def apply_to_both(network: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Apply `network` to two batches in one call where their shapes allow; instance norm makes that exact."""
    if first.shape[1:] != second.shape[1:]:
        return network(first), network(second)
    results = network(torch.cat([first, second]))
    return results[: len(first)], results[len(first) :]


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let gradients flow through `networks` to their input, but not into their parameters."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def gather_ranks(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the state of every rank, in their order; every rank must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of PyTorch's random numbers, which dropout draws, on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: dict[str, Tensor], device: torch.device) -> None:
    """Continue where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """The sum of the losses, a scalar."""
    return torch.stack(list(losses.values())).sum()
