"""W&B, TensorBoard and MLflow: the run goes on where it is resumed, and when its tracker fails."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from uuid import uuid4

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only

from cyclestyle.files import write_file

P = ParamSpec("P")


def never_fatal(log: Callable[P, None]) -> Callable[P, None]:
    """Let a method of a logger lose what it cannot log, with one warning, instead of ending the training."""
    warned: set[str] = set()

    @wraps(log)
    def logged(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            log(*args, **kwargs)
        except Exception as error:  # of many kinds: a disk, a network, a server
            name, reason = type(args[0]).__name__, " ".join(str(error).split()) or type(error).__name__
            if reason not in warned:
                warned.add(reason)
                print(
                    f"cyclestyle: warning: {name} has lost a part of the log, training goes on: {reason}",
                    file=sys.stderr,
                )

    return logged


class WandbLogger(loggers.WandbLogger):
    """Tracks a run in W&B; a resumed run continues under the same id, stored in `<save_dir>/wandb_run_id.txt`.

    If W&B cannot be reached, or no user is logged in, the run is tracked on disk instead, with one warning;
    `wandb sync` uploads it later.

    Args:
        save_dir: a folder; the command line sets the folder of the run.
        project: W&B project.
        name: name of the run; W&B chooses one by default.
        offline: write to disk only; `wandb sync` uploads it later.
        id: id of the run; by default the one stored in the folder, or a new one.
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
        folder.mkdir(parents=True, exist_ok=True)  # W&B uses a temporary folder if this one is missing
        _stage_files_in(folder / "wandb")
        super().__init__(
            name=name,
            save_dir=str(folder),
            offline=offline,
            id=id or _stored_id(folder / "wandb_run_id.txt") or None,
            project=project,
            log_model=log_model,
            tags=tags,
            group=group,
            entity=entity,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the W&B run; it is offline if W&B cannot be reached."""
        import wandb

        self._wandb_init.pop("anonymous", None)  # has no effect any more, but W&B warns of it
        self._wandb_init["settings"] = wandb.Settings(silent=True)
        try:
            return super().experiment
        except wandb.errors.Error as error:  # no network, no account, no permission
            reason = str(error).splitlines()[0]
            print(
                f"cyclestyle: warning: W&B is unavailable ({reason}); logging offline to "
                f"{Path(str(self.save_dir)) / 'wandb'}, for `wandb sync`",
                file=sys.stderr,
            )
            wandb.teardown()  # release the run id of the failed attempt
            self._offline, self._wandb_init["mode"] = True, "offline"
            return super().experiment

    @never_fatal
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        super().log_metrics(metrics, step)

    @never_fatal
    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **options: Any) -> None:
        """Log images under one name."""
        super().log_image(key, images, step, **options)

    @never_fatal
    @rank_zero_only
    def log_samples(self, step: int, rows: Sequence[Mapping[str, Image.Image]]) -> None:
        """Log a table of the sample images, one row for each image."""
        import wandb

        columns = ["step", "image", *rows[0]]
        data = [[step, number, *(wandb.Image(image) for image in row.values())] for number, row in enumerate(rows)]
        self.log_table(key="sample_table", columns=columns, data=data, step=step)

    @never_fatal
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Upload the checkpoint, if `log_model` says so."""
        super().after_save_checkpoint(checkpoint_callback)

    @never_fatal
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Upload the checkpoints that are left, if `log_model` says so."""
        super().finalize(status)

    @never_fatal
    @rank_zero_only
    def log_report(self, path: Path) -> None:
        """Log an HTML page of results."""
        import wandb

        self.log_metrics({"report": wandb.Html(path.read_text())})  # type: ignore[dict-item]  # W&B also accepts media


def _stage_files_in(folder: Path) -> None:
    """Let W&B copy what it uploads to a folder, where it cannot to that of the user, as in many containers."""
    from wandb.env import get_data_dir

    try:
        Path(get_data_dir()).mkdir(parents=True, exist_ok=True)
        writable = os.access(get_data_dir(), os.W_OK)
    except OSError:
        writable = False
    if not writable:
        os.environ["WANDB_DATA_DIR"] = str(folder.absolute())


def _stored_id(path: Path) -> str:
    """Return the id stored in a file. A file that does not exist is created with a new id."""
    if not path.exists():
        _write_on_rank_zero(path, uuid4().hex[:8])
    return path.read_text().strip() if path.exists() else ""


@rank_zero_only
def _write_on_rank_zero(path: Path, text: str) -> None:
    """Write the file in the process of rank 0, the only one that tracks the run."""
    path.write_text(text + "\n")


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
