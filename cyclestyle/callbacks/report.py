"""The report that `test` writes: figures, curves, sample grids over training, and the results."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from cyclestyle.callbacks.evaluation import Evaluation, ema_of, gathered
from cyclestyle.callbacks.loggers import WandbLogger
from cyclestyle.files import write_json
from cyclestyle.images import as_rgb, to_image
from cyclestyle.metrics import METRICS, columns, finite
from cyclestyle.report import Curve, Page
from cyclestyle.tasks.base import DOMAINS, as_task

EXAMPLES = 3  # images of each kind: best, median, worst
HISTORY = 24  # sample grids at most
SIDE = 256  # pixels of an image on the page at most
BESIDE = ("train/lr", "train/images_per_second")  # columns of the log that are no losses


class TestReport(pl.Callback):
    """Writes `report.json` and `report.html`, one file that needs no network, into `<run>/test`.

    The images are those of the averaged weights where there are any. For the directions of a task, best, median and
    worst go by the content distance between an image and its translation; of other tasks the first samples are shown.
    """

    __test__ = False  # not a test of pytest

    def __init__(self) -> None:
        self._pairs: dict[str, dict[str, Tensor]] = {}  # direction, path: image and translation, uint8
        self._samples: list[dict[str, Tensor]] = []  # of tasks without directions

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images that the task has made."""
        samples = evaluation_of(trainer).samples
        sample = {name: as_rgb(images).float().cpu() for name, images in samples.get("ema", outputs).items()}
        directions = as_task(pl_module).directions
        for direction in directions:
            source, target = DOMAINS[direction]
            for n, path in enumerate(batch[f"paths_{source}"]):
                pair = torch.cat([sample[f"real_{source}"][n], sample[f"fake_{target}"][n]], dim=2)  # (3, H, 2 W)
                self._pairs.setdefault(direction, {})[path] = _levels(pair)
        if not directions and len(self._samples) < EXAMPLES:
            self._samples.append({name: _levels(images[0]) for name, images in sample.items()})

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report; the callback Evaluation has computed the figures before."""
        evaluation = evaluation_of(trainer)
        pairs = {direction: gathered(kept, trainer) for direction, kept in self._pairs.items()}
        variant = "raw" if ema_of(trainer) is None else "ema"
        contents = {
            direction: {path: one["content"] for path, one in gathered(measured, trainer).items()}
            for direction, measured in evaluation.measured.get(variant, {}).items()
        }
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}  # every rank takes part
        if trainer.is_global_zero:
            self._write(trainer, evaluation.table, logged, contents, pairs)

    def _write(
        self,
        trainer: pl.Trainer,
        table: dict[str, dict[str, Any]],
        logged: dict[str, float],
        contents: dict[str, dict[str, float]],
        pairs: dict[str, dict[str, Tensor]],
    ) -> None:
        root = Path(trainer.default_root_dir)
        folder = root / "test"
        figures = {name: finite(row) for name, row in table.items()}
        content = {"checkpoint": str(trainer.ckpt_path), "figures": figures, "logged": logged, "content": contents}
        write_json(folder / "report.json", content)
        page = Page(f"Test of {root.name}")
        page.text(f"Checkpoint {trainer.ckpt_path}.")
        _add_figures(page, table, logged)
        for direction, distances in contents.items():
            _add_extremes(page, direction, distances, pairs[direction])
        for sample in self._samples:
            page.images([(name, _thumbnail(levels)) for name, levels in sample.items()])
        page.heading("The same images over training")
        page.text("Each row of a grid is one output of the task; each column is one image.")
        page.flip_through(_history(root / "grids"))
        _add_curves(page, _read_curves(root / "metrics.csv"))
        page.write(folder / "report.html")
        print(f"Report: {folder / 'report.html'}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_report(folder / "report.html")


def evaluation_of(trainer: pl.Trainer) -> Evaluation:
    """Return the callback that measures the images."""
    return next(c for c in trainer.callbacks if isinstance(c, Evaluation))  # type: ignore[attr-defined]


def _levels(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _add_figures(page: Page, table: dict[str, dict[str, Any]], logged: Mapping[str, float]) -> None:
    """The figures of each direction, and what the task itself has logged."""
    page.heading("Figures")
    if table:
        names = columns(next(iter(table.values())))
        rows = [
            [
                variant,
                *(METRICS[name].text(row[name], row["kid_std"] if name == "kid" else None) for name in names),
                f"{row['fakes']} to {row['reals']}" if "fakes" in row else "n/a",
            ]
            for variant, row in table.items()
        ]
        page.table(["", *(METRICS[name].heading for name in names), "images"], rows)
        extractor = next(iter(table.values()))["extractor"]
        page.text(
            f"Extractor: {extractor}. KID and FID compare the translations of the test split with the training images "
            "of the target domain. KID is the mean and deviation over random subsets; FID is biased for small sets."
        )
    own = {name: value for name, value in logged.items() if _metric(name) is None}
    if own:
        page.table(["figure of the task", "value"], [[name, f"{value:.4g}"] for name, value in own.items()])


def _add_extremes(page: Page, direction: str, distances: dict[str, float], pairs: dict[str, Tensor]) -> None:
    """The best, median and worst translations by content distance."""
    ordered = sorted(distances, key=lambda path: (distances[path], path))
    middle = max(0, len(ordered) // 2 - EXAMPLES // 2)
    page.heading(f"{direction}: best, median and worst by content distance")
    page.text("The input is on the left, its translation on the right.")
    for label, paths in (
        ("best", ordered[:EXAMPLES]),
        ("median", ordered[middle : middle + EXAMPLES]),
        ("worst", ordered[-EXAMPLES:][::-1]),
    ):
        page.images([(f"{label}: {Path(p).name}, {distances[p]:.3f}", _thumbnail(pairs[p])) for p in paths])


def _add_curves(page: Page, curves: Mapping[str, Curve]) -> None:
    """A diagram for the sums of the losses, the loss terms, each metric, and what else a validation has logged."""
    page.heading("Training")
    diagrams: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        metric = _metric(name)
        if name.startswith("train/loss"):
            title = "Losses"
        elif name in BESIDE or name.rpartition("/")[2].startswith("kid_std"):
            continue
        elif name.startswith("train/"):
            title = "Loss terms"
        elif metric is not None:
            title = METRICS[metric].heading
        elif name.startswith(("val/", "val_ema/")):
            title = "Validation"
        else:
            continue
        diagrams.setdefault(title, {})[name] = curve
    for title in sorted(diagrams, key=lambda one: (one not in ("Losses", "Loss terms"), one)):
        page.curves(title, diagrams[title])


def _metric(column: str) -> str | None:
    """The metric of a column such as `val/kid_AtoB`; None for figures of the task, which may have the same names."""
    name, _, direction = column.rpartition("/")[2].rpartition("_")
    if direction == "kid" or name == "kid_std":
        return "kid"  # the mean over the directions, and the deviation
    return name if direction in DOMAINS and name in METRICS else None


def _thumbnail(levels: Tensor) -> Image.Image:
    image = to_image(levels.float() / 127.5 - 1)
    image.thumbnail((2 * SIDE, SIDE))
    return image


def _history(folder: Path) -> list[tuple[str, Image.Image]]:
    """The sample grids of the run, evenly thinned out."""
    paths = sorted(folder.glob("step_*.png"))
    stride = max(1, math.ceil(len(paths) / HISTORY))
    return [(f"step {int(path.stem.split('_')[1])}", Image.open(path)) for path in reversed(paths[::-1][::stride])]


def _read_curves(file: Path) -> dict[str, Curve]:
    """Every column of the log as a curve over the step."""
    curves: dict[str, list[tuple[float, float]]] = {}
    if file.exists():
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                for name, text in row.items():
                    if text and name != "step" and math.isfinite(float(text)):
                        curves.setdefault(name, []).append((float(row["step"]), float(text)))
    return dict(curves)
