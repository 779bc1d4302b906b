"""The LightningDataModule of one domain: photos to learn a painting's style on."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.datamodule import ImageFolders, OnBadImage
from cyclestyle.data.datasets import check_sizes
from cyclestyle.data.folders import find_images_in
from cyclestyle.data.sampler import Draw
from cyclestyle.data.transforms import Preparation, Resize
from cyclestyle.errors import DataError
from cyclestyle.images import read_image, to_tensor

Item = tuple[Tensor, str]

_REMEDY = {
    "train": "list folders of photos in data.train",
    "test": "list folders of photos that are not trained on in data.test, or train without validation by "
    "--trainer.limit_val_batches 0",
}


class Photos(ImageFolders):
    """Photos in folders, recursive, of any sizes and names, as RGB.

    Batches are `{"images": (N, 3, H, W), "paths": [...]}` with values in [-1, 1]. Every photo is seen once an
    epoch; a run that is resumed in the middle of an epoch sees exactly the photos that it would have seen.

    Args:
        train: folders to train on.
        test: held-out folders, for validation.
        resize: how an image reaches its size; see `cyclestyle.data.transforms.Preparation`.
        load_size: pixels before the crop.
        crop_size: pixels after the crop; a multiple of 4.
        flip: mirror every second image left to right.
        batch_size: photos in a batch, for each process.
        workers: processes that load images; by default one for each core beyond the first, at most 4.
        on_bad_image: `raise` stops at the first file that is no image; `skip` decodes every file once at
            the start, leaves the bad ones out, and says how many and which.
        seed: decides the order, crops and flips; by default the run's `seed_everything`.

    Raises:
        DataError: a folder is missing or empty, or a file is no image.
        ValueError: sizes are out of their range.
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
        workers: int | None = None,
        on_bad_image: OnBadImage = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__(
            prepare=Preparation(resize=resize, load_size=load_size, crop_size=crop_size, flip=flip),
            batch_size=batch_size,
            workers=workers,
            on_bad_image=on_bad_image,
            seed=seed,
        )
        self.folders = {"train": train, "test": test}

    def setup(self, stage: str) -> None:
        """Find the photos to train on, so that a wrong folder is known before anything is built."""
        if stage == "fit":
            self.paths("train")

    def train_dataloader(self) -> DataLoader[Any]:
        """Random views of the training photos, from where a checkpoint left off."""
        paths = self.paths("train")
        sampler = self._sampler(len(paths), len(paths), paired=True)
        return self._loader(TrainPhotos(paths, self.prepare), collate_photos, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """The held-out photos, in the order of their names."""
        return self._loader(TestPhotos(self.paths("test"), self.prepare), collate_photos)

    def _find(self, split: str) -> list[Path]:
        folders = self.folders[split]
        if not folders:
            raise DataError(f"no folder for {split}: {_REMEDY[split]}")
        return find_images_in([Path(folder) for folder in folders])


class TrainPhotos(Dataset[Item]):
    """Random views of photos, as an `UnpairedSampler` draws them; only domain A of a draw counts."""

    def __init__(self, paths: Sequence[Path], prepare: Preparation) -> None:
        self.paths, self.prepare = paths, prepare

    def __getitem__(self, draw: Draw) -> Item:
        """Return the view, `(3, H, W)` in [-1, 1], and the path of its file."""
        path = self.paths[draw.index_A]
        image = self.prepare.for_training(read_image(path), random.Random(draw.seed))
        return to_tensor(image), str(path)


class TestPhotos(Dataset[Item]):
    """Held-out photos without chance."""

    __test__ = False  # no test of pytest's

    def __init__(self, paths: Sequence[Path], prepare: Preparation) -> None:
        self.paths, self.prepare = paths, prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        """Return the photo, `(3, H, W)` in [-1, 1], and the path of its file."""
        path = self.paths[index]
        return to_tensor(self.prepare.for_evaluation(read_image(path))), str(path)


def collate_photos(items: Sequence[Item]) -> dict[str, Any]:
    """Stack items into `{"images": (N, 3, H, W), "paths": [...]}`.

    Raises:
        DataError: the photos differ in size.
    """
    images, paths = (list(column) for column in zip(*items, strict=True))
    check_sizes(images, paths)
    return {"images": torch.stack(images), "paths": paths}
