"""Learning-rate policies: the factor of the learning rate at a step and in an epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from cyclestyle.errors import CycleStyleError
from cyclestyle.tasks.checks import check_choices, check_not_negative, check_positive

LRPolicy = Literal["linear", "step", "plateau", "cosine"]

FACTORS = {"step": 0.1, "plateau": 0.2}
"""What the rate is multiplied by at each reduction, in `networks.get_scheduler` of the original code."""
THRESHOLD = 0.01  # of `plateau`, in the original: a figure is better if it is lower by more than 1 %


class Plateau:
    """Reduces the rate where a figure no longer falls, as `torch.optim.lr_scheduler.ReduceLROnPlateau` does.

    That scheduler is not used, because Lightning steps it after the checkpoint of an epoch has been written.

    Args:
        reduction: what the rate is multiplied by.
        patience: figures that may follow the best one without being better; the next such figure reduces the rate.

    Attributes:
        factor: the present factor of the rate.
    """

    def __init__(self, reduction: float, patience: int) -> None:
        self.reduction, self.patience = reduction, patience
        self.factor, self.best, self.worse = 1.0, math.inf, 0

    def observe(self, figure: float) -> None:
        """Take the figure of a validation into account, the lower the better, unless it could not be computed."""
        if not math.isfinite(figure):
            return
        if figure < self.best * (1 - THRESHOLD):
            self.best, self.worse = figure, 0
            return
        self.worse += 1
        if self.worse > self.patience:
            self.factor, self.worse = self.factor * self.reduction, 0

    def follow(self, trainer: pl.Trainer, monitor: str) -> None:
        """Observe a logged figure after a validation, before any checkpoint of this validation is written.

        Raises:
            CycleStyleError: the figure has not been logged.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if monitor not in trainer.callback_metrics:
            raise CycleStyleError(
                f"lr_policy plateau follows {monitor}, which the validation has not logged; choose another policy"
            )
        self.observe(float(trainer.callback_metrics[monitor]))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"factor": self.factor, "best": self.best, "worse": self.worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        self.factor, self.best, self.worse = state["factor"], state["best"], state["worse"]


@dataclass(kw_only=True)
class Schedule:
    """The policies of the original CycleGAN code (`networks.get_scheduler`), and a linear warm-up.

    | policy | factor of the rate in epoch e, counted from 0 |
    |---|---|
    | `linear` | 1 for `constant_epochs`, then down to 0 in equal steps, over `decay_epochs` |
    | `step` | `lr_factor` to the power of ⌊e / `lr_step_epochs`⌋ |
    | `cosine` | (1 + cos(π e / T)) / 2, where T is `constant_epochs + decay_epochs` |
    | `plateau` | that of a `Plateau`, whatever e is |

    In the original, T of `cosine` is `constant_epochs` alone, and the rate rises again in the epochs after it. With
    `decay_epochs` 0 both are the same.

    Args:
        constant_epochs: epochs at `lr`; null: all.
        decay_epochs: epochs over which the rate then falls linearly to 0.
        lr_policy: how the rate falls: `linear` as these two say; `step` every `lr_step_epochs`; `plateau` where
            `monitor` no longer falls; `cosine` over `constant_epochs + decay_epochs`.
        lr_warmup_steps: steps in which the rate rises linearly at the start; 0 for none.
        lr_step_epochs: epochs between two reductions of `step`.
        lr_factor: what `step` and `plateau` multiply the rate by; null: 0.1 and 0.2, as the original code.
        lr_patience: validations that `plateau` waits for a figure that is better by 1 %.

    Raises:
        ValueError: a value is out of its range, or `cosine` has no epochs.
    """

    constant_epochs: int | None = None
    decay_epochs: int = 0
    lr_policy: LRPolicy = "linear"
    lr_warmup_steps: int = 0
    lr_step_epochs: int = 50
    lr_factor: float | None = None
    lr_patience: int = 5
    plateau: Plateau | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_choices(lr_policy=(self.lr_policy, get_args(LRPolicy)))
        check_not_negative(
            constant_epochs=self.constant_epochs or 0,
            decay_epochs=self.decay_epochs,
            lr_warmup_steps=self.lr_warmup_steps,
            lr_patience=self.lr_patience,
        )
        check_positive(lr_step_epochs=self.lr_step_epochs)
        if self.lr_factor is not None and not 0 < self.lr_factor < 1:
            raise ValueError(f"lr_factor must be above 0 and below 1, got {self.lr_factor}")
        if self.lr_policy == "cosine" and not self.epochs:
            raise ValueError("lr_policy cosine falls to 0 over constant_epochs + decay_epochs; set constant_epochs")
        if self.lr_policy == "plateau":
            self.plateau = Plateau(self.reduction, self.lr_patience)

    @property
    def epochs(self) -> int | None:
        """Number of epochs; None if the schedule has no end."""
        return None if self.constant_epochs is None else self.constant_epochs + self.decay_epochs

    @property
    def reduction(self) -> float:
        """What `step` and `plateau` multiply the rate by."""
        return FACTORS.get(self.lr_policy, 1.0) if self.lr_factor is None else self.lr_factor

    def at_epoch(self, epoch: int) -> float:
        """Return the factor of the rate in `epoch`, counted from 0, without warm-up."""
        if self.plateau is not None:
            return self.plateau.factor
        if self.lr_policy == "step":
            return self.reduction ** (epoch // self.lr_step_epochs)
        if self.lr_policy == "cosine" and self.epochs:
            return (1 + math.cos(math.pi * min(epoch, self.epochs) / self.epochs)) / 2
        if self.lr_policy == "linear" and self.constant_epochs is not None:
            past = max(0, epoch + 1 - self.constant_epochs)  # the last epoch still learns, as in the original
            return max(0.0, 1 - past / (self.decay_epochs + 1))
        return 1.0

    def warmup(self, step: int) -> float:
        """Return the factor of the warm-up at `step`, counted from 0: from 1 / `lr_warmup_steps` up to 1."""
        return min(1.0, (step + 1) / self.lr_warmup_steps) if self.lr_warmup_steps else 1.0


def scheduled_epochs(settings: Mapping[str, Any]) -> int | None:
    """Return the epochs that the schedule of the constructor arguments of a task has; None if it has no end."""
    constant = settings.get("constant_epochs")
    return None if constant is None else int(constant) + int(settings.get("decay_epochs", 0))
