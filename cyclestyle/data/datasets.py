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

Item = tuple[Tensor, Tensor, str, str]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The images of a domain, and how they are read.

    Attributes:
        paths: their files.
        channels: number of channels.
        range: the values that become -1 and 1; None: colours, of which each file has the range of its type.
    """

    paths: Sequence[Path]
    channels: int = 3
    range: ValueRange | None = None


class UnpairedSet(Dataset[Item]):
    """Base class of the training set and the test set.

    Args:
        A: domain A.
        B: domain B.
        reader: reads, resizes, crops and flips images.
    """

    def __init__(self, A: Domain, B: Domain, reader: ImageReader) -> None:
        self.A, self.B, self.reader = A, B, reader


class UnpairedTrainSet(UnpairedSet):
    """Randomly augmented pairs; the indices are the draws of an `UnpairedSampler`."""

    def __getitem__(self, draw: Draw) -> Item:
        """Return two augmented images, `(C, H, W)` in [-1, 1], and their paths."""
        rng = random.Random(draw.seed)
        path_A, path_B = self.A.paths[draw.index_A], self.B.paths[draw.index_B]
        image_A = self.reader.for_training(path_A, self.A.channels, rng, self.A.range)
        image_B = self.reader.for_training(path_B, self.B.channels, rng, self.B.range)
        return image_A, image_B, str(path_A), str(path_B)


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
    """Pairs of held-out images without augmentation; the smaller domain is repeated to the length of the larger."""

    def __len__(self) -> int:
        return max(len(self.A.paths), len(self.B.paths))

    def __getitem__(self, index: int) -> Item:
        """Return two images, `(C, H, W)` in [-1, 1], and their paths."""
        path_A, path_B = (domain.paths[index % len(domain.paths)] for domain in (self.A, self.B))
        image_A = self.reader.for_evaluation(path_A, self.A.channels, self.A.range)
        image_B = self.reader.for_evaluation(path_B, self.B.channels, self.B.range)
        return image_A, image_B, str(path_A), str(path_B)


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
    """Stack items into `{"A": (N, C, H, W), "B": (N, C, H, W), "paths_A": [...], "paths_B": [...]}`.

    Raises:
        DataError: the images of one domain differ in size.
    """
    images_A, images_B, paths_A, paths_B = (list(column) for column in zip(*items, strict=True))
    check_sizes(images_A, paths_A)
    check_sizes(images_B, paths_B)
    return {"A": torch.stack(images_A), "B": torch.stack(images_B), "paths_A": paths_A, "paths_B": paths_B}


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
