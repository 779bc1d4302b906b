"""The report that `test` writes: figures, every result, and the training that led to them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from cyclestyle.files import write_json
from cyclestyle.images import to_image
from cyclestyle.metrics import METRICS, finite, summarise
from cyclestyle.networks.method import DOMAINS, Direction
from cyclestyle.report import ImageSource, Page
from cyclestyle.tasks.base import Batch, as_task
from cyclestyle.training.callbacks.evaluation import Evaluation, Measured, ema_of, gathered, numbered_images
from cyclestyle.training.loggers.trackers import WandbLogger
from cyclestyle.training.pages.parts import (
    add_alarms,
    add_curves,
    add_figures,
    add_settings,
    described,
    grid_legend,
    grid_paths,
    read_curves,
)
from cyclestyle.training.shown import shown

EXAMPLES = 4  # images of each kind: best, median, worst
HISTORY = 24  # sample grids at most
SIDE = 256  # pixels of an image on the page at most

Strips = dict[str, ImageSource]
"""The images that belong to one test image, side by side, by its path."""


class TestReport(pl.Callback):
    """Writes `report.json` and `report.html`, one file that needs no network, into `<run>/test`.

    It shows every image of the test split, of the averaged weights where there are any. For each direction of a task
    that is the input, the translation and the reconstruction, with the figures of the image; best, median and worst go
    by the content distance between input and translation. Of other tasks it is everything that `Task.sample` returns.
    """

    __test__ = False  # not a test of pytest

    def __init__(self) -> None:
        self._strips: dict[str, Strips] = {}  # by direction; "" for tasks without directions
        self._legends: dict[str, list[str]] = {}  # names of the images of a strip
        self._outputs: list[str] = []  # names of what `Task.sample` returns

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
        sample = {
            name: shown(trainer, name, images).float().cpu() for name, images in samples.get("ema", outputs).items()
        }
        self._outputs = list(sample)
        task = as_task(pl_module)
        for direction in task.directions:
            roles = {name: role for name, role in _roles(direction).items() if name in sample}
            self._legends[direction] = [f"{role} ({name})" for name, role in roles.items()]
            known = self._strips.setdefault(direction, {})
            source = DOMAINS[direction][0]
            paths = batch.get(f"paths_{source}") or numbered_images(len(known), len(batch[source]), task)
            _add_strips(known, paths, [sample[name] for name in roles])
        if not task.directions:
            self._legends[""] = [described(name) for name in sample]
            known = self._strips.setdefault("", {})
            count = min(map(len, sample.values()))
            _add_strips(
                known, _own_paths(batch, sample) or numbered_images(len(known), count, task), list(sample.values())
            )

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report; the callback Evaluation has computed the figures before."""
        evaluation = evaluation_of(trainer)
        self._strips = {direction: gathered(strips, trainer) for direction, strips in self._strips.items()}
        variant = "raw" if ema_of(trainer) is None else "ema"
        measured = {
            direction: gathered(measured, trainer)
            for direction, measured in evaluation.measured.get(variant, {}).items()
        }
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}  # every rank takes part
        if trainer.is_global_zero:
            self._write(trainer, evaluation.table, logged, measured)

    def _write(
        self,
        trainer: pl.Trainer,
        table: dict[str, dict[str, Any]],
        logged: dict[str, float],
        measured: dict[str, dict[str, Measured]],
    ) -> None:
        root = Path(trainer.default_root_dir)
        folder = root / "test"
        figures = {name: finite(row) for name, row in table.items()}
        contents = {
            direction: {path: one["content"] for path, one in images.items()} for direction, images in measured.items()
        }
        content = {"checkpoint": str(trainer.ckpt_path), "figures": figures, "logged": logged, "content": contents}
        write_json(folder / "report.json", content)
        self._page(root, str(trainer.ckpt_path), table, logged, measured).write(folder / "report.html")
        print(f"Report: {folder / 'report.html'}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_report(folder / "report.html")

    def _page(
        self,
        root: Path,
        checkpoint: str,
        table: dict[str, dict[str, Any]],
        logged: Mapping[str, float],
        measured: Mapping[str, Mapping[str, Measured]],
    ) -> Page:
        page = Page(f"Test of {root.resolve().name}")
        page.text(f"Checkpoint {checkpoint}.")
        page.heading("Figures")
        add_figures(page, table, logged)
        for direction, images in measured.items():
            _add_extremes(page, direction, images, self._strips[direction], self._legends[direction])
        history = _history(root)
        if history:
            page.heading("The same images over training")
            page.text(grid_legend(self._outputs))
            page.flip_through(history)
        curves = read_curves(root / "metrics.csv")
        if curves:
            page.heading("Training")
            add_curves(page, curves)
        add_alarms(page, root)
        add_settings(page, root)
        for direction, strips in self._strips.items():
            page.heading(f"{direction}: every image" if direction else "Every image")
            figures = measured.get(direction, {})
            captioned = [(_caption(path, figures.get(path, {})), strips[path]) for path in sorted(strips)]
            page.strips(self._legends[direction], captioned)
        return page


def evaluation_of(trainer: pl.Trainer) -> Evaluation:
    """Return the callback that measures the images."""
    return next(c for c in trainer.callbacks if isinstance(c, Evaluation))  # type: ignore[attr-defined]


def _roles(direction: Direction) -> dict[str, str]:
    """What the images of a direction are, by their name in `Task.sample`; see `Task.directions`."""
    source, target = DOMAINS[direction]
    return {f"real_{source}": "input", f"fake_{target}": "translation", f"rec_{source}": "reconstruction"}


def _own_paths(batch: Batch, sample: Mapping[str, Tensor]) -> list[str]:
    """The paths of the images of the domains that the names of a sample end with, joined for each image."""
    domains = sorted({name.rpartition("_")[2] for name in sample})
    paths = [batch[f"paths_{domain}"] for domain in domains if batch.get(f"paths_{domain}")]
    return [", ".join(together) for together in zip(*paths, strict=False)]


def _add_strips(known: Strips, paths: Sequence[str], columns: Sequence[Tensor]) -> None:
    """Encode the images at once: hundreds of them would fill the memory."""
    for n, path in enumerate(paths):
        if path not in known:  # the loader repeats the smaller domain
            known[path] = ImageSource.embed_small(_strip([column[n] for column in columns]))


def _strip(images: Sequence[Tensor]) -> Image.Image:
    """Images `(3, H, W)` side by side, in cells of equal size."""
    cells = [to_image(image) for image in images]
    for cell in cells:
        cell.thumbnail((SIDE, SIDE))
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    strip = Image.new("RGB", (width * len(cells), height), "white")
    for n, cell in enumerate(cells):
        strip.paste(cell, (n * width, 0))
    return strip


def _caption(path: str, figures: Measured) -> str:
    """The name of an image, and what was measured of it."""
    texts = [f"{METRICS[name].label} {METRICS[name].text(figure)}" for name, figure in summarise([figures]).items()]
    names = ", ".join(Path(one).name for one in path.split(", "))
    return ": ".join(filter(None, [names, ", ".join(texts)]))


def _add_extremes(
    page: Page, direction: str, measured: Mapping[str, Measured], strips: Strips, legend: Sequence[str]
) -> None:
    """The best, median and worst translations by content distance."""
    distances = {path: one["content"] for path, one in measured.items()}
    ordered = sorted(distances, key=lambda path: (distances[path], path))
    middle = max(0, len(ordered) // 2 - EXAMPLES // 2)
    page.heading(f"{direction}: best, median and worst by content distance")
    for label, paths in (
        ("best", ordered[:EXAMPLES]),
        ("median", ordered[middle : middle + EXAMPLES]),
        ("worst", ordered[-EXAMPLES:][::-1]),
    ):
        page.strips(legend, [(f"{label}: {Path(p).name}, {distances[p]:.3f}", strips[p]) for p in paths])


def _history(root: Path) -> list[tuple[str, Image.Image]]:
    """The sample grids of the run, evenly thinned out."""
    grids = list(grid_paths(root).items())
    stride = max(1, math.ceil(len(grids) / HISTORY))
    return [(f"step {step:,}", Image.open(path)) for step, path in reversed(grids[::-1][::stride])]
