"""Loggers that continue the log of an interrupted run."""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Any, ParamSpec
from uuid import uuid4

from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning import loggers
from pytorch_lightning.loggers import csv_logs
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from cyclestyle.files import atomic_write, remove_unfinished, write_file

P = ParamSpec("P")


class CSVLogger(loggers.CSVLogger):
    """Writes `<save_dir>/metrics.csv`; a resumed run appends to the same file.

    A resumed run replaces the rows of the steps after its checkpoint.

    Args:
        save_dir: a folder; the command line sets the folder of the run.
        flush_logs_every_n_steps: rows kept in memory between two writes.
    """

    def __init__(self, save_dir: str | None = None, flush_logs_every_n_steps: int = 1) -> None:
        super().__init__(save_dir or ".", name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._writer: _ContinuingWriter | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> "_ContinuingWriter":
        """Return the writer of the file."""
        if self._writer is None:
            self._writer = _ContinuingWriter(self.log_dir)
        return self._writer

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Tensor | float], step: int | None = None) -> None:  # type: ignore[override]
        """Write one row."""
        if step is not None:
            self.experiment.continue_at(step, metrics)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Write nothing: `config.yaml` is in the same folder."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rows that are still in memory."""
        if self._writer is not None:
            self.save()


class _ContinuingWriter(csv_logs.ExperimentWriter):
    """A writer that, unlike that of Lightning, continues an existing file and rewrites it atomically."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        remove_unfinished(self._path.parent)
        self._continued = not self._path.exists()
        if not self._continued:
            self.metrics_keys = list(self._rows()[1])

    def _check_log_dir_exists(self) -> None:
        """Override the deletion of an existing file by Lightning."""

    def continue_at(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Before the first new row, remove the rows of the steps that the resumed run repeats.

        A row of the same step is kept if it has none of the new columns: after a stop within a validation, the first
        new row is that of the validation, and the training row of the same step precedes it.
        """
        if self._continued:
            return
        self._continued = True
        columns = metrics.keys() - {"epoch"}

        def is_earlier(row: dict[str, str]) -> bool:
            number = int(row["step"])
            return number < step or (number == step and not any(row.get(column) for column in columns))

        self._write(takewhile(is_earlier, self._rows()[0]))

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Rewrite the file atomically; Lightning loses it if the process is killed meanwhile."""
        self._write(self._rows()[0])

    def _rows(self) -> tuple[list[dict[str, str]], Sequence[str]]:
        """Return the rows and the header, without an incomplete last row."""
        text = self._path.read_text()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        return list(reader), reader.fieldnames or []

    def _write(self, rows: Iterable[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._path) as file:
            file.write(text.getvalue().encode())


def rename_columns(file: Path, names: Mapping[str, str]) -> None:
    """Rename the columns of a log written by an earlier version. A log of this version is not changed.

    Args:
        file: a CSV file, which may not exist.
        names: new name of each old name. A name can be both old and new, so a file counts as old only if it has a name
            that is not among the new ones.
    """
    if not file.is_file():
        return
    header, _, rows = file.read_text().partition("\n")
    columns = header.split(",")
    if (names.keys() - set(names.values())) & set(columns):
        write_file(file, ",".join(names.get(column, column) for column in columns) + "\n" + rows)


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
                f"cyclestyle: warning: W&B does not take this run ({reason}); it is tracked in "
                f"{Path(str(self.save_dir)) / 'wandb'} instead, for `wandb sync`",
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
