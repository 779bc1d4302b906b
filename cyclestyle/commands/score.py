"""`score`: measure translations beside two baselines, with or without the true images."""

import glob
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from cyclestyle.commands.line.parser import call
from cyclestyle.commands.line.process import ensure_writable_file, number_of, refuse_input_as_output
from cyclestyle.errors import CycleStyleError, DataError
from cyclestyle.files import write_json
from cyclestyle.functional.colour import ColourTransfer
from cyclestyle.images import EXTENSIONS, read_image, to_image, to_tensor, write_image
from cyclestyle.images.folders import check_images, find_images
from cyclestyle.metrics import (
    METRICS,
    Extractor,
    ExtractorName,
    build_extractor,
    columns,
    embed,
    finite,
    held_out_shares,
    kid_interval,
    measure_domains,
    measure_images,
    summarise,
)
from cyclestyle.metrics.probe import FOLDS

Method = Callable[[Tensor], Tensor]
Scores = dict[str, float]

ON_SHEET = "colour transfer, domain"
MOST = 1000  # images of the source that the probe learns from


def score(
    *,
    output: list[str],
    input: str,
    source: str,
    target: str,
    truth: str | None = None,
    extractor: ExtractorName = "statistics",
    weights: str | None = None,
    json: str | None = None,
    sheet: str | None = None,
    columns: int = 8,
) -> int:
    """Measure translations beside untouched images and colour transfer.

    How close they are to the target domain (KID, FID, and the share that a probe takes for it), how much of the input
    they keep (content, structure), whether upsampling shows (checkerboard) and, where the true images are known, how
    close they are to those (PSNR, SSIM, perceptual and texture distance).

    Args:
        output: folders of translations, one row each; also those of other programs, with any ending of the names.
        input: folder of untouched images, of the same names.
        source: training images of the domain of the input.
        target: training images of the domain of the output.
        truth: folder of true images, of the same names.
        extractor: what features the distances rest on.
        weights: a file for the extractor.
        json: also write the table to this file.
        sheet: write a PNG with one row each: input, domain colour transfer, each output, truth.
        columns: images on the sheet.
    """
    if columns < 1:
        raise CycleStyleError(f"columns must be at least 1, got {columns}")
    folder, true = Path(input), None if truth is None else Path(truth)
    written = [ensure_writable_file(path) for path in (json, sheet) if path]
    refuse_input_as_output(written, [Path(one) for one in (*output, input, source, target, truth) if one])
    names = [path.relative_to(folder) for path in find_images(folder)]
    for results in [Path(one) for one in (*output, truth) if one]:  # before the work, which takes minutes
        for name in names:
            counterpart(results, name, folder)
    for images in (folder, Path(source), Path(target)):
        for line in check_images(find_images(images), decode=False).losses():
            print(f"cyclestyle: warning: {images}: {line}", file=sys.stderr)
    found = build_extractor(extractor, weights)
    targets = list(_tensors(Path(target)))
    sources = find_images(Path(source))
    count = min(MOST, len(sources))
    shown = [sources[number * len(sources) // count] for number in range(count)]  # spread evenly
    domains = _embeddings(found, (to_tensor(read_image(path)) for path in shown)), _embeddings(found, targets)
    methods = _methods([Path(one) for one in output], folder, Path(source), targets)
    rows = {row: _score(names, folder, where, true, method, found, domains) for row, (where, method) in methods.items()}
    print(_table(rows, len(names)))
    print(
        f"KID, FID, content, structure and perceptual distance by the extractor {found.name}; "
        f"KID, with its 95 % bootstrap interval, and FID to {number_of(len(domains[1]), 'image')} of {target}"
    )
    print(_reliability(domains, source, target))
    if json:
        write_json(written[0], {name: finite(row) for name, row in rows.items()})
    if sheet:
        rows_of_sheet = [methods["untouched"], methods[ON_SHEET], *((Path(one), _unchanged) for one in output)]
        if true is not None:
            rows_of_sheet.append((true, _unchanged))
        write_image(to_image(_sheet(names[:columns], rows_of_sheet)), written[-1])
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `score`."""
    return call(score, name, args)


def _methods(
    outputs: Sequence[Path], inputs: Path, source: Path, targets: list[Tensor]
) -> dict[str, tuple[Path, Method]]:
    """The rows of the table: the folder of each, and what is done to its images."""
    transfer = ColourTransfer.fit(_tensors(source), targets)
    names = [folder.name for folder in outputs] if len(outputs) > 1 else ["cyclestyle"]
    named = {
        name if names.count(name) == 1 else str(folder): folder for name, folder in zip(names, outputs, strict=True)
    }
    return {
        "untouched": (inputs, _unchanged),
        ON_SHEET: (inputs, transfer),
        "colour transfer, each image": (inputs, lambda one: ColourTransfer.fit([one], targets)(one)),
        **{row: (folder, _unchanged) for row, folder in named.items()},
    }


def _unchanged(image: Tensor) -> Tensor:
    return image


def _tensors(folder: Path) -> Iterator[Tensor]:
    return (to_tensor(read_image(path)) for path in find_images(folder))


def _embeddings(extractor: Extractor, images: Iterable[Tensor]) -> Tensor:
    return torch.cat([embed(extractor, image[None]) for image in images])


def _reliability(domains: tuple[Tensor, Tensor], source: str, target: str) -> str:
    """Return one line that says how well the probe tells images apart that it has not seen."""
    counts = [number_of(len(domain), "image") for domain in domains]
    line = f"probe: the share that a logistic regression takes for {target}, learnt from {counts[0]} of {source}"
    if min(map(len, domains)) < FOLDS:
        return f"{line} and {counts[1]} of {target}, too few to check it"
    shares = [held_out_shares(*(domain[:, size] for domain in domains)) for size in (0, 1)]
    (a, b), (half_a, half_b) = shares
    return (
        f"{line} and {counts[1]} of {target}; of held-out ones it takes {a:.0%} and {b:.0%}, "
        f"at half size {half_a:.0%} and {half_b:.0%}"
    )


def _score(
    names: Sequence[Path],
    inputs: Path,
    folder: Path,
    truth: Path | None,
    method: Method,
    extractor: Extractor,
    domains: tuple[Tensor, Tensor],
) -> Scores:
    """The figures of the results of a method, rounded to 8 bits as files are; means over the images."""
    embeddings, each, resized = [], [], 0
    for name in names:
        original = to_tensor(read_image(inputs / name))[None]
        result = to_tensor(to_image(method(to_tensor(read_image(counterpart(folder, name, inputs))))))[None]
        if result.shape != original.shape:
            result, resized = _resize(result, original), resized + 1
        images = {"input": original, "translation": result}
        if truth is not None:
            images["truth"] = _read_truth(result, counterpart(truth, name, inputs))
        each += measure_images(extractor, images)  # type: ignore[arg-type]  # the names are those of the table
        embeddings.append(embed(extractor, result))
    if resized:
        print(f"resized {resized} of {number_of(len(names), 'image')} of {folder} to the sizes of those of {inputs}")
    found = torch.cat(embeddings)
    source, target = domains
    sets = measure_domains(source, target, found, extractor.name)
    low, high = kid_interval(target[:, 0], found[:, 0])
    distances = {name: sets[name] for name in ("kid", "kid_std", "fid", "kid_half", "probe", "probe_half")}
    return {**distances, "kid_low": low, "kid_high": high, **summarise(each)}


def counterpart(folder: Path, name: Path, inputs: Path) -> Path:
    """Return the image in `folder` that belongs to an input: of the same relative name, or with another ending.

    Raises:
        DataError: there is none, or there are several.
    """
    if (folder / name).is_file():
        return folder / name
    near = sorted((folder / name).parent.glob(f"{glob.escape(name.stem)}.*"))
    found = [path for path in near if path.suffix.lower() in EXTENSIONS]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{found[0]} and {found[1]} may both belong to {inputs / name}; remove one of them")
    raise DataError(f"{folder / name} does not exist, with any ending; every image of {inputs} needs its counterpart")


def _resize(image: Tensor, like: Tensor) -> Tensor:
    found = functional.interpolate(image, size=like.shape[2:], mode="bicubic", antialias=True, align_corners=False)
    return found.clamp(-1, 1)


def _read_truth(result: Tensor, path: Path) -> Tensor:
    true = to_tensor(read_image(path))[None]
    if result.shape != true.shape:
        raise DataError(f"the translation of {path.name} and {path} differ in size")
    return true


def _sheet(names: Sequence[Path], methods: Sequence[tuple[Path, Method]]) -> Tensor:
    """One row per method, one column per image: `(3, height, width)`; every image in the size of the first input."""
    inputs = methods[0][0]
    first = to_tensor(read_image(inputs / names[0]))[None]

    def cell(folder: Path, method: Method, name: Path) -> Tensor:
        image = method(to_tensor(read_image(counterpart(folder, name, inputs))))[None]
        return (image if image.shape == first.shape else _resize(image, first))[0]

    rows = [torch.cat([cell(folder, method, name) for name in names], dim=2) for folder, method in methods]
    return torch.cat(rows, dim=1)


def _table(rows: Mapping[str, Scores], count: int) -> str:
    names = columns(next(iter(rows.values())))
    headings = {name: METRICS[name].heading for name in names}
    widths = {name: 26 if name == "kid" else max(14, len(heading) + 2) for name, heading in headings.items()}
    lines = [f"{number_of(count, 'image'):30}" + "".join(f"{headings[name]:>{widths[name]}}" for name in names)]
    for row, scores in rows.items():
        texts = {name: METRICS[name].text(scores[name]) for name in names}
        if math.isfinite(scores["kid"]):
            known = math.isfinite(scores["kid_low"])
            texts["kid"] += f" ({scores['kid_low']:.3g} to {scores['kid_high']:.3g})" if known else " (interval n/a)"
        lines.append(f"{row:30}" + "".join(f"{texts[name]:>{widths[name]}}" for name in names))
    return "\n".join(lines)
