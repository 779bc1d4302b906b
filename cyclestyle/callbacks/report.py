"""The report that `test` writes: figures, curves, the history of fixed images, the best and the worst."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from cyclestyle.callbacks.evaluation import DIRECTIONS, Evaluation, ema_of, gathered, has_directions
from cyclestyle.callbacks.loggers import WandbLogger
from cyclestyle.files import atomic_write
from cyclestyle.images import as_rgb, to_image
from cyclestyle.report import Curve, Page

SHOWN = 3  # images of each kind: best, median, worst
HISTORY = 24  # grids to leaf through at most
SIDE = 256  # pixels that an image is shown with at most
CURVES = {
    "Losses": ("train/loss_G", "train/loss_D"),
    "Adversarial losses": ("train/G_A", "train/G_B", "train/D_A", "train/D_B"),
    "KID to the target domain": ("val/kid_AtoB", "val/kid_BtoA", "val_ema/kid_AtoB", "val_ema/kid_BtoA"),
    "Content distance": ("val/content_AtoB", "val/content_BtoA", "val_ema/content_AtoB", "val_ema/content_BtoA"),
    "Cycle PSNR, dB": ("val/cycle_psnr_AtoB", "val/cycle_psnr_BtoA"),
}


class TestReport(pl.Callback):
    """Writes `report.json` and `report.html`, one file without a network, into `<run>/test`.

    The images are those of the averaged generators where there are any. Best, median and worst go by the
    content distance between an image and its translation. Tasks that are not evaluated get none.
    """

    __test__ = False  # no test of pytest's

    def __init__(self) -> None:
        self._pairs: dict[str, dict[str, Tensor]] = {}  # direction, path: image and translation, 8 bits

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images, which Evaluation has made."""
        if not has_directions(pl_module):
            return
        shown = evaluation_of(trainer).shown
        outputs = shown.get("ema", outputs)
        for direction, (source, target) in DIRECTIONS.items():
            real, fake = (as_rgb(outputs[name]).float().cpu() for name in (f"real_{source}", f"fake_{target}"))
            for n, path in enumerate(batch[f"paths_{source}"]):
                pair = torch.cat([real[n], fake[n]], dim=2)  # (3, H, 2 W)
                levels = ((pair + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
                self._pairs.setdefault(direction, {})[path] = levels

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report; Evaluation has summed up before."""
        evaluation = evaluation_of(trainer)
        pairs = {direction: gathered(kept, trainer) for direction, kept in self._pairs.items()}
        variant = "raw" if ema_of(trainer) is None else "ema"
        contents = {
            direction: {path: one.content for path, one in gathered(judged, trainer).items()}
            for direction, judged in evaluation.judged.get(variant, {}).items()
        }
        if trainer.is_global_zero and contents:
            self._write(trainer, evaluation.table, contents, pairs)

    def _write(
        self,
        trainer: pl.Trainer,
        table: dict[str, dict[str, Any]],
        contents: dict[str, dict[str, float]],
        pairs: dict[str, dict[str, Tensor]],
    ) -> None:
        root = Path(trainer.default_root_dir)
        folder = root / "test"
        step = {"checkpoint": str(trainer.ckpt_path), "figures": table, "content": contents}
        with atomic_write(folder / "report.json") as file:
            file.write((json.dumps(step, indent=2) + "\n").encode())
        page = Page(f"Test of {root.name}")
        page.text(f"Checkpoint {trainer.ckpt_path}.")
        _add_table(page, table)
        for direction, distances in contents.items():
            _add_extremes(page, direction, distances, pairs[direction])
        page.heading("The same images over training")
        page.text("Upper rows: A, its translation, and back. Lower rows: B, its translation, and back.")
        page.flip_through(_history(root / "grids"))
        page.heading("Training")
        curves = _read_curves(root / "metrics.csv")
        for title, names in CURVES.items():
            page.curves(title, {name: curves.get(name, []) for name in names})
        page.write(folder / "report.html")
        print(f"Report: {folder / 'report.html'}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_report(folder / "report.html")


def evaluation_of(trainer: pl.Trainer) -> Evaluation:
    """The callback that the report goes by."""
    return next(c for c in trainer.callbacks if isinstance(c, Evaluation))  # type: ignore[attr-defined]


def _add_table(page: Page, table: dict[str, dict[str, Any]]) -> None:
    page.heading("Figures")
    header = ["", "KID ↓", "FID ↓", "content ↓", "structure ↓", "cycle PSNR, dB ↑", "cycle SSIM ↑", "images"]
    rows = [
        [
            name,
            f"{row['kid']:.4g} ± {row['kid_std']:.2g}",
            f"{row['fid']:.4g}",
            *(f"{row[key]:.3f}" for key in ("content", "structure", "cycle_psnr", "cycle_ssim")),
            f"{row.get('fakes', '–')} to {row.get('reals', '–')}",
        ]
        for name, row in table.items()
    ]
    page.table(header, rows)
    extractor = next(iter(table.values()))["extractor"]
    page.text(
        f"Extractor: {extractor}. KID and FID compare the translations of the test split with the target domain's "
        "training images; KID is the mean and deviation over random subsets; FID is biased for sets this small."
    )


def _add_extremes(page: Page, direction: str, distances: dict[str, float], pairs: dict[str, Tensor]) -> None:
    """The best, median and worst translations by content distance."""
    ordered = sorted(distances, key=lambda path: (distances[path], path))
    middle = max(0, len(ordered) // 2 - SHOWN // 2)
    page.heading(f"{direction}: best, median and worst by content distance")
    for label, paths in (
        ("best", ordered[:SHOWN]),
        ("median", ordered[middle : middle + SHOWN]),
        ("worst", ordered[-SHOWN:][::-1]),
    ):
        captioned = [(f"{label}: {Path(path).name}, {distances[path]:.3f}", _shown(pairs[path])) for path in paths]
        page.images(captioned)


def _shown(levels: Tensor) -> Image.Image:
    image = to_image(levels.float() / 127.5 - 1)
    image.thumbnail((2 * SIDE, SIDE))
    return image


def _history(folder: Path) -> list[tuple[str, Image.Image]]:
    """The sample grids of the run, thinned out evenly."""
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
