"""`compare`: several methods on the same photos, on one page."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # jsonargparse exports it without __all__
from torch import Tensor

from cyclestyle.callbacks import WandbLogger
from cyclestyle.commands.common import Parser, check_configs, ensure_writable, one_line_errors, quiet
from cyclestyle.commands.predict import LISTS
from cyclestyle.commands.shipped_configs import resolve_config_arguments
from cyclestyle.data.folders import find_images
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import atomic_write
from cyclestyle.images import read_image, to_tensor, write_image
from cyclestyle.metrics import (
    Extractor,
    ExtractorName,
    build_extractor,
    content_distance,
    mean_gram,
    set_distance,
    style_distance,
)
from cyclestyle.report import Row, comparison_page, comparison_sheet
from cyclestyle.weights.checkpoints import read_checkpoint

SHOWN = 4  # paintings of the domain that the page shows


@dataclass(kw_only=True)
class Method:
    """A method to compare.

    Args:
        name: what the page calls it.
        predict: what `cyclestyle predict` is called with, beside input and output: `{ckpt_path: last.ckpt}`.
    """

    name: str
    predict: dict[str, Any]


@dataclass(kw_only=True)
class Comparison:
    """Run methods on the same photos, and write a page, a sheet and a table.

    Args:
        input: a folder of photos.
        output: folder for `index.html`, `sheet.png`, `compare.json` and every method's images.
        target: a folder of paintings: the domain that results are compared with.
        methods: what is compared.
        extractor: of the features that distances rest on: statistics, squeezenet, vgg or inception.
        weights: a file for the extractor.
    """

    input: str
    output: str
    target: str
    methods: list[Method]
    extractor: ExtractorName = "statistics"
    weights: str | None = None


def run(name: str, args: Sequence[str]) -> int:
    """Run `compare`; the status is 1 if any method failed."""
    quiet()
    args = resolve_config_arguments(args)
    check_configs(args)
    with one_line_errors():
        parser = Parser(prog="cyclestyle compare", description="Compare methods on the same photos, on one page.")
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
        parser.add_class_arguments(Comparison)
        parser.add_subclass_arguments(WandbLogger, "logger", required=False)
        built = parser.instantiate_classes(parser.parse_args(list(args)))
        settings = Comparison(**{key: built[key] for key in Comparison.__dataclass_fields__})
        return _compare(settings, built.get("logger"))


def _compare(settings: Comparison, logger: WandbLogger | None) -> int:
    output = Path(settings.output)
    photos = {path.relative_to(settings.input).as_posix(): path for path in find_images(Path(settings.input))}
    paintings = find_images(Path(settings.target))
    extractor = build_extractor(settings.extractor, settings.weights)
    names = [method.name for method in settings.methods]
    if len({_slug(name) for name in names}) < len(names):
        raise CycleStyleError(f"two methods of the same name among {', '.join(names)}; give each one its own")
    ensure_writable(output)
    measure = _Measure(extractor, paintings, photos)
    rows, results, failures = [measure.row("photo", photos)], {}, {}
    for method in settings.methods:
        folder = output / _slug(method.name)
        print(f"{method.name} …", flush=True)
        if reason := _predict(method, Path(settings.input), folder):
            failures[method.name] = reason
            continue
        results[method.name] = {key: folder / key for key in photos}
        rows.append(measure.row(method.name, results[method.name], _cost(method, folder)))
    _write(output, rows, photos, results, measure.notes(), paintings, logger)
    for method_name, reason in failures.items():
        print(f"cyclestyle: error: {method_name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


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
    def row(self, name: str, images: Mapping[str, Path], cost: Mapping[str, Any] | None = None) -> Row:
        """The figures of a method, means over the photos."""
        results = {key: _read(path) for key, path in images.items()}
        style = torch.cat([style_distance(self.extractor, result, self.gram) for result in results.values()]).mean()
        content = [content_distance(self.extractor, _read(self.photos[key]), result) for key, result in results.items()]
        figures: dict[str, Any] = {"style": style.item(), "content": torch.cat(content).mean().item()}
        if min(len(results), len(self.embeddings)) >= 2:
            embeddings = torch.cat([self.extractor(result) for result in results.values()])
            found = set_distance(self.embeddings, embeddings, self.extractor.name)
            figures |= {"kid": found.kid, "kid_std": found.kid_std}
        return Row(name=name, **figures, **(cost or {}))

    def notes(self) -> list[str]:
        """What the figures rest on."""
        return [
            f"{len(self.photos)} photos and {len(self.embeddings)} paintings, by the extractor {self.extractor.name}.",
            "Style distance: between the Gram matrices of a result's features and their mean over the paintings, "
            "relative to the latter. KID: between results and paintings, mean and deviation over random subsets. "
            "Content distance: between the features of a photo and of its result, place by place.",
            "Seconds are those of translating alone; memory is the most that the process held, on a GPU "
            "the most that its tensors took. Both on this machine.",
        ]


def _write(
    output: Path,
    rows: Sequence[Row],
    photos: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    notes: Sequence[str],
    paintings: Sequence[Path],
    logger: WandbLogger | None,
) -> None:
    with atomic_write(output / "compare.json") as file:
        file.write((json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode())
    write_image(comparison_sheet(photos, results), output / "sheet.png")
    page = comparison_page(rows, photos, results, paintings=paintings[:SHOWN], notes=notes)
    page.write(output / "index.html")
    print(f"Page: {output / 'index.html'}\nSheet: {output / 'sheet.png'}")
    if logger is not None:
        logger.log_table("comparison", columns=list(asdict(rows[0])), data=[list(asdict(row).values()) for row in rows])
        logger.log_report(output / "index.html")


def _read(path: Path) -> Tensor:
    return to_tensor(read_image(path))[None]


def _stats(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name.lower())
