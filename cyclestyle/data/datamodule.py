"""The LightningDataModule of unpaired images, and the base class of all datamodules of image folders."""

import logging
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.datasets import Drawn, SingleDomainSet, UnpairedTestSet, UnpairedTrainSet, collate
from cyclestyle.data.reader import CacheName, Decoder, ImageReader, build_cache
from cyclestyle.data.sampler import UnpairedSampler
from cyclestyle.data.transforms import Preparation, Resize
from cyclestyle.data.workers import worker_options
from cyclestyle.errors import DataError
from cyclestyle.images.folders import check_images, find_images_in, hold_out
from cyclestyle.speed.setup import default_workers

log = logging.getLogger(__name__)

OnBadImage = Literal["raise", "skip"]

_START = {"epoch": 0, "pairs": 0, "processed": 0, "length": 0}
"""Where a new run starts: epoch, pairs of it that are used, batches of all epochs, batches of an epoch (0: unknown)."""

_SPLITS = ("train_A", "train_B", "test_A", "test_B")


class ImageFolders(pl.LightningDataModule, ABC):
    """Base class: finds and checks images in folders once, and resumes training in the middle of an epoch.

    Args:
        prepare: resizes, crops and flips images.
        batch_size: size of a batch in each process.
        workers: number of loader processes; by default the number of cores minus one, at most 4.
        on_bad_image: `raise` or `skip` files that are not images.
        decoder: `pillow`; or `torchvision`, which reads JPEGs several times as fast, with levels that differ from those
            of Pillow by at most 1; null: Pillow, and torchvision with `--speed fast` or `auto`.
        cache: keep resized images in `memory`, or on the `disk` in the cache folder of the user; `none` does not.
        cache_size: bytes that the cache may take, such as `4GB`.
        seed: seed of the order, the crops and the flips; `seed_everything` of the run by default.
        max_images: number of training images of each domain that are used, the first by name; None for all.

    Raises:
        ValueError: `batch_size` or `max_images` is less than 1, or `workers` is less than 0.
    """

    def __init__(
        self,
        *,
        prepare: Preparation,
        batch_size: int,
        workers: int | None,
        on_bad_image: OnBadImage,
        decoder: Decoder | None,
        cache: CacheName,
        cache_size: str,
        seed: int | None,
        max_images: int | None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}")
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images must be at least 1, or null for all images, got {max_images}")
        self.batch_size = batch_size
        self.workers = default_workers() if workers is None else workers
        self.reader = ImageReader(prepare, decoder or "pillow", build_cache(cache, cache_size, self.workers))
        self.on_bad_image = on_bad_image
        self.seed = seed
        self.max_images = max_images
        self._resume_from = dict(_START)  # set when a checkpoint is loaded
        self._paths: dict[str, list[Path]] = {}
        self._held_out: dict[str, str] = {}  # how many images of which training folders
        self._length = 0  # batches of a training epoch

    @abstractmethod
    def _find(self, split: str) -> list[Path]:
        """Find the files of a split.

        Raises:
            DataError: a folder does not exist or contains no images.
        """

    @property
    def _validates(self) -> bool:
        return self.trainer is not None and self.trainer.limit_val_batches != 0

    def _split(self, folders: Sequence[str], split: str) -> list[Path]:
        """Return the part of training folders that is for a split, where no folder has held-out images."""
        images = find_images_in([Path(folder) for folder in folders])
        kept, held = hold_out(images)
        self._held_out[split.replace("test", "train")] = f"{len(held)} of {len(images)} images"
        return held if split.startswith("test") else kept

    def _find_splits(self, stage: str, *splits: str) -> None:
        """Find the images that a training needs, so that a wrong file raises an error before the first step."""
        for split in splits if stage == "fit" else ():
            if self._validates or not split.startswith("test"):
                self.paths(split)
        if self._held_out:
            parts = ", ".join(f"{number} of data.{split}" for split, number in self._held_out.items())
            log.warning("held out for evaluation, since no test folders are named: %s", parts)

    def paths(self, split: str) -> list[Path]:
        """Return the images of a split, which are found and checked at the first call.

        Raises:
            DataError: a folder does not exist or contains no images, or a file is not an image.
        """
        if split not in self._paths:
            used = self.max_images if split.startswith("train") else None
            self._paths[split] = self._check(self._find(split)[:used], split)
        return self._paths[split]

    def test_dataloader(self) -> DataLoader[Any]:
        """Return `val_dataloader()`: the usual folder layout has one held-out split."""
        return self.val_dataloader()  # type: ignore[no-any-return]  # Lightning allows several loaders

    def state_dict(self) -> dict[str, Any]:
        """Return the current epoch, the number of its pairs that all ranks together have used, and batch counts."""
        if self.trainer is None:
            return dict(self._resume_from)
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        processed = total.processed  # type: ignore[attr-defined]  # declared as the base class in Lightning
        if not processed:
            return dict(self._resume_from)
        length, size = int(self.trainer.num_training_batches), self.batch_size * self.trainer.world_size
        start = self._resume_from
        # With another batch size or other images than before, only the batches since then have the present length.
        known = start["processed"] if start["processed"] else start["epoch"] * length + start["pairs"] // size
        epochs, batches = divmod(start["pairs"] // size + processed - known, length)
        return {
            "epoch": start["epoch"] + epochs,
            "pairs": batches * size,
            "processed": processed,
            "length": self._length,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the position in `state_dict`."""
        self._resume_from = {**_START, **{name: int(value) for name, value in state_dict.items()}}

    def _check_position(self) -> None:
        """Check that an interrupted epoch has as many batches as it had.

        Raises:
            DataError: it has another number.
        """
        start = self._resume_from
        if start["pairs"] and start["length"] not in (0, self._length):
            raise DataError(
                f"the run was interrupted within an epoch of {start['length']} batches, which has {self._length} now; "
                "resume with the batch size, images and processes that it had, and change them after the epoch"
            )

    def _sampler(self, size_A: int, size_B: int, *, paired: bool) -> UnpairedSampler:
        """Build the sampler of this process, which starts at the position of the loaded checkpoint."""
        trainer = self.trainer
        return UnpairedSampler(
            size_A,
            size_B,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed,
            paired=paired,
            rank=trainer.global_rank if trainer else 0,
            num_replicas=trainer.world_size if trainer else 1,
            epoch=self._resume_from["epoch"],
            start=self._resume_from["pairs"],
        )

    def _loader(
        self,
        data: Dataset[Any],
        collate_fn: Callable[[Sequence[Any]], dict[str, Any]],
        sampler: UnpairedSampler | None = None,
    ) -> DataLoader[Any]:
        if sampler is not None:
            self._length = -(-len(sampler) // self.batch_size)
            self._check_position()
        if sampler is not None and self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            data, sampler = Drawn(data, list(sampler)), None  # the same crops and flips in every epoch
        workers = worker_options(self.workers)
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate_fn,
            persistent_workers=workers["num_workers"] > 0,
            **workers,
            generator=torch.Generator(),  # else worker seeds are drawn from the global generator, which the task uses
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _check(self, paths: list[Path], split: str) -> list[Path]:
        # A truncated held-out image would be found after the first epoch; decoding all takes less time than that.
        decode = self.on_bad_image == "skip" or split.startswith("test")
        checked = check_images(paths, decode=decode)
        for line in checked.losses():
            log.warning("%s: %s", split, line)
        if not (bad := checked.bad):
            return paths
        if self.on_bad_image == "raise":
            raise DataError(f"{next(iter(bad.values()))}; remove it, or set data.on_bad_image to skip")
        log.warning("skipped %d of %d files of %s: %s", len(bad), len(paths), split, "; ".join(bad.values()))
        if len(bad) == len(paths):
            raise DataError(f"none of the files of {split} can be read as an image")
        return [path for path in paths if path not in bad]


class UnpairedImages(ImageFolders):
    """Unpaired images of two domains, read recursively from folders; any sizes and names.

    Batches are `{"A": (N, C, H, W), "B": (N, C, H, W), "paths_A": [...], "paths_B": [...]}` with values in
    [-1, 1]. Training pairs are drawn by `UnpairedSampler`. A run that is resumed in the middle of an epoch uses the
    same images as an uninterrupted run.

    Args:
        root: a folder with `trainA`, `trainB`, `testA` and `testB`.
        train_A: training folders of domain A, instead of `root/trainA`.
        train_B: training folders of domain B, instead of `root/trainB`.
        test_A: held-out folders of domain A, instead of `root/testA`; without both, a tenth of the images of `train_A`,
            at least 2 and at most 100, is held out, unless `trainer.limit_val_batches` is 0.
        test_B: held-out folders of domain B, instead of `root/testB`; the same.
        resize: resize mode; see `cyclestyle.data.transforms.Preparation`.
        load_size: size before the crop, pixels.
        crop_size: size after the crop, pixels; a multiple of 4.
        flip: flip images horizontally with probability 0.5.
        paired: use the same order for B as for A instead of an independent one.
        channels_A: channels of domain A: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
        channels_B: channels of domain B.
        batch_size: number of pairs in a batch in each process.
        workers: number of loader processes; by default the number of cores minus one, at most 4.
        on_bad_image: `raise` stops at the first file that is not an image; `skip` decodes every file once at the
            start, leaves out the ones that cannot be read, and logs their number and names.
        decoder: `pillow`; or `torchvision`, which reads JPEGs several times as fast, with levels that differ from those
            of Pillow by at most 1; null: Pillow, and torchvision with `--speed fast` or `auto`.
        cache: keep resized images in `memory`, or on the `disk` in the cache folder of the user; `none` does not.
        cache_size: bytes that the cache may take, such as `4GB`.
        seed: seed of the order, the crops and the flips; `seed_everything` of the run by default.
        max_images: use only the first so many training images of each domain, sorted by name; null for all.

    Raises:
        DataError: a folder does not exist or contains no images, or a file is not an image.
        ValueError: a size, a number of images or a number of channels is out of range.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        train_A: list[str] | None = None,
        train_B: list[str] | None = None,
        test_A: list[str] | None = None,
        test_B: list[str] | None = None,
        resize: Resize = "resize_and_crop",
        load_size: int = 286,
        crop_size: int = 256,
        flip: bool = True,
        paired: bool = False,
        channels_A: int = 3,
        channels_B: int = 3,
        batch_size: int = 1,
        workers: int | None = None,
        on_bad_image: OnBadImage = "raise",
        decoder: Decoder | None = None,
        cache: CacheName = "none",
        cache_size: str = "4GB",
        seed: int | None = None,
        max_images: int | None = None,
    ) -> None:
        super().__init__(
            prepare=Preparation(resize=resize, load_size=load_size, crop_size=crop_size, flip=flip),
            batch_size=batch_size,
            workers=workers,
            on_bad_image=on_bad_image,
            decoder=decoder,
            cache=cache,
            cache_size=cache_size,
            seed=seed,
            max_images=max_images,
        )
        self.save_hyperparameters(logger=False)  # into checkpoints
        for name, channels in (("channels_A", channels_A), ("channels_B", channels_B)):
            if channels not in (1, 2, 3, 4):
                raise ValueError(f"{name} must be 1 to 4, got {channels}")
        self.root = root
        self.folders = dict(zip(_SPLITS, (train_A, train_B, test_A, test_B), strict=True))
        self.paired = paired
        self.channels = channels_A, channels_B

    def setup(self, stage: str) -> None:
        """Find the images, so that a wrong folder raises an error before the first step."""
        self._find_splits(stage, *_SPLITS)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of randomly augmented training pairs, from the position of the loaded checkpoint."""
        train_set = UnpairedTrainSet(self.paths("train_A"), self.paths("train_B"), self.reader, self.channels)
        sampler = self._sampler(len(train_set.paths_A), len(train_set.paths_B), paired=self.paired)
        return self._loader(train_set, collate, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the held-out images, without augmentation, sorted by name."""
        test_set = UnpairedTestSet(self.paths("test_A"), self.paths("test_B"), self.reader, self.channels)
        return self._loader(test_set, collate)

    def domain_images(self, split: str, max_images: int) -> DataLoader[Any]:
        """Return batches `(1, C, H, W)` of the images of one split, without augmentation.

        Args:
            split: `train_A`, `train_B`, `test_A` or `test_B`.
            max_images: if the split has more images, a random subset of this size is used, the same in every call.
        """
        paths = self.paths(split)
        if len(paths) > max_images:
            paths = sorted(random.Random(0).sample(paths, max_images))
        channels = self.channels[split[-1] == "B"]
        return DataLoader(SingleDomainSet(paths, self.reader, channels), num_workers=0, generator=torch.Generator())

    def _find(self, split: str) -> list[Path]:
        folders: Sequence[str] | None = self.folders[split]
        training, test = (split.replace(kind, other) for kind, other in (("test", "train"), ("train", "test")))
        if self._validates and self.root is None and (plain := self.folders[training]) and not self.folders[test]:
            return self._split(plain, split)
        if folders:
            return find_images_in([Path(folder) for folder in folders])
        if self.root is None:
            raise DataError(f"no folder for {split}: set data.root, or name a folder of images in data.{split}")
        root = Path(self.root)
        if not root.is_dir():
            problem = "is a file" if root.exists() else "does not exist"
            raise DataError(
                f"data.root {root} {problem}; expected a folder with trainA, trainB, testA and testB; or name two "
                "folders of images with --data.train_A and --data.train_B"
            )
        name = split.replace("_", "")
        if not (root / name).is_dir() and split.startswith("test"):
            raise DataError(
                f"domain {split[-1]} has no test split: {root / name} does not exist; put held-out images there, "
                "or train without validation: --trainer.limit_val_batches 0"
            )
        if not (root / name).is_dir():
            raise DataError(
                f"{root / name} does not exist; data.root must have the folders trainA, trainB, testA and testB, or "
                "name two folders of images with --data.train_A and --data.train_B"
            )
        return find_images_in([root / name])
