"""The contract of a method: what a `Task` gives, and what is written once for all of them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.method import Direction, Method
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.speed.choice import Tuning
from cyclestyle.speed.convolutions import FastConvolutions
from cyclestyle.tasks.random_state import RankState, gather_ranks, random_state, restore_random
from cyclestyle.tasks.schedule import LRPolicy, Plateau, Schedule

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

    Constructor arguments must be numbers, strings, lists or dictionaries of these, and `save_hyperparameters()` must
    be called, so that `load` can build the task from its checkpoint. A task that takes `**schedule` and hands it to
    `super().__init__(**schedule)` has the options below.

    Args:
        constant_epochs: epochs at `lr`; null: all.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        lr_policy: how the rate falls: `linear` as these two say; `step` every `lr_step_epochs`; `plateau` where
            `monitor` no longer falls; `cosine` over `constant_epochs + decay_epochs`.
        lr_warmup_steps: steps in which the rate rises linearly at the start; 0 for none.
        lr_step_epochs: epochs between two reductions of `step`.
        lr_factor: what `step` and `plateau` multiply the rate by; null: 0.1 and 0.2, as the original code.
        lr_patience: validations that `plateau` waits for a figure that is better by 1 %.
        freeze: names of networks, layers or weights that are not trained, such as `G_AB.model.1`, which may have
            wildcards, such as `D_*`.

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
        memory_format: of weights and images. This and the following are what `tune` sets.
        compile_networks: whether training compiles the networks.
        compiled_steps: steps that a training must have for that.
        fused: whether Adam updates all parameters in one call.
    """

    monitor: ClassVar[str] = "val/loss"
    discriminators: ClassVar[Mapping[str, str]] = {}
    averaged: ClassVar[tuple[str, ...] | None] = None
    architecture: ClassVar[tuple[str, ...]] = ()
    filled_in: ClassVar[tuple[str, ...]] = ()
    renamed_logs: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        *,
        constant_epochs: int | None = None,
        decay_epochs: int = 0,
        lr_policy: LRPolicy = "linear",
        lr_warmup_steps: int = 0,
        lr_step_epochs: int = 50,
        lr_factor: float | None = None,
        lr_patience: int = 5,
        freeze: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.schedule = Schedule(
            policy=lr_policy,
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            warmup_steps=lr_warmup_steps,
            step_epochs=lr_step_epochs,
            factor=lr_factor,
            patience=lr_patience,
        )
        self.frozen_names = tuple(freeze)
        self._frozen: set[str] = set()  # the names of the parameters that `freeze` has turned off
        self._plateau = Plateau(self.schedule.reduction, lr_patience)
        self.lr = 2e-4
        self.betas = (0.9, 0.999)
        self.lr_factors: Mapping[str, float] = {}
        self.memory_format = torch.contiguous_format
        self.compile_networks = False
        self.compiled_steps = 0
        self.fused = False
        self._convolutions: AbstractContextManager[Any] = nullcontext()
        self._restored_random: dict[str, Tensor] | None = None  # from a checkpoint, until training starts

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

    def exported(self, direction: Direction) -> OnePass:
        """Return the translation as one module that other programs can run; by default `translate` itself.

        It is given images of the sizes that its networks require (`multiple` and `min_size`), as `call_at_any_size`
        gives them to these.

        Raises:
            CycleStyleError: the method, with these settings, is no single pass of networks.
        """
        if not self.one_pass:
            raise CycleStyleError(f"{self.name} computes each image in many passes, and cannot be exported")
        return OnePass.around(_Translation(self, direction), self.in_channels(direction))

    def learning_rate_factor(self, epoch: int) -> float:
        """Return the factor of the learning rate in `epoch`, counted from 0, without warm-up.

        With the policy `plateau` it is that of the present epoch.
        """
        return self._plateau.factor if self.schedule.policy == "plateau" else self.schedule.at_epoch(epoch)

    @classmethod
    def scheduled_epochs(cls, settings: Mapping[str, Any]) -> int | None:
        """Return the epochs that the schedule of the constructor arguments `settings` has; None if it has no end."""
        constant = settings.get("constant_epochs")
        return None if constant is None else int(constant) + int(settings.get("decay_epochs", 0))

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
        """Return `losses`, computed as `tune` says."""
        with self._convolutions:
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
        """Return the trained parameters in groups, each with a name: generators (or networks), and discriminators.

        Those in `freeze` are among them, but have no gradients, so that a resumed run may train them.
        """
        groups: dict[str, list[nn.Parameter]] = {"generators" if self.discriminators else "networks": []}
        for name, parameter in self.named_parameters():
            group = "discriminators" if name.partition(".")[0] in self.discriminators else next(iter(groups))
            if parameter.requires_grad or name in self._frozen:
                groups.setdefault(group, []).append(parameter)
        return [{"params": parameters, "name": name} for name, parameters in groups.items()]

    def frozen_parameters(self) -> list[str]:
        """Return the names of the parameters that `freeze` names.

        Raises:
            CycleStyleError: one of its names matches no trained parameter, or nothing is left to train.
        """
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        trained = [*trained, *self._frozen]
        found: set[str] = set()
        for pattern in self.frozen_names:
            matching = {name for name in trained if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
            if not matching:
                networks = ", ".join(dict.fromkeys(name.partition(".")[0] for name in trained))
                raise CycleStyleError(
                    f"model.freeze {pattern} matches no trained weights; the networks are {networks}, and their "
                    f"weights have names such as {trained[0]}"
                )
            found |= matching
        if found and found == set(trained):
            raise CycleStyleError("model.freeze leaves nothing to train; freeze less")
        return sorted(found)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return one Adam over all parameter groups. `on_train_batch_start` sets its rate."""
        fused = self._fused() or None  # None: PyTorch decides between its other ways
        return {"optimizer": torch.optim.Adam(self.parameter_groups(), lr=self.lr, betas=self.betas, fused=fused)}

    def _fused(self) -> bool:
        """Whether Adam is fused; not where gradients are clipped in `16-mixed`, because they would still be scaled."""
        if self._trainer is None or not self.trainer.gradient_clip_val:
            return self.fused
        return self.fused and getattr(self.trainer.precision_plugin, "scaler", None) is None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate, a function of the epoch and the step, and the betas.

        A resumed run therefore has the rate of an uninterrupted one, or the one that a changed setting asks for. A
        task with optimisers of its own decides about their rates itself.
        """
        if type(self).configure_optimizers is not Task.configure_optimizers:
            return
        factor = self.learning_rate_factor(self.current_epoch) * self.schedule.warmup(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * factor * self.lr_factors.get(group["name"], 1.0)
            group["betas"] = self.betas

    def on_validation_epoch_end(self) -> None:
        """Show the monitored figure to the policy `plateau`, before any checkpoint of this validation is written.

        Raises:
            CycleStyleError: the figure has not been logged.
        """
        trainer = self.trainer
        if self.schedule.policy != "plateau" or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise CycleStyleError(
                f"lr_policy plateau follows {self.monitor}, which the validation has not logged; choose another policy"
            )
        self._plateau.observe(float(trainer.callback_metrics[self.monitor]))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each parameter group by itself: a norm over both would let one player scale the other."""
        if not gradient_clip_val:
            return
        for group in optimizer.param_groups:
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(group["params"], gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    # Validation and test

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log the figures of held-out images, and return what `sample` returns."""
        return self._measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log and return the same as `validation_step`."""
        return self._measure("test", batch)

    def _measure(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        with self._convolutions:
            sample = self.sample(batch)
            figures = self.figures(batch, sample)
        self._log(stage, figures, batch, sync_dist=True)
        return sample

    def _log(
        self,
        stage: str,
        values: Mapping[str, Tensor],
        batch: Batch,
        *,
        sync_dist: bool = False,
    ) -> None:
        # Without `prog_bar`, for which Lightning would wait for the device after every batch
        size = batch_size(batch)
        for name, value in values.items():
            self.log(f"{stage}/{name}", value.detach(), batch_size=size, sync_dist=sync_dist)

    # Speed

    def tune(self, tuning: Tuning, *, compiled_steps: int = 0) -> None:
        """Train as `tuning` says, in which null leaves everything as it is.

        Args:
            tuning: what makes the task faster.
            compiled_steps: steps that a training must have for its networks to be compiled.
        """
        if tuning.channels_last:
            self.memory_format = torch.channels_last
            self.arrange(self.memory_format)
        if tuning.winograd:
            self._convolutions = FastConvolutions()
        if tuning.compile:
            self.compile_networks, self.compiled_steps = True, compiled_steps
        self.fused = bool(tuning.fused)

    def compile_for_training(self, *, steps: float) -> None:
        """Compile the networks, if that is wanted for a training of so many steps."""
        if self.compile_networks and steps >= self.compiled_steps:
            rank_zero_info("compiling the networks; the first step takes minutes, in later runs a few seconds")
            # Without layouts chosen by the compiler: on processors with AMX, PyTorch 2.14.1 gives NaN in them for the
            # gradient of a norm before a padded residual block in bfloat16.
            options = {"layout_optimization": False} if self.device.type == "cpu" else None
            for network in self.networks or tuple(self.children()):
                # In place: the keys of the state_dict stay the same. Without CUDA graphs (mode="reduce-overhead"): the
                # next call of a network overwrites what its graph returned, such as the fakes of a grid, and the step
                # of a discriminator inside the batch does so while the generator's loss still needs them.
                network.compile(options=options)

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
            self._frozen = set(self.frozen_parameters())
            for name in self._frozen:
                self.get_parameter(name).requires_grad_(False)
        if stage == "fit" and self.schedule.policy == "plateau" and not self.trainer.enable_validation:
            raise CycleStyleError(
                f"model.lr_policy plateau follows {self.monitor}, but the run has no validation; "
                "leave trainer.limit_val_batches above 0, or choose linear, step or cosine"
            )
        if self.memory_format == torch.channels_last:
            self.arrange(self.memory_format)
        parts = self._rank_states()
        for number, part in enumerate(parts.values()):
            part.reseed(self.global_rank * len(parts) + number)

    def on_train_start(self) -> None:
        """Compile the networks where that is wanted, and continue with the random numbers of the checkpoint.

        Without a checkpoint, each rank gets its own random numbers.
        """
        self.compile_for_training(steps=self.trainer.estimated_stepping_batches)
        if self._restored_random is not None:
            restore_random(self._restored_random, self.device)
        elif self.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + self.global_rank)
        self._restored_random = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the name of the task, the state of its schedule, and the random state of every rank."""
        checkpoint["cyclestyle_task"] = task_name(type(self))
        if self.schedule.policy == "plateau":
            checkpoint["plateau"] = self._plateau.state_dict()
        parts = {name: part.state_dict() for name, part in self._rank_states().items()}
        states = gather_ranks({"parts": parts, "random": random_state(self.device)})
        checkpoint["rank_states"] = [state["parts"] for state in states]
        checkpoint["random"] = [state["random"] for state in states]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the schedule, and the random state of this rank, unless the checkpoint does not have this rank.

        A rank that it does not have takes only states that all ranks share. Whether Adam is fused is not restored.
        """
        if type(self).configure_optimizers is Task.configure_optimizers:
            for optimizer in checkpoint.get("optimizer_states", []):
                for group in optimizer["param_groups"]:
                    group["fused"] = self._fused() or None
        if "plateau" in checkpoint:
            self._plateau.load_state_dict(checkpoint["plateau"])
        states, random = checkpoint.get("rank_states", []), checkpoint.get("random", [])
        known = self.global_rank < len(states)
        stored = states[self.global_rank if known else 0] if states else {}
        for name, part in self._rank_states().items():
            if name in stored and (known or part.shared):
                part.load_state_dict(stored[name], self.device)
        if self.global_rank < len(random):
            self._restored_random = random[self.global_rank]

    def _rank_states(self) -> dict[str, RankState]:
        return {name: part for name, part in vars(self).items() if isinstance(part, RankState)}


class _Translation(nn.Module):
    """`translate` in one direction, as a module."""

    def __init__(self, task: Task, direction: Direction) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(dict(task.named_children()))  # whose weights are exported
        self.translate = partial(task.translate, direction=direction)

    def forward(self, images: Tensor) -> Tensor:
        """Shape: `(N, C, H, W)` → `(N, C', H, W)`, in [-1, 1]."""
        result: Tensor = self.translate(images)
        return result


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
