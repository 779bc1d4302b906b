"""`score`: how close translations come to the true pictures, beside two baselines."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from cyclestyle.data.folders import find_images
from cyclestyle.errors import DataError
from cyclestyle.images import read_image, to_image, to_tensor, write_image
from cyclestyle.metrics import texture_distance
from cyclestyle.translate.colour import ColourTransfer

Method = Callable[[Tensor], Tensor]
Scores = tuple[float, float]
ON_SHEET = ("untouched", "colour transfer, domain", "cyclestyle")


def run(name: str, args: Sequence[str]) -> int:
    """Run `score`."""
    parser = argparse.ArgumentParser(
        prog="cyclestyle score",
        description="Compare translations with the true pictures of the same names: PSNR in dB (higher is closer) "
        "and the distance of local texture statistics (lower is closer).",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of translations")
    parser.add_argument("--truth", type=Path, required=True, help="folder of true pictures")
    parser.add_argument("--input", type=Path, required=True, help="folder of untouched pictures, the first baseline")
    parser.add_argument("--source", type=Path, required=True, help="training pictures of the input's domain")
    parser.add_argument("--target", type=Path, required=True, help="training pictures of the output's domain")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--sheet", type=Path, help="write a PNG: input, domain colour transfer, output, truth")
    parser.add_argument("--columns", type=int, default=8, help="pictures on the sheet (default %(default)s)")
    options = parser.parse_args(args)
    names = [path.relative_to(options.truth) for path in find_images(options.truth)]
    target = list(_tensors(options.target))
    transfer = ColourTransfer.fit(_tensors(options.source), target)
    methods: dict[str, tuple[Path, Method]] = {
        "untouched": (options.input, lambda picture: picture),
        "colour transfer, domain": (options.input, transfer),
        "colour transfer, each picture": (options.input, lambda one: ColourTransfer.fit([one], target)(one)),
        "cyclestyle": (options.output, lambda picture: picture),
    }
    rows = {row: _score(names, folder, options.truth, method) for row, (folder, method) in methods.items()}
    print(_table(rows, len(names)))
    if options.json:
        table = {row: {"psnr": psnr, "texture_distance": texture} for row, (psnr, texture) in rows.items()}
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    if options.sheet:
        shown = [*(methods[row] for row in ON_SHEET), (options.truth, methods["untouched"][1])]
        write_image(to_image(_sheet(names[: options.columns], shown)), options.sheet)
    return 0


def _sheet(names: Sequence[Path], shown: Sequence[tuple[Path, Method]]) -> Tensor:
    """A row a method, a column a picture: `(3, height, width)`; the pictures must be of one size."""
    rows = [[method(to_tensor(read_image(folder / name))) for name in names] for folder, method in shown]
    return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)


def _tensors(folder: Path) -> Iterator[Tensor]:
    return (to_tensor(read_image(path)) for path in find_images(folder))


def _score(names: Sequence[Path], folder: Path, truth: Path, method: Method) -> Scores:
    """Mean PSNR and texture distance of a method's results, rounded to 8 bits as files are."""
    psnrs, textures = [], []
    for name in names:
        if not (folder / name).exists():
            raise DataError(f"{folder / name} does not exist; every picture of {truth} needs its counterpart")
        true = to_tensor(read_image(truth / name))
        result = to_tensor(to_image(method(to_tensor(read_image(folder / name)))))
        if result.shape != true.shape:
            raise DataError(f"{folder / name} and {truth / name} differ in size")
        psnrs.append(peak_signal_noise_ratio(result, true, data_range=2.0))
        textures.append(texture_distance(result[None], true[None])[0])
    return torch.stack(psnrs).mean().item(), torch.stack(textures).mean().item()


def _table(rows: dict[str, Scores], count: int) -> str:
    title = f"against the {count} true pictures"
    lines = [f"{title:32} PSNR, dB ↑   texture distance ↓"]
    lines += [f"{name:32} {psnr:8.2f}   {texture:18.3f}" for name, (psnr, texture) in rows.items()]
    return "\n".join(lines)
