"""`compare`: several methods on the same photos, on one page."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclestyle.callbacks import WandbLogger
from cyclestyle.commands.parser import call
from cyclestyle.commands.predict import LISTS
from cyclestyle.commands.process import ensure_writable
from cyclestyle.data.folders import find_images
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import write_json
from cyclestyle.images import read_image, to_tensor, write_image
from cyclestyle.metrics import (
    METRICS,
    Extractor,
    ExtractorName,
    build_extractor,
    columns,
    finite,
    mean,
    mean_gram,
    measure_images,
    measure_sets,
)
from cyclestyle.report import comparison_page, comparison_sheet
from cyclestyle.weights.checkpoints import read_checkpoint

SHOWN = 4  # paintings of the domain that the page shows
COSTS = {
    "seconds": ("s / image", 1),
    "memory": ("memory, MB", 1e6),
    "training_seconds": ("training, min", 60),
}
"""Heading of each cost, and the number of its units in one unit of the heading."""
DASH = "–"


@dataclass(kw_only=True)
class Method:
    """A method to compare.

    Args:
        name: what the page calls it.
        predict: what `cyclestyle predict` is called with, beside input and output: `{ckpt_path: last.ckpt}`.
    """

    name: str
    predict: dict[str, Any]


def compare(
    *,
    input: str,
    output: str,
    target: str,
    methods: list[Method],
    extractor: ExtractorName = "statistics",
    weights: str | None = None,
    logger: WandbLogger | None = None,
) -> int:
    """Run methods on the same photos, and write a page, a sheet and a table.

    The status is 1 if any method failed.

    Args:
        input: a folder of photos.
        output: folder for `index.html`, `sheet.png`, `compare.json` and the images of every method.
        target: a folder of paintings: the domain that results are compared with.
        methods: what is compared.
        extractor: what features the distances rest on.
        weights: a file for the extractor.
        logger: also send table and page to W&B.
    """
    folder = Path(output)
    photos = {path.relative_to(input).as_posix(): path for path in find_images(Path(input))}
    paintings = find_images(Path(target))
    found = build_extractor(extractor, weights)
    names = [method.name for method in methods]
    if len({_slug(name) for name in names}) < len(names):
        raise CycleStyleError(f"two methods have the same name among {', '.join(names)}; give each one its own")
    ensure_writable(folder)
    measure = _Measure(found, paintings, photos)
    rows, results, failures = [measure.row("photo", photos)], {}, {}
    for method in methods:
        where = folder / _slug(method.name)
        print(f"{method.name} …", flush=True)
        if reason := _predict(method, Path(input), where):
            failures[method.name] = reason
            continue
        results[method.name] = {key: where / key for key in photos}
        rows.append(measure.row(method.name, results[method.name], _cost(method, where)))
    _write(folder, rows, photos, results, measure.notes(), paintings, logger)
    for name, reason in failures.items():
        print(f"cyclestyle: error: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `compare`."""
    return call(compare, name, args)


def _predict(method: Method, photos: Path, output: Path) -> str:
    """Run a method in a process of its own, whose peak memory is its own too; return why it failed, or nothing."""
    options = {"input": photos, "output": output, "stats": _stats(output), "workers": 0, "batch_size": 1}
    words = [word for key, value in {**options, **method.predict}.items() for word in _words(key, value)]
    done = subprocess.run(
        [sys.executable, "-m", "cyclestyle", "predict", "--overwrite", *words], stderr=subprocess.PIPE, text=True
    )
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    _, ours, reason = done.stderr.rpartition("cyclestyle: error: ")
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return " ".join(lines if ours else lines[-1:]) or f"exit status {done.returncode}"


def _words(key: str, value: object) -> list[str]:
    """An option of `predict` and its value, as words of a command line."""
    if key in LISTS:
        return [f"--{key}", *(str(one) for one in (value if isinstance(value, list) else [value]))]
    return [f"--{key}={value if isinstance(value, str | Path) else json.dumps(value)}"]


