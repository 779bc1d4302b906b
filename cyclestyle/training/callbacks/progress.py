"""Progress bars."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

SHOWN = ("loss", "loss_G", "loss_D")
"""The sums of losses that a bar shows, of those that tasks log."""
WARM_UP, TIMED = 3, 10
"""Steps that are not timed, because they set things up, and steps that are timed, for the first line about the time."""
LONG = 24 * 3600
"""Seconds after which a training on a CPU is better made shorter."""


class RemainingTime:
    """Estimates the time that a run still needs, from the mean duration of its steps, validations included."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def start(self, trainer: pl.Trainer) -> None:
        """Start the clock."""
        self._start = time.monotonic(), trainer.global_step

    def seconds_per_step(self, trainer: pl.Trainer) -> float | None:
        """Return the mean duration of the steps since the start; None if there was none."""
        if self._start is None or trainer.global_step == self._start[1]:
            return None
        return (time.monotonic() - self._start[0]) / (trainer.global_step - self._start[1])

    def seconds(self, trainer: pl.Trainer) -> float | None:
        """Return the remaining seconds; None if they are unknown, or the run has no end."""
        seconds = self.seconds_per_step(trainer)
        total = float("inf") if seconds is None else trainer.estimated_stepping_batches
        return None if seconds is None or total == float("inf") else seconds * (total - trainer.global_step)


class ProgressBar(TQDMProgressBar):
    """Progress bar of an epoch with the losses, the speed and the remaining time of the epoch and of the run.

    Where the output is not a terminal, such as a log file, plain lines take the place of the bar: one for each epoch,
    one for each validation with its figures, and one every `line_every_n_steps` steps.

    After the first steps, one line says how long a step takes, and all that are left.

    Args:
        refresh_rate: steps between two updates, each of which copies the losses from the device; 0 for no progress.
        line_every_n_steps: steps between two lines where the output is not a terminal.
    """

    def __init__(self, refresh_rate: int = 10, line_every_n_steps: int = 500) -> None:
        if refresh_rate < 0 or line_every_n_steps < 1:
            raise ValueError(
                "refresh_rate must be at least 0 and line_every_n_steps at least 1, "
                f"got {refresh_rate} and {line_every_n_steps}"
            )
        plain = not sys.stdout.isatty()
        super().__init__(refresh_rate=0 if plain else refresh_rate)
        self._line_every = line_every_n_steps if plain and refresh_rate else 0
        self._time = RemainingTime()
        self._says_time = refresh_rate > 0
        self._first_steps = RemainingTime()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the run."""
        super().on_train_start(trainer, pl_module)
        self._time.start(trainer)
        self._begun = trainer.global_step

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the losses, which are copied from the device, and the remaining time of the run."""
        metrics = trainer.callback_metrics
        shown: dict[str, Any] = {name: float(metrics[f"train/{name}"]) for name in SHOWN if f"train/{name}" in metrics}
        seconds = self._time.seconds(trainer) if trainer.training else None
        return shown if seconds is None else {**shown, "left": format_time(seconds)}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, or print a line if one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._says_time and trainer.is_global_zero:
            self._say_time(trainer, trainer.global_step - self._begun)
        if self._line_every and (trainer.global_step % self._line_every == 0 or trainer.is_last_batch):
            self._print_line(trainer, self.get_metrics(trainer, pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar, or print a line with the figures of the validation."""
        super().on_validation_end(trainer, pl_module)
        if self._line_every and not trainer.sanity_checking:
            figures = {  # without those of each direction
                name: value
                for name, value in trainer.logged_metrics.items()
                if name.startswith("val") and not name.endswith(("_AtoB", "_BtoA"))
            }
            self._print_line(trainer, figures)

    def _say_time(self, trainer: pl.Trainer, steps: int) -> None:
        """Print how long the steps take, once, after the first `steps`."""
        if steps == WARM_UP:
            self._first_steps.start(trainer)
        if steps < WARM_UP + TIMED:
            return
        self._says_time = False
        each, left = self._first_steps.seconds_per_step(trainer), self._first_steps.seconds(trainer)
        if each is None:
            return
        line = f"{each:.3g} s a step"
        if left is not None:
            line += f", about {format_time(left)} for the {round(left / each):,} steps that are left"
        if left is not None and left > LONG and trainer.strategy.root_device.type == "cpu":
            line += "; `cyclestyle configs` lists shorter recipes, such as monet_small"
        self.print(line) if self.is_enabled else print(line, flush=True)

    def _print_line(self, trainer: pl.Trainer, figures: Mapping[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        texts = (
            f"{name} {value if isinstance(value, str) else f'{float(value):.4g}'}" for name, value in figures.items()
        )
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        print(f"epoch {trainer.current_epoch + 1}{epochs}, step {trainer.global_step}:", ", ".join(texts), flush=True)


def format_time(seconds: float) -> str:
    """Return a duration as `1:02:03`."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
