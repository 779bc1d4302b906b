"""TensorBoard and MLflow, with the folder of the run as their place, sample grids, and resuming."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only

from cyclestyle.callbacks.loggers import never_fatal
from cyclestyle.files import write_file


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Writes event files to `<save_dir>/tensorboard`; a resumed run adds to them.

    Args:
        save_dir: a folder; the command line sets the folder of the run.
        name: name of the folder below it.
        version: another folder below that one, for several runs in one.
        prefix: what the names of all figures begin with.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """

    def __init__(
        self, save_dir: str | None = None, *, name: str = "tensorboard", version: str = "", prefix: str = ""
    ) -> None:
        super().__init__(save_dir or ".", name=name, version=version, default_hp_metric=False, prefix=prefix)

    @never_fatal
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        super().log_metrics(metrics, step)

    @never_fatal
    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Image.Image], step: int | None = None, **_: Any) -> None:
        """Log images under one name."""
        for number, image in enumerate(images):
            tag = key if len(images) == 1 else f"{key}/{number}"
            self.experiment.add_image(tag, np.asarray(image), step, dataformats="HWC")


class MLFlowLogger(loggers.MLFlowLogger):
    """Tracks a run in MLflow; a resumed run continues it, by the id in `<save_dir>/mlflow_run_id.txt`.

    Args:
        save_dir: a folder; the command line sets the folder of the run.
        experiment_name: MLflow experiment.
        run_name: name of the run; MLflow chooses one by default.
        tracking_uri: address of a server; by default that of the environment variable `MLFLOW_TRACKING_URI`, or
            the database `<save_dir>/mlflow.db`.
        tags: tags of the run.
        log_model: upload checkpoints as artifacts.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
    """

    def __init__(
        self,
        save_dir: str | None = None,
        *,
        experiment_name: str = "cyclestyle",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        log_model: bool = False,
    ) -> None:
        self._id_file = Path(save_dir or ".") / "mlflow_run_id.txt"
        folder = Path(save_dir or ".").absolute()
        address = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        folder.mkdir(parents=True, exist_ok=True)
        known = self._id_file.read_text().strip() if self._id_file.is_file() else None
        self._continues = known is not None
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name,
            tracking_uri=address,
            tags=tags,
            log_model=log_model,
            artifact_location=(folder / "mlartifacts").as_uri() if address.startswith("sqlite:") else None,
            run_id=known,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the client, after the id of the run has been stored for a resumed run."""
        client = super().experiment
        if not self._id_file.exists():
            write_file(self._id_file, f"{self._run_id}\n")
        return client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the parameters of a new run; MLflow does not allow those of a resumed one to change."""
        if not self._continues:
            super().log_hyperparams(params)

    @never_fatal
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        super().log_metrics(metrics, step)

    @never_fatal
    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Image.Image], step: int | None = None, **_: Any) -> None:
        """Log images under one name."""
        for number, image in enumerate(images):
            self.experiment.log_image(self.run_id, np.asarray(image), key=f"{key}_{number}", step=step or 0)