def _cost(method: Method, folder: Path) -> dict[str, Any]:
    """Seconds, memory and training time of a method that has run."""
    stats = json.loads(_stats(folder).read_text())
    cost = {"seconds": stats["seconds"] / max(1, stats["images"]), "memory": stats["peak_memory_bytes"]}
    if "ckpt_path" in method.predict:
        stored = read_checkpoint(Path(method.predict["ckpt_path"])).get("callbacks", {}).get("Speed", {})
        cost["training_seconds"] = stored.get("seconds")
    return cost


class _Measure:
    """Compares results with the photos and with the painting domain."""

    def __init__(self, extractor: Extractor, paintings: Sequence[Path], photos: Mapping[str, Path]) -> None:
        self.extractor, self.photos = extractor, photos
        targets = [_read(path) for path in paintings]
        with torch.inference_mode():
            self.gram = mean_gram(extractor, targets)
            self.embeddings = torch.cat([extractor(target) for target in targets])

    @torch.inference_mode()
    def row(self, name: str, images: Mapping[str, Path], cost: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the figures of a method, means over the photos, and what it costs."""
        embeddings, each = [], []
        for key, path in images.items():
            given = {"input": _read(self.photos[key]), "translation": _read(path), "gram": self.gram}
            figures = measure_images(self.extractor, given)  # type: ignore[arg-type]  # the names are those of the table
            each.append({metric: float(value) for metric, value in figures.items()})
            embeddings.append(self.extractor(given["translation"]))
        sets = measure_sets(self.embeddings, torch.cat(embeddings), self.extractor.name)
        means = {metric: mean([one[metric] for one in each]) for metric in each[0]}
        distances = {metric: sets[metric] for metric in ("kid", "kid_std", "fid")}
        return {"name": name, **finite(means), **finite(distances), **dict.fromkeys(COSTS), **(cost or {})}

    def notes(self) -> list[str]:
        """What the figures rest on."""
        return [
            f"{len(self.photos)} photos and {len(self.embeddings)} paintings, by the extractor {self.extractor.name}.",
            "Style distance: between the Gram matrices of a result's features and their mean over the paintings, "
            "relative to the latter. KID: between results and paintings, mean and deviation over random subsets. "
            "Content and structure distance: between the features of a photo and of its result, place by place, and "
            "between their self-similarities. FID is biased for sets this small.",
            "Seconds are those of translating alone; memory is the most that the process held, on a GPU "
            "the most that its tensors took. Both on this machine.",
        ]


def _cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """The cells of a row of the table."""
    figures = [METRICS[name].text(row[name], row["kid_std"] if name == "kid" else None) for name in metrics]
    costs = [DASH if row[name] is None else f"{row[name] / scale:.3g}" for name, (_, scale) in COSTS.items()]
    return [row["name"], *figures, *costs]


def _write(
    output: Path,
    rows: Sequence[dict[str, Any]],
    photos: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    notes: Sequence[str],
    paintings: Sequence[Path],
    logger: WandbLogger | None,
) -> None:
    write_json(output / "compare.json", rows)
    write_image(comparison_sheet(photos, results), output / "sheet.png")
    metrics = columns(rows[0])
    header = ["", *(METRICS[name].heading for name in metrics), *(heading for heading, _ in COSTS.values())]
    cells = [_cells(row, metrics) for row in rows]
    page = comparison_page(header, cells, photos, results, paintings=paintings[:SHOWN], notes=notes)
    page.write(output / "index.html")
    print(f"Page: {output / 'index.html'}\nSheet: {output / 'sheet.png'}")
    if logger is not None:
        logger.log_table("comparison", columns=list(rows[0]), data=[list(row.values()) for row in rows])
        logger.log_report(output / "index.html")


def _read(path: Path) -> Tensor:
    return to_tensor(read_image(path))[None]


def _stats(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name.lower())
