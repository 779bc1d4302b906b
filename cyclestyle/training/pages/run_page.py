"""The page of a run, written while it trains."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from cyclestyle.errors import DivergedError, StoppedError
from cyclestyle.files import remove_unfinished
from cyclestyle.report import Curve, ImageSource, Page
from cyclestyle.training.callbacks.progress import RemainingTime, format_time
from cyclestyle.training.callbacks.sample_grid import SampleGrid
from cyclestyle.training.callbacks.speed import Speed
from cyclestyle.training.loggers.csv_log import CSVLogger
from cyclestyle.training.pages.parts import (
    VALIDATION,
    add_alarms,
    add_curves,
    add_figures,
    add_settings,
    grid_legend,
    latest_evaluation,
    linked_grids,
    read_curves,
)

PAUSE = 50  # an update is followed by a pause of so many times its duration, so that it takes 2 % of the time at most
SOONEST_RELOAD = 5  # seconds


class RunPage(pl.Callback):
    """Writes `<run>/index.html`: the state of the run, its figures, sample grids, curves, alarms and settings.

    The page is written at the start, after validations, every `every_n_seconds`, and at the end, also after a signal
    or an error. It is made from the files of the run, so after a resume it shows the whole history. The grids beside it
    are linked, not embedded: the page stays small and an update cheap, however many there are.

    Updates happen between two steps and are spaced so that they take at most 2 % of the time. If one fails, the page
    stays as it was, and training goes on.

    Args:
        every_n_seconds: seconds between two updates within an epoch; 0 for no page.
    """

    def __init__(self, every_n_seconds: float = 60) -> None:
        if every_n_seconds < 0:
            raise ValueError(f"every_n_seconds must be 0 or more, got {every_n_seconds}")
        self.every_n_seconds = every_n_seconds
        self._active = False  # this process writes the page of a run that has started
        self._updated = self._duration = 0.0  # end and duration of the latest update
        self._warned = False
        self._time = RemainingTime()
        self._steps = float("inf")  # of the whole run
        self._grids: dict[str, ImageSource] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the first page, with the history of a run that is resumed."""
        self._active = bool(self.every_n_seconds) and trainer.is_global_zero
        if self._active:
            remove_unfinished(_root(trainer))
            self._time.start(trainer)
            self._steps = trainer.estimated_stepping_batches
            self._update(trainer, "running")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Update the page if that is due."""
        if self._is_due(self.every_n_seconds):
            self._update(trainer, "running")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the figures of the validation."""
        if self._is_due(0):
            self._update(trainer, "running")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last page."""
        if self._active:
            early = trainer.global_step < self._steps < float("inf")
            note = "The run ended before its last step, by early stopping or a limit of time." if early else ""
            self._update(trainer, "finished", note)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the last page of a run that a signal or an error ends."""
        if self._active and trainer.state.fn == TrainerFn.FITTING:
            self._update(trainer, *_reason(exception))

    def _is_due(self, seconds: float) -> bool:
        return self._active and time.monotonic() - self._updated >= max(seconds, PAUSE * self._duration)

    def _update(self, trainer: pl.Trainer, state: str, note: str = "") -> None:
        start = time.monotonic()
        try:
            self._page(trainer, state, note).write(_root(trainer) / "index.html")
        except Exception as error:  # whatever it is, a page is not worth a run
            if not self._warned:
                print(
                    f"cyclestyle: warning: {_root(trainer) / 'index.html'} is not up to date, and training goes on: "
                    f"{getattr(error, 'strerror', None) or error or type(error).__name__}",
                    file=sys.stderr,
                )
            self._warned = True
        self._updated = time.monotonic()
        self._duration = self._updated - start

    def _page(self, trainer: pl.Trainer, state: str, note: str) -> Page:
        root, running = _root(trainer), state == "running"
        curves = _curves(trainer)
        page = Page(
            f"Run {root.resolve().name}",
            reload_seconds=max(SOONEST_RELOAD, round(self.every_n_seconds)) if running else None,
        )
        page.facts({"state": state, **self._facts(trainer, running), "updated": datetime.now(UTC)})
        if note:
            page.text(note)
        add_alarms(page, root)
        self._add_grids(page, trainer)
        _add_validation(page, trainer, curves)
        page.heading("Curves")
        if curves:
            add_curves(page, curves)
        else:
            page.text("Nothing is logged yet." if _log(trainer) else "There are no curves without the CSVLogger.")
        add_settings(page, root)
        return page

    def _facts(self, trainer: pl.Trainer, running: bool) -> dict[str, str]:
        """What is known of the progress."""
        complete = trainer.is_last_batch and not running  # Lightning has counted the epoch already
        epoch, step = trainer.current_epoch + (not complete), trainer.global_step
        epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        facts = {"epoch": f"{epoch}{epochs}"}
        facts["step"] = f"{step:,}" + (f" of {self._steps:,}" if self._steps < float("inf") else "")
        speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), None)  # type: ignore[attr-defined]
        per_step, left = self._time.seconds_per_step(trainer), self._time.seconds(trainer)
        if speed is not None and speed.images_per_second is not None:
            facts["speed"] = f"{speed.images_per_second:.3g} images/s"
        elif per_step is not None:
            facts["speed"] = f"{1 / per_step:.3g} steps/s"
        if speed is not None:
            facts["time in steps"] = format_time(speed.seconds)
        if running and left is not None:
            facts["time left"] = format_time(left)
        return facts

    def _add_grids(self, page: Page, trainer: pl.Trainer) -> None:
        grids = linked_grids(_root(trainer), self._grids, trainer.global_step)
        drawing = [c for c in trainer.callbacks if isinstance(c, SampleGrid)]  # type: ignore[attr-defined]
        if grids:
            page.heading("Sample grids")
            page.text(grid_legend(drawing[0].rows if drawing else []))
            page.flip_through(grids)


def _root(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _log(trainer: pl.Trainer) -> Path | None:
    """The log that the run writes, if it writes one."""
    folders = [Path(logger.log_dir) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return folders[0] / "metrics.csv" if folders else None


def _curves(trainer: pl.Trainer) -> dict[str, Curve]:
    """The curves of the log up to now: later rows are from before a resume, and are about to be replaced.

    The log counts steps from 0.
    """
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()  # rows that are still in memory
    file = _log(trainer)
    curves = {} if file is None else read_curves(file)
    now = {name: [point for point in curve if point[0] < trainer.global_step] for name, curve in curves.items()}
    return {name: curve for name, curve in now.items() if curve}


def _add_validation(page: Page, trainer: pl.Trainer, curves: dict[str, Curve]) -> None:
    """The figures of the latest validation, and its step."""
    logged = {name: curve[-1] for name, curve in curves.items() if name.startswith(VALIDATION)}
    evaluation = latest_evaluation(_root(trainer), trainer.global_step)
    if not logged and evaluation is None:
        return
    step, table = evaluation or (int(max(step for step, _ in logged.values())), {})
    page.heading("Latest validation")
    page.text(f"Step {step:,}.")
    add_figures(page, table, {name: value for name, (_, value) in logged.items()})


def _reason(exception: BaseException) -> tuple[str, str]:
    """The state of a run that an exception ends, and the reason."""
    if isinstance(exception, KeyboardInterrupt):
        return "stopped", "stopped by the user"
    lines = str(exception).splitlines() or [type(exception).__name__]
    if isinstance(exception, StoppedError):
        return "stopped", lines[0]
    return "diverged" if isinstance(exception, DivergedError) else "failed", lines[0]
