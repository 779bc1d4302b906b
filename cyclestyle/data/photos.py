"""The LightningDataModule of one domain: photos on which a style is learned."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.datamodule import ImageFolders
from cyclestyle.data.datasets import check_sizes
from cyclestyle.data.reader import ImageReader
from cyclestyle.data.sampler import Draw
from cyclestyle.data.transforms import Preparation, Resize
from cyclestyle.errors import DataError
from cyclestyle.images.folders import find_images_in

Item = tuple[Tensor, str]


class Photos(ImageFolders):
    """Photos as RGB, read recursively from folders; any sizes and names.

    Batches are `{"images": (N, 3, H, W), "paths": [...]}` with values in [-1, 1]. Every photo is used once per epoch.
    A run that is resumed in the middle of an epoch uses the same photos as an uninterrupted run.

    Args:
        train: training folders.
        test: held-out folders for validation; without any, a tenth of the photos of `train`, at least 2 and at most
            100, is held out, unless `trainer.limit_val_batches` is 0.
        resize: resize mode; see `cyclestyle.data.transforms.Preparation`.
        load_size: size before the crop, pixels.
        crop_size: size after the crop, pixels; a multiple of 4.
        flip: flip images horizontally with probability 0.5.
        batch_size: number of photos in a batch in each process.
        options: those of every `ImageFolders`, such as `workers`.

    Raises:
        DataError: a folder does not exist or contains no images, or a file is not an image.
        ValueError: a size or a number of images is out of range.
    """

    def __init__(
        self,
        train: list[str] | None = None,
        *,
        test: list[str] | None = None,
        resize: Resize = "resize_and_crop",
        load_size: int = 256,
        crop_size: int = 256,
        flip: bool = False,
        batch_size: int = 4,
        **options: Any,
    ) -> None:
        prepare = Preparation(resize=resize, load_size=load_size, crop_size=crop_size, flip=flip)
        super().__init__(prepare=prepare, batch_size=batch_size, **options)
        self.save_hyperparameters(logger=False)  # into checkpoints
        self.folders = {"train": train, "test": test}

    def setup(self, stage: str) -> None:
        """Find the photos, so that a wrong folder raises an error before the first step."""
        self._find_splits(stage, "train", "test")

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of randomly augmented training photos, from the position of the loaded checkpoint."""
        paths = self.paths("train")
        sampler = self._sampler(len(paths), len(paths), paired=True)
        return self._loader(TrainPhotos(paths, self.reader), collate_photos, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the held-out photos, without augmentation, sorted by name."""
        return self._loader(TestPhotos(self.paths("test"), self.reader), collate_photos)

    def _find(self, split: str) -> list[Path]:
        folders = self.folders[split]
        if self._validates and (plain := self.folders["train"]) and not self.folders["test"]:
            return self._split(plain, split)
        if not folders:
            raise DataError(f"no folder for {split}: name a folder of photos in data.{split}")
        return find_images_in([Path(folder) for folder in folders])


class TrainPhotos(Dataset[Item]):
    """Randomly augmented photos; the indices are the draws of an `UnpairedSampler`, of which only A is used."""

    def __init__(self, paths: Sequence[Path], reader: ImageReader) -> None:
        self.paths, self.reader = paths, reader

    def __getitem__(self, draw: Draw) -> Item:
        """Return an augmented photo, `(3, H, W)` in [-1, 1], and its path."""
        path = self.paths[draw.index_A]
        return self.reader.for_training(path, 3, random.Random(draw.seed)), str(path)


class TestPhotos(Dataset[Item]):
    """Held-out photos without augmentation."""

    __test__ = False  # not a test class of pytest

    def __init__(self, paths: Sequence[Path], reader: ImageReader) -> None:
        self.paths, self.reader = paths, reader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        """Return a photo, `(3, H, W)` in [-1, 1], and its path."""
        path = self.paths[index]
        return self.reader.for_evaluation(path, 3), str(path)


def collate_photos(items: Sequence[Item]) -> dict[str, Any]:
    """Stack items into `{"images": (N, 3, H, W), "paths": [...]}`.

    Raises:
        DataError: the photos differ in size.
    """
    images, paths = (list(column) for column in zip(*items, strict=True))
    check_sizes(images, paths)
    return {"images": torch.stack(images), "paths": paths}
