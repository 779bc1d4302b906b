"""Data sets of unpaired images."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cyclestyle.data.sampler import Draw
from cyclestyle.data.transforms import Preparation
from cyclestyle.errors import DataError
from cyclestyle.images import read_image, to_tensor

Item = tuple[Tensor, Tensor, str, str]


class UnpairedSet(Dataset[Item]):
    """What the training set and the test set share: two lists of files, and how to prepare and read them."""

    def __init__(
        self, paths_A: Sequence[Path], paths_B: Sequence[Path], prepare: Preparation, channels: tuple[int, int]
    ) -> None:
        self.paths_A, self.paths_B = paths_A, paths_B
        self.prepare = prepare
        self.channels = channels


class UnpairedTrainSet(UnpairedSet):
    """Random views of two images, as an `UnpairedSampler` draws them."""

    def __getitem__(self, draw: Draw) -> Item:
        """Return the two views, `(C, H, W)` in [-1, 1], and the paths of their files."""
        rng = random.Random(draw.seed)
        path_A, path_B = self.paths_A[draw.index_A], self.paths_B[draw.index_B]
        image_A = self.prepare.for_training(read_image(path_A, self.channels[0]), rng)
        image_B = self.prepare.for_training(read_image(path_B, self.channels[1]), rng)
        return to_tensor(image_A), to_tensor(image_B), str(path_A), str(path_B)


class UnpairedTestSet(UnpairedSet):
    """Held-out images side by side, without chance; the smaller domain starts again where it ends."""

    def __len__(self) -> int:
        return max(len(self.paths_A), len(self.paths_B))

    def __getitem__(self, index: int) -> Item:
        """Return the two images, `(C, H, W)` in [-1, 1], and the paths of their files."""
        path_A, path_B = self.paths_A[index % len(self.paths_A)], self.paths_B[index % len(self.paths_B)]
        image_A = self.prepare.for_evaluation(read_image(path_A, self.channels[0]))
        image_B = self.prepare.for_evaluation(read_image(path_B, self.channels[1]))
        return to_tensor(image_A), to_tensor(image_B), str(path_A), str(path_B)


class WholeSet(Dataset[Tensor]):
    """One domain's images, as they are evaluated."""

    def __init__(self, paths: Sequence[Path], prepare: Preparation, channels: int) -> None:
        self.paths, self.prepare, self.channels = paths, prepare, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return the image, `(C, H, W)` in [-1, 1]."""
        return to_tensor(self.prepare.for_evaluation(read_image(self.paths[index], self.channels)))


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
    """Refuse images that cannot be stacked.

    Raises:
        DataError: they differ in size.
    """
    for image, path in zip(images, paths, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{path} and {paths[0]} differ in size and cannot share a batch; "
                "set batch_size to 1 or choose a resize that crops"
            )
