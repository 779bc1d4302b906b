"""Datasets of unpaired images."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cyclestyle.data.reader import ImageReader
from cyclestyle.data.sampler import Draw
from cyclestyle.errors import DataError
from cyclestyle.images import ValueRange

Item = dict[str, Tensor | str]
"""Images and masks of each domain, `(C, H, W)`, and their paths, by the names that a batch has for them."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The images of a domain, and how they are read.

    Attributes:
        paths: their files.
        channels: number of channels.
        range: the values that become -1 and 1; None: colours, of which each file has the range of its type.
        masks: the mask of each image; empty for none.
    """

    paths: Sequence[Path]
    channels: int = 3
    range: ValueRange | None = None
    masks: Sequence[Path] = ()


class UnpairedSet(Dataset[Item]):
    """Base class of the training set and the test set.

    Args:
        A: domain A.
        B: domain B.
        reader: reads, resizes, crops and flips images.
        pairs: the numbers of images of A and B that show the same.
    """

    def __init__(self, A: Domain, B: Domain, reader: ImageReader, pairs: Sequence[tuple[int, int]] = ()) -> None:
        self.A, self.B, self.reader, self.pairs = A, B, reader, pairs


class UnpairedTrainSet(UnpairedSet):
    """Randomly augmented pairs; the indices are the draws of an `UnpairedSampler`.

    With masks, items have `mask_A` and `mask_B` in [0, 1], and with pairs `pair_A` and `pair_B`, a pair that is drawn
    beside the other images. Crops and flips of a mask are those of its image, and both images of a pair have the same.
    """

    def __getitem__(self, draw: Draw) -> Item:
        """Return two augmented images, `(C, H, W)` in [-1, 1], and their paths."""
        rng = random.Random(draw.seed)
        item: Item = {}
        for name, domain, index in (("A", self.A, draw.index_A), ("B", self.B, draw.index_B)):
            path, before = domain.paths[index], rng.getstate()
            item[name], item[f"paths_{name}"] = self._read(domain, path, rng), str(path)
            if domain.masks:
                mask = self.reader.for_training(domain.masks[index], 1, _as_before(before))
                item[f"mask_{name}"] = (mask + 1) / 2
        if self.pairs:
            rng = random.Random(f"pair {draw.seed}")
            first, second = self.pairs[rng.randrange(len(self.pairs))]
            before = rng.getstate()
            item["pair_A"] = self._read(self.A, self.A.paths[first], rng)
            item["pair_B"] = self._read(self.B, self.B.paths[second], _as_before(before))
            _check_pair(item["pair_A"], item["pair_B"], self.A.paths[first], self.B.paths[second])
        return item

    def _read(self, domain: Domain, path: Path, rng: random.Random) -> Tensor:
        return self.reader.for_training(path, domain.channels, rng, domain.range)


def _as_before(state: Any) -> random.Random:
    """Return a generator of the numbers that another one has drawn since it was in a state."""
    rng = random.Random()
    rng.setstate(state)
    return rng


def _check_pair(first: Any, second: Any, path: Path, other: Path) -> None:
    if first.shape[1:] != second.shape[1:]:
        raise DataError(f"{path} and {other} are a pair, but differ in size; make them equal, or choose another resize")


class Drawn(Dataset[Any]):
    """The items of a training set for a fixed list of draws, for `trainer.overfit_batches`."""

    def __init__(self, data: Dataset[Any], draws: Sequence[Draw]) -> None:
        self.data, self.draws = data, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: int) -> Any:
        """Return the same item for the same index in every epoch."""
        return self.data[self.draws[index]]


class UnpairedTestSet(UnpairedSet):
    """Pairs of held-out images without augmentation; the smaller domain is repeated to the length of the larger.

    With pairs, items have `truth_B`, the image of B that shows the same as that of A, and `truth_A`. They are NaN where
    there is none.
    """

    def __len__(self) -> int:
        return max(len(self.A.paths), len(self.B.paths))

    def __getitem__(self, index: int) -> Item:
        """Return two images, `(C, H, W)` in [-1, 1], and their paths."""
        item: Item = {}
        for name, domain in (("A", self.A), ("B", self.B)):
            path = domain.paths[index % len(domain.paths)]
            item[name], item[f"paths_{name}"] = self._read(domain, path), str(path)
        if self.pairs:
            item["truth_B"] = self._truth(item["A"], dict(self.pairs), index % len(self.A.paths), self.A, self.B)
            back = {second: first for first, second in self.pairs}
            item["truth_A"] = self._truth(item["B"], back, index % len(self.B.paths), self.B, self.A)
        return item

    def _read(self, domain: Domain, path: Path) -> Tensor:
        return self.reader.for_evaluation(path, domain.channels, domain.range)

    def _truth(self, image: Any, others: dict[int, int], index: int, domain: Domain, other: Domain) -> Tensor:
        if index not in others:
            return torch.full((other.channels, *image.shape[1:]), torch.nan)
        path = other.paths[others[index]]
        truth = self._read(other, path)
        _check_pair(image, truth, domain.paths[index], path)
        return truth


class SingleDomainSet(Dataset[Tensor]):
    """Images of one domain, without augmentation."""

    def __init__(self, domain: Domain, reader: ImageReader) -> None:
        self.domain, self.reader = domain, reader

    def __len__(self) -> int:
        return len(self.domain.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return an image, `(C, H, W)` in [-1, 1]."""
        return self.reader.for_evaluation(self.domain.paths[index], self.domain.channels, self.domain.range)


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Stack items into `{"A": (N, C, H, W), "B": …, "paths_A": [...], "paths_B": [...]}`, and masks and pairs.

    Raises:
        DataError: the images of one domain differ in size.
    """
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
    for name in "AB":
        check_sizes(batch[name], batch[f"paths_{name}"])
    return {name: torch.stack(one) if isinstance(one[0], Tensor) else one for name, one in batch.items()}


def check_sizes(images: Sequence[Tensor], paths: Sequence[str]) -> None:
    """Check that images can be stacked.

    Raises:
        DataError: the images differ in size.
    """
    for image, path in zip(images, paths, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{path} and {paths[0]} differ in size and cannot share a batch; "
                "set batch_size to 1 or choose a resize that crops"
            )
