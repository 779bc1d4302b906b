"""What the page of a run and the report of `test` share: figures, curves, grids, alarms and settings of a run."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from cyclestyle.metrics import METRICS, columns
from cyclestyle.networks.method import DOMAINS
from cyclestyle.report import Curve, ImageSource, Page

POINTS = 400  # points of a curve at most
BESIDE = ("train/lr", "train/images_per_second")  # columns of the log that are no losses
VALIDATION = ("val/", "val_ema/")  # prefixes of the figures of a validation


def read_curves(file: Path, points: int = POINTS) -> dict[str, Curve]:
    """Return every column of a log as a curve over the step; without the file there are none.

    Args:
        file: a `metrics.csv`.
        points: points of a curve at most. Each point of a longer curve is the mean of consecutive rows.
    """
    if not file.exists():
        return {}
    with file.open(newline="") as lines:
        rows = csv.reader(lines)
        header = next(rows, [])
        if "step" not in header:
            return {}
        at = header.index("step")
        columns: list[list[tuple[str, str]]] = [[] for _ in header]  # converted after they are thinned out
        for row in rows:
            for column, text in zip(columns, row, strict=False):
                if text:
                    column.append((row[at], text))
    named = dict(zip(header, columns, strict=True))
    del named["step"]
    return {name: curve for name, column in named.items() if (curve := _thinned(column, points))}


def _thinned(column: Sequence[tuple[str, str]], points: int) -> Curve:
    """The finite values of a column in at most so many points."""
    values = ((float(step), float(text)) for step, text in column)
    finite = iter([point for point in values if math.isfinite(point[1])])
    length = math.ceil(len(column) / points)
    groups = iter(lambda: list(islice(finite, length)), [])
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def metric_of(column: str) -> str | None:
    """Return the metric of a column such as `val/kid_AtoB`; None for figures of the task, which may share its name."""
    name, _, direction = column.rpartition("/")[2].rpartition("_")
    if direction == "kid" or name == "kid_std":
        return "kid"  # the mean over the directions, and the deviation
    return name if direction in DOMAINS and name in METRICS else None


def add_figures(page: Page, table: Mapping[str, Mapping[str, Any]], logged: Mapping[str, float]) -> None:
    """Add the figures of each variant and direction, and what the task itself has logged."""
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
    own = {name: value for name, value in logged.items() if metric_of(name) is None}
    if own:
        page.table(["figure of the task", "value"], [[name, f"{value:.4g}"] for name, value in own.items()])


def latest_evaluation(root: Path, step: int) -> tuple[int, dict[str, Any]] | None:
    """Return the step and the figures of the latest evaluation up to `step`; None if there was none."""
    file = root / "evaluation.jsonl"
    for line in reversed(file.read_text().splitlines() if file.exists() else []):
        row = json.loads(line)
        if row["step"] <= step:
            return row["step"], {name: figures for name, figures in row.items() if isinstance(figures, dict)}
    return None


def add_curves(page: Page, curves: Mapping[str, Curve]) -> None:
    """Add a diagram for the sums of the losses, the loss terms, each metric, and what else a validation has logged."""
    diagrams: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        metric = metric_of(name)
        if name.startswith("train/loss"):
            title = "Losses"
        elif name in BESIDE or name.rpartition("/")[2].startswith("kid_std"):
            continue
        elif name.startswith("train/"):
            title = "Loss terms"
        elif metric is not None:
            title = METRICS[metric].heading
        elif name.startswith(VALIDATION):
            title = "Validation"
        else:
            continue
        diagrams.setdefault(title, {})[name] = curve
    first = ("Losses", "Loss terms")
    for title in sorted(diagrams, key=lambda one: (first.index(one) if one in first else len(first), one)):
        page.curves(title, diagrams[title])


def grid_paths(root: Path) -> dict[int, Path]:
    """Return the sample grids of a run by their step, in ascending order."""
    return {int(path.stem.split("_")[1]): path for path in sorted((root / "grids").glob("step_*.png"))}


def linked_grids(root: Path, known: dict[str, ImageSource], last: int) -> list[tuple[str, ImageSource]]:
    """Return the sample grids as links relative to a page in the folder of the run.

    Args:
        root: the folder of the run.
        known: the grids of earlier calls by name, so that each is opened once for its size; extended in place.
        last: step of the last grid; later ones are from before a resume, and are about to be replaced.
    """
    paths = {step: path for step, path in grid_paths(root).items() if step <= last}
    for path in paths.values():
        if path.name not in known:
            with Image.open(path) as grid:
                known[path.name] = ImageSource(f"grids/{path.name}", *grid.size)
    return [(f"step {step:,}", known[path.name]) for step, path in paths.items()]


def grid_legend(names: Sequence[str]) -> str:
    """Return what the rows and columns of a grid are.

    Args:
        names: what `Task.sample` returns, in order; empty if that is not known.
    """
    text = "Each column is one image, each row one output of the task"
    return f"{text}, from top to bottom: {', '.join(map(described, names))}." if names else f"{text}."


def described(name: str) -> str:
    """Return the name of an output of `Task.sample`, with its meaning where the contract of tasks gives it one."""
    kind, _, domain = name.rpartition("_")
    known = {
        "real": f"image of domain {domain}",
        "fake": f"translation to domain {domain}",
        "rec": f"reconstruction of real_{domain}",
        "idt": f"domain {domain} through the generator of domain {domain}",
    }
    return f"{name} ({known[kind]})" if domain in ("A", "B") and kind in known else name


def add_alarms(page: Page, root: Path) -> None:
    """Add the alarms of a run; a resumed run may have raised one again."""
    page.heading("Alarms")
    file = root / "alarms.txt"
    lines = list(dict.fromkeys(file.read_text().splitlines())) if file.exists() else []
    if not lines:
        page.text("No alarm was raised.")
    page.items(lines)


def add_settings(page: Page, root: Path) -> None:
    """Add the settings of a run."""
    file = root / "config.yaml"
    if file.exists():
        page.heading("Settings")
        page.details("config.yaml", file.read_text())
