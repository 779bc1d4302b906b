"""`score`: how good translations are, beside two baselines, with or without the true images."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from cyclestyle.data.folders import find_images
from cyclestyle.errors import DataError
from cyclestyle.functional.colour import ColourTransfer
from cyclestyle.images import read_image, to_image, to_tensor, write_image
from cyclestyle.metrics import (
    Extractor,
    ExtractorName,
    build_extractor,
    content_distance,
    set_distance,
    structure_distance,
    texture_distance,
)

Method = Callable[[Tensor], Tensor]
Scores = dict[str, float]

COLUMNS = {
    "kid": "KID ↓",
    "fid": "FID ↓",
    "content": "content ↓",
    "structure": "structure ↓",
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM ↑",
    "perceptual": "perceptual ↓",
    "texture_distance": "texture ↓",
}
ON_SHEET = "colour transfer, domain"


def run(name: str, args: Sequence[str]) -> int:
    """Run `score`."""
    options = _parser().parse_args(args)
    names = [path.relative_to(options.input) for path in find_images(options.input)]
    extractor = build_extractor(options.extractor, options.weights)
    targets = list(_tensors(options.target))
    reals = _embeddings(extractor, targets)
    rows = {
        row: _score(names, options.input, folder, options.truth, method, extractor, reals)
        for row, (folder, method) in _methods(options, targets).items()
    }
    print(_table(rows, len(names)))
    print(
        f"KID, FID, content, structure and perceptual distance by the extractor {extractor.name}; "
        f"KID and FID to {len(reals)} images of {options.target}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.sheet:
        write_image(to_image(_sheet(names[: options.columns], options, targets)), options.sheet)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cyclestyle score",
        description="Measure translations beside untouched images and colour transfer: how close they come to the "
        "target domain (KID, FID), how much of the image they keep (content, structure) and, where the true "
        "images are known, how close they come to those (PSNR, SSIM, perceptual and texture distance).",
    )
    parser.add_argument("--output", type=Path, required=True, nargs="+", help="folders of translations, a row each")
    parser.add_argument("--input", type=Path, required=True, help="folder of untouched images, of the same names")
    parser.add_argument("--source", type=Path, required=True, help="training images of the input's domain")
    parser.add_argument("--target", type=Path, required=True, help="training images of the output's domain")
    parser.add_argument("--truth", type=Path, help="folder of true images, of the same names")
    parser.add_argument("--extractor", choices=get_args(ExtractorName), default="statistics", help="(%(default)s)")
    parser.add_argument("--weights", type=Path, help="a file for the extractor")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--sheet", type=Path, help="write a PNG: input, domain colour transfer, each output, truth")
    parser.add_argument("--columns", type=int, default=8, help="images on the sheet (default %(default)s)")
    return parser


def _methods(options: argparse.Namespace, targets: list[Tensor]) -> dict[str, tuple[Path, Method]]:
    """The rows of the table: where each finds its images, and what it does to them."""
    transfer = ColourTransfer.fit(_tensors(options.source), targets)
    single = options.output[0].name if len(options.output) > 1 else "cyclestyle"
    named = {single if n == 0 else folder.name: folder for n, folder in enumerate(options.output)}
    return {
        "untouched": (options.input, _as_it_is),
        ON_SHEET: (options.input, transfer),
        "colour transfer, each image": (options.input, lambda one: ColourTransfer.fit([one], targets)(one)),
        **{row: (folder, _as_it_is) for row, folder in named.items()},
    }


def _as_it_is(image: Tensor) -> Tensor:
    return image


def _tensors(folder: Path) -> Iterator[Tensor]:
    return (to_tensor(read_image(path)) for path in find_images(folder))


def _embeddings(extractor: Extractor, images: Sequence[Tensor]) -> Tensor:
    return torch.cat([extractor(image[None]) for image in images])


def _score(
    names: Sequence[Path],
    inputs: Path,
    folder: Path,
    truth: Path | None,
    method: Method,
    extractor: Extractor,
    reals: Tensor,
) -> Scores:
    """The figures of a method's results, rounded to 8 bits as files are; means over the images."""
    results, each = [], []
    for name in names:
        if not (folder / name).exists():
            raise DataError(f"{folder / name} does not exist; every image of {inputs} needs its counterpart")
        result = to_tensor(to_image(method(to_tensor(read_image(folder / name)))))[None]
        image = to_tensor(read_image(inputs / name))[None]
        scores = {
            "content": content_distance(extractor, image, result),
            "structure": structure_distance(extractor, image, result),
        }
        if truth is not None:
            scores |= _to_truth(result, truth / name, extractor)
        results.append(result[0])
        each.append({key: float(value) for key, value in scores.items()})
    found = set_distance(reals, _embeddings(extractor, results), extractor.name)
    means = {key: sum(scores[key] for scores in each) / len(each) for key in each[0]}
    return {"kid": found.kid, "kid_std": found.kid_std, "fid": found.fid, **means}


def _to_truth(result: Tensor, path: Path, extractor: Extractor) -> dict[str, Tensor]:
    if not path.exists():
        raise DataError(f"{path} does not exist; every image needs its true counterpart, or leave --truth out")
    true = to_tensor(read_image(path))[None]
    if result.shape != true.shape:
        raise DataError(f"the translation of {path.name} and {path} differ in size")
    ssim = structural_similarity_index_measure(result, true, data_range=2.0)
    assert isinstance(ssim, Tensor)
    return {
        "psnr": peak_signal_noise_ratio(result, true, data_range=2.0),
        "ssim": ssim,
        "perceptual": content_distance(extractor, true, result),
        "texture_distance": texture_distance(result, true),
    }


def _sheet(names: Sequence[Path], options: argparse.Namespace, targets: list[Tensor]) -> Tensor:
    """A row a method, a column an image: `(3, height, width)`; the images must be of one size."""
    methods = _methods(options, targets)
    shown = [methods["untouched"], methods[ON_SHEET], *((folder, _as_it_is) for folder in options.output)]
    if options.truth:
        shown.append((options.truth, _as_it_is))
    rows = [[method(to_tensor(read_image(folder / name))) for name in names] for folder, method in shown]
    return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)


def _table(rows: dict[str, Scores], count: int) -> str:
    columns = [key for key in COLUMNS if key in next(iter(rows.values()))]
    lines = [f"{f'{count} images':30}" + "".join(f"{COLUMNS[key]:>14}" for key in columns)]
    for name, scores in rows.items():
        lines.append(f"{name:30}" + "".join(f"{scores[key]:>14.4g}" for key in columns))
    return "\n".join(lines)
