"""`metrics.csv`, which a resumed run continues."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import loggers
from pytorch_lightning.loggers import csv_logs
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from cyclestyle.files import atomic_write, remove_unfinished, write_file


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
