"""The command `compare`: results and metrics of several methods for the same photos."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclestyle.commands.line.errors import one_line_errors
from cyclestyle.commands.line.parser import call
from cyclestyle.commands.line.process import ensure_writable, number_of, refuse_input_as_output
from cyclestyle.commands.line.shipped_configs import resolve_config_arguments
from cyclestyle.commands.predict import LISTS, predict
from cyclestyle.errors import CycleStyleError, StoppedError
from cyclestyle.files import write_json
from cyclestyle.images import read_image, target_format, to_tensor, write_image
from cyclestyle.images.folders import find_images
from cyclestyle.metrics import (
    METRICS,
    Extractor,
    ExtractorName,
    build_extractor,
    columns,
    finite,
    mean_gram,
    measure_images,
    measure_sets,
    summarise,
)
from cyclestyle.report import comparison_page, comparison_sheet
from cyclestyle.scratch import forget_peak_memory
from cyclestyle.training import WandbLogger
from cyclestyle.weights.checkpoints import read_checkpoint

PAINTINGS = 4  # number of paintings of the target domain on the page
COSTS = {
    "seconds": ("s / image", 1),
    "memory": ("memory, MB", 1e6),
    "training_seconds": ("training, min", 60),
}
"""Heading of each cost, and the divisor that converts it to the unit of the heading."""
DASH = "–"


@dataclass(kw_only=True)
class Method:
    """A method to compare.

    Args:
        name: name of the method on the page.
        predict: options of `cyclestyle predict` besides input and output, for example `{ckpt_path: last.ckpt}`.
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
    """Run several methods on the same photos, and write an HTML page, an image sheet and a table.

    The exit status is 1 if a method failed.

    Args:
        input: a folder of photos.
        output: folder for `index.html`, `sheet.png`, `compare.json` and the images of every method.
        target: a folder of paintings of the target domain.
        methods: the methods to compare.
        extractor: feature extractor of the distances.
        weights: weight file of the extractor.
        logger: W&B logger that also receives the table and the page.
    """
    if not methods or not all(_slug(method.name).strip("_") for method in methods):
        example = "{name: mine, predict: {ckpt_path: runs/mine}}"
        raise CycleStyleError(f"there is no method to compare, or one has no name; an example is {example}")
    folder = Path(output)
    photos = {path.relative_to(input).as_posix(): path for path in find_images(Path(input))}
    paintings = find_images(Path(target))
    network = build_extractor(extractor, weights)
    names = [method.name for method in methods]
    if len({_slug(name) for name in names}) < len(names):
        raise CycleStyleError(f"two methods have the same name among {', '.join(names)}; give each one its own")
    refuse_input_as_output([folder], [Path(input), Path(target)])
    ensure_writable(folder)
    evaluator = _Evaluator(network, paintings, photos)
    rows, results, failures = [evaluator.row("photo", photos)], {}, {}
    for method in methods:
        method_folder = folder / _slug(method.name)
        print(f"{method.name} …", flush=True)
        try:
            cost = _translate(method, Path(input), method_folder)
        except StoppedError:
            raise
        except Exception as error:  # whatever one method does, the others are compared
            failures[method.name] = str(error) or type(error).__name__
            continue
        results[method.name] = {
            key: (method_folder / key).with_name(target_format(path)[1]) for key, path in photos.items()
        }
        rows.append(evaluator.row(method.name, results[method.name], cost))
    _write(folder, rows, photos, results, failures, evaluator.notes(), paintings, logger)
    for name, reason in failures.items():
        print(f"cyclestyle: error: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `compare`."""
    return call(compare, name, args)


def _translate(method: Method, photos: Path, output: Path) -> dict[str, Any]:
    """Translate the photos with a method, and return what that costs.

    Raises:
        CycleStyleError: the method, or one of its images, fails.
    """
    options = {"input": photos, "output": output, "workers": 0, "batch_size": 1, **method.predict}
    words = [word for key, value in options.items() for word in _words(key, value)]
    threads = torch.get_num_threads()
    forget_peak_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with one_line_errors():
            done, _ = predict(resolve_config_arguments(["--overwrite", *words]))
    finally:
        torch.set_num_threads(threads)  # a choice of this method
    if failures := done["failures"]:
        raise CycleStyleError(f"{number_of(len(failures), 'image')} failed: {' '.join(failures.values())}")
    cost = {"seconds": done["seconds"] / max(1, len(done["results"])), "memory": done["peak_memory_bytes"]}
    if "ckpt_path" in method.predict:
        stored = read_checkpoint(Path(method.predict["ckpt_path"])).get("callbacks", {}).get("Speed", {})
        cost["training_seconds"] = stored.get("seconds")
    return cost


def _words(key: str, value: object) -> list[str]:
    """Return an option of `predict` and its value as command line arguments."""
    if key in LISTS:
        return [f"--{key}", *(str(item) for item in (value if isinstance(value, list) else [value]))]
    return [f"--{key}={value if isinstance(value, str | Path) else json.dumps(value)}"]


class _Evaluator:
    """Computes the metrics of results against the photos and the target domain."""

    def __init__(self, extractor: Extractor, paintings: Sequence[Path], photos: Mapping[str, Path]) -> None:
        self.extractor, self.photos = extractor, photos
        targets = [_read(path) for path in paintings]
        with torch.inference_mode():
            self.gram = mean_gram(extractor, targets)
            self.embeddings = torch.cat([extractor(target) for target in targets])

    @torch.inference_mode()
    def row(self, name: str, images: Mapping[str, Path], cost: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the metrics of a method, averaged over the photos, and its cost."""
        embeddings, per_image = [], []
        for key, path in images.items():
            inputs = {"input": _read(self.photos[key]), "translation": _read(path), "gram": self.gram}
            per_image += measure_images(self.extractor, inputs)  # type: ignore[arg-type]
            embeddings.append(self.extractor(inputs["translation"]))
        sets = measure_sets(self.embeddings, torch.cat(embeddings), self.extractor.name)
        distances = {metric: sets[metric] for metric in ("kid", "kid_std", "fid")}
        figures = finite({**summarise(per_image), **distances})
        return {"name": name, **figures, **dict.fromkeys(COSTS), **(cost or {})}

    def notes(self) -> list[str]:
        """Return the notes that explain the metrics and costs."""
        return [
            f"{number_of(len(self.photos), 'photo')} and {number_of(len(self.embeddings), 'painting')}, "
            f"by the extractor {self.extractor.name}.",
            "Style distance: between the Gram matrices of a result's features and their mean over the paintings, "
            "relative to the latter. KID: between results and paintings, mean and standard deviation over random "
            "subsets. Content and structure distance: between the features of a photo and of its result at each "
            "position, and between their self-similarities. FID is biased for sets this small.",
            "Seconds are the duration of translation only. Memory is the peak memory of the process while the method "
            "translates, on a GPU that of its tensors. Both were measured on this machine.",
        ]


def _cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Return the cells of a row of the table."""
    figures = [METRICS[name].text(row[name], row["kid_std"] if name == "kid" else None) for name in metrics]
    costs = [DASH if row[name] is None else f"{row[name] / scale:.3g}" for name, (_, scale) in COSTS.items()]
    return [row["name"], *figures, *costs]


def _write(
    output: Path,
    rows: Sequence[dict[str, Any]],
    photos: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    failures: Mapping[str, str],
    notes: Sequence[str],
    paintings: Sequence[Path],
    logger: WandbLogger | None,
) -> None:
    write_json(output / "compare.json", [*rows, *({"name": name, "error": failures[name]} for name in failures)])
    notes = [*(f"{name} failed: {reason}" for name, reason in failures.items()), *notes]
    write_image(comparison_sheet(photos, results), output / "sheet.png")
    metrics = columns(rows[0])
    header = ["", *(METRICS[name].heading for name in metrics), *(heading for heading, _ in COSTS.values())]
    cells = [_cells(row, metrics) for row in rows]
    page = comparison_page(header, cells, photos, results, paintings=paintings[:PAINTINGS], notes=notes)
    page.write(output / "index.html")
    print(f"Page: {output / 'index.html'}\nSheet: {output / 'sheet.png'}")
    if logger is not None:
        logger.log_table("comparison", columns=list(rows[0]), data=[list(row.values()) for row in rows])
        logger.log_report(output / "index.html")


def _read(path: Path) -> Tensor:
    return to_tensor(read_image(path))[None]


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name.lower())
