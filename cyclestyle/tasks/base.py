"""The contract of a method: what a `Task` gives, and what is written once for all of them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.method import Method
from cyclestyle.speed.training import TrainingSpeed, compile_network
from cyclestyle.tasks.freezing import Freezing
from cyclestyle.tasks.optimizer import clip_groups, parameter_groups
from cyclestyle.tasks.random_state import Ranks
from cyclestyle.tasks.schedule import Schedule

Batch = dict[str, Any]
"""What a datamodule yields, such as `{"A": (N, C, H, W), "B": (N, C, H, W), "paths_A": [...], "paths_B": [...]}`."""


class Task(pl.LightningModule, Method):
    """A method that learns to translate images.

    A subclass gives three functions: `losses`, `sample` and `translate`. Steps, logging, checkpoints, random state and
    validation are written here. Callbacks and commands ask the attributes below and those of `Method`, and never the
    class.

    ```python
    class Denoise(Task):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.network = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 3, 1))

        def losses(self, batch):
            return {"l1": F.l1_loss(self.network(batch["A"] + 0.1 * torch.randn_like(batch["A"])), batch["A"])}

        def sample(self, batch):
            return {"real_A": batch["A"], "clean_A": self.network(batch["A"])}

        def translate(self, images, direction):
            return self.network(images)
    ```

    Constructor arguments are plain values, and `save_hyperparameters()` is called, so that `load` can build the task
    from its checkpoint. One that hands `**schedule` to `super().__init__(**schedule)` has the options below.

    Args:
        freeze: names of networks, layers or weights that are not trained, such as `G_AB.model.1`, which may have
            wildcards, such as `D_*`.
        schedule: those of `Schedule`.

    Attributes:
        schedule: the learning-rate policy.
        monitor: the logged figure that `best.ckpt` goes by where translations are not evaluated. The lower, the better.
        directions: the directions that evaluation measures. For each, `sample` must return `real_X` and `fake_Y`, and
            may return the reconstruction `rec_X`. Empty for methods without two domains.
        discriminators: for each submodule that is a discriminator, the domain that it judges. The loss of a
            discriminator has the name of the submodule.
        averaged: submodules whose weights are averaged (EMA); all trained ones but the discriminators by default.
        architecture: constructor arguments that a checkpoint and a config must agree on.
        filled_in: constructor arguments that the task finds itself where they are None, and checkpoints store.
        renamed_logs: old names of logged columns, for runs of earlier versions, and the names that they have now.
        lr: learning rate of Adam.
        betas: betas of Adam.
        lr_factors: the learning rates of groups of `parameter_groups` relative to `lr`, by their names.
        speed: how the networks run in training; to be set before the training starts.
        frozen: the weights that are not trained.
    """

    monitor: ClassVar[str] = "val/loss"
    discriminators: ClassVar[Mapping[str, str]] = {}
    averaged: ClassVar[tuple[str, ...] | None] = None
    architecture: ClassVar[tuple[str, ...]] = ()
    filled_in: ClassVar[tuple[str, ...]] = ()
    renamed_logs: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, freeze: Sequence[str] = (), **schedule: Any) -> None:
        super().__init__()
        self.schedule = Schedule(**schedule)
        self.frozen = Freezing(freeze)
        self.lr = 2e-4
        self.betas = (0.9, 0.999)
        self.lr_factors: Mapping[str, float] = {}
        self.speed = TrainingSpeed()
        self._ranks = Ranks()

    @property
    def device(self) -> torch.device:
        """Where the weights are. Lightning's own does not see that a module around the task was moved."""
        return next((parameter.device for parameter in self.parameters()), super().device)

    # What a method gives

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return every loss term of a batch, weighted, as scalars. Training minimises their sum."""

    @abstractmethod
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return the images that a sample grid shows and that evaluation measures, `(N, C, H, W)` in [-1, 1]."""

    # What a method may give

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what is logged of a held-out batch as `val/NAME`; by default the losses and their sum.

        Args:
            batch: the batch.
            sample: what `sample` returned for it.
        """
        losses = self.losses(batch)
        return {**losses, **self._sums(losses), "loss": total(losses)}

    def judged_real(self, discriminator: str, images: Tensor) -> Tensor | None:
        """Return which share of each image's scores says *real*, `(N,)` in [0, 1]; None where none can.

        Args:
            discriminator: its name in `discriminators`.
            images: `(N, C, H, W)` in [-1, 1].
        """
        return None

    def learning_rate_factor(self, epoch: int) -> float:
        """Return the factor of the learning rate in `epoch`, counted from 0, without warm-up."""
        return self.schedule.at_epoch(epoch)

    # Training

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the sum of the losses, and log every term and the sums."""
        losses = self.training_losses(batch)
        sums = self._sums(losses)
        self._log("train", {**losses, **sums}, batch)
        return {
            "loss": torch.stack(list(sums.values())).sum(),
            "losses": {name: value.detach() for name, value in {**losses, **sums}.items()},
        }

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return `losses`, computed as `speed` says."""
        with self.speed.convolutions:
            return self.losses(batch)

    def _sums(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of all losses, or one for the generators and one for the discriminators."""
        if not self.discriminators:
            return {"loss": total(losses)}
        return {
            "loss_G": total({name: value for name, value in losses.items() if name not in self.discriminators}),
            "loss_D": total({name: value for name, value in losses.items() if name in self.discriminators}),
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of the optimiser, each with a name; see `optimizer.parameter_groups`."""
        return parameter_groups(self.named_parameters(), self.discriminators, self.frozen.names)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return one Adam over all parameter groups. `on_train_batch_start` sets its rate."""
        groups = self.parameter_groups()
        return {"optimizer": torch.optim.Adam(groups, lr=self.lr, betas=self.betas, fused=self._fused())}

    def _fused(self) -> bool | None:
        """Whether Adam is fused; None lets PyTorch decide between its other ways.

        Not where gradients are clipped in `16-mixed`, because they would still be scaled.
        """
        clipped = self._trainer is not None and self.trainer.gradient_clip_val
        scaled = clipped and getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return None if scaled else self.speed.fused or None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the betas, and the learning rate, a function of the epoch and the step also in a resumed run.

        A task with optimisers of its own decides about their rates itself.
        """
        if type(self).configure_optimizers is not Task.configure_optimizers:
            return
        factor = self.learning_rate_factor(self.current_epoch) * self.schedule.warmup(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * factor * self.lr_factors.get(group["name"], 1.0)
            group["betas"] = self.betas

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each parameter group by itself."""
        clip_groups(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # Validation and test

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log the figures of held-out images, and return what `sample` returns."""
        return self._measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log and return the same as `validation_step`."""
        return self._measure("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Show the monitored figure to the policy `plateau`."""
        if self.schedule.plateau is not None:
            self.schedule.plateau.follow(self.trainer, self.monitor)

    def _measure(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        with self.speed.convolutions:
            sample = self.sample(batch)
            figures = self.figures(batch, sample)
        self._log(stage, figures, batch, sync_dist=True)
        return sample

    def _log(self, stage: str, values: Mapping[str, Tensor], batch: Batch, *, sync_dist: bool = False) -> None:
        # Without `prog_bar`, for which Lightning would wait for the device after every batch
        size = batch_size(batch)
        for name, value in values.items():
            self.log(f"{stage}/{name}", value.detach(), batch_size=size, sync_dist=sync_dist)

    # State beside the weights

    @property
    def name(self) -> str:
        """The name of the task in checkpoints; see `task_name`."""
        return task_name(type(self))

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.hparams)

    def translating_weights(self) -> dict[str, Tensor]:
        """Return the weights that translating needs: those of the averaged modules."""
        names = tuple(f"{name}." for name in self.averaged_modules())
        return {key: value for key, value in self.state_dict().items() if key.startswith(names)}

    def averaged_modules(self) -> tuple[str, ...]:
        """Return the names of the submodules whose weights are averaged."""
        if self.averaged is not None:
            return self.averaged
        return tuple(name for name, _ in self.named_children() if name not in self.discriminators)

    def setup(self, stage: str) -> None:
        """Set up what is trained, how the networks run and the random states of each rank.

        Raises:
            CycleStyleError: the policy `plateau` has no validation to follow, or `freeze` names what is not there.
        """
        if stage == "fit":  # before DDP, which waits for the gradients of all that is trained
            self.frozen.apply(self)
        if stage == "fit" and self.schedule.plateau is not None and not self.trainer.enable_validation:
            raise CycleStyleError(
                f"model.lr_policy plateau follows {self.monitor}, but the run has no validation; "
                "leave trainer.limit_val_batches above 0, or choose linear, step or cosine"
            )
        if self.speed.memory_format == torch.channels_last:
            self.arrange(self.speed.memory_format)
        self._ranks.reseed(self)

    def on_train_start(self) -> None:
        """Compile the networks where that is wanted, and continue with the random numbers of the checkpoint."""
        self.compile_for_training(steps=self.trainer.estimated_stepping_batches)
        self._ranks.start(self)

    def compile_for_training(self, *, steps: float) -> None:
        """Compile the networks, if `speed` wants that for a training of so many steps."""
        if self.speed.compiles(steps):
            rank_zero_info("compiling the networks; the first step takes minutes, in later runs a few seconds")
            for network in self.networks or tuple(self.children()):
                compile_network(network, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the name of the task, the state of its schedule, and the random state of every rank."""
        checkpoint["cyclestyle_task"] = task_name(type(self))
        if self.schedule.plateau is not None:
            checkpoint["plateau"] = self.schedule.plateau.state_dict()
        self._ranks.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the schedule and the random state of this rank. Whether Adam is fused is not restored."""
        if type(self).configure_optimizers is Task.configure_optimizers:
            for optimizer in checkpoint.get("optimizer_states", []):
                for group in optimizer["param_groups"]:
                    group["fused"] = self._fused()
        if self.schedule.plateau is not None and "plateau" in checkpoint:
            self.schedule.plateau.load_state_dict(checkpoint["plateau"])
        self._ranks.load(self, checkpoint)


def as_task(pl_module: pl.LightningModule) -> Task:
    """Return the module as a task.

    Raises:
        CycleStyleError: it is another LightningModule, which has no directions, sample or translate.
    """
    if not isinstance(pl_module, Task):
        raise CycleStyleError(
            f"{type(pl_module).__name__} is not a cyclestyle Task; derive it from cyclestyle.tasks.Task"
        )
    return pl_module


def task_name(task: type[Task]) -> str:
    """Return the name of a task in checkpoints: short for those of this package, else with its module."""
    own = task.__module__.startswith("cyclestyle.")
    return task.__name__ if own else f"{task.__module__}.{task.__qualname__}"


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the losses, a scalar."""
    return torch.stack(list(losses.values())).sum()


def batch_size(batch: Mapping[str, Any]) -> int:
    """Return the number of images in a batch: the length of its first tensor."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))
