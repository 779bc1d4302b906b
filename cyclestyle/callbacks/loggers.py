"""Loggers that go on where an interrupted run stopped."""

import csv
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytorch_lightning as pl
from pytorch_lightning import loggers
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor


class CSVLogger(loggers.CSVLogger):
    """Writes `<save_dir>/metrics.csv`; a resumed run goes on in the same file.

    Rows of steps that the resumed run takes again (those after its checkpoint) are replaced by the new ones.

    Args:
        save_dir: a folder; the command line fills in the run's own.
        flush_logs_every_n_steps: rows kept in memory between two writes.
    """

    def __init__(self, save_dir: str | None = None, flush_logs_every_n_steps: int = 1) -> None:
        super().__init__(save_dir or ".", name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._earlier: list[dict[str, Any]] | None = None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Tensor | float], step: int | None = None) -> None:  # type: ignore[override]
        """Write one row; before the first, keep what an earlier part of the run wrote."""
        if self._earlier is None and step is not None:
            self._earlier = [row for row in _read_rows(Path(self.log_dir, "metrics.csv")) if int(row["step"]) < step]
            self.experiment.metrics.extend(self._earlier)
        super().log_metrics(metrics, step)


class WandbLogger(loggers.WandbLogger):
    """Tracks a run in W&B; a resumed run goes on under the same id, kept in `<save_dir>/wandb_run_id.txt`.

    Args:
        save_dir: a folder; the command line fills in the run's own.
        project: W&B project.
        name: name of the run; W&B invents one by default.
        offline: write to disk only; `wandb sync` uploads it later.
        id: id of the run; by default the one that the folder remembers, or a new one.
        log_model: upload checkpoints as artifacts.
        tags: tags of the run.
        group: group of the run.
        entity: W&B user or team.
    """

    def __init__(
        self,
        save_dir: str | None = None,
        *,
        project: str = "cyclestyle",
        name: str | None = None,
        offline: bool = False,
        id: str | None = None,
        log_model: bool = False,
        tags: list[str] | None = None,
        group: str | None = None,
        entity: str | None = None,
    ) -> None:
        folder = Path(save_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)  # W&B falls back to a temporary folder where this is missing
        super().__init__(
            name=name,
            save_dir=str(folder),
            offline=offline,
            id=id or _remembered_id(folder / "wandb_run_id.txt") or None,
            project=project,
            log_model=log_model,
            tags=tags,
            group=group,
            entity=entity,
        )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def _remembered_id(path: Path) -> str:
    """The id in the file, which is made where it is missing."""
    if not path.exists():
        _write_first(path, uuid4().hex[:8])
    return path.read_text().strip() if path.exists() else ""


@rank_zero_only
def _write_first(path: Path, text: str) -> None:
    """Only the first process tracks the run, so only it writes."""
    path.write_text(text + "\n")


class SaveConfig(SaveConfigCallback):
    """Writes the whole config to `<run>/config.yaml`, and to every logger that keeps hyperparameters."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hand the config to the loggers."""
        if stage == "fit":
            for logger in trainer.loggers:
                if not isinstance(logger, CSVLogger):  # its config stands beside it already
                    logger.log_hyperparams({"config": self.config.as_dict()})
