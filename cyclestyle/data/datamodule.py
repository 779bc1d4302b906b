"""The LightningDataModule of unpaired images, and the base class of all datamodules of image folders."""

import logging
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.beside import find_masks, find_pairs, pairs_of
from cyclestyle.data.datasets import Domain, Drawn, SingleDomainSet, UnpairedTestSet, UnpairedTrainSet, collate
from cyclestyle.data.ranges import RangeName, count_clipped, find_range, parse_bands, parse_range
from cyclestyle.data.reader import CacheName, Decoder, ImageReader, build_cache
from cyclestyle.data.sampler import UnpairedSampler
from cyclestyle.data.transforms import Preparation, Resize
from cyclestyle.data.workers import worker_options
from cyclestyle.errors import DataError
from cyclestyle.images import ValueRange
from cyclestyle.images.folders import check_images, find_images_in, hold_out, name_some
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
        batch_size: number of images of each domain in a batch in each process.
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
        ValueError: `batch_size` or `max_images` is less than 1, or `workers` is less than 0.
    """

    def __init__(
        self,
        *,
        prepare: Preparation,
        batch_size: int = 1,
        workers: int | None = None,
        on_bad_image: OnBadImage = "raise",
        decoder: Decoder | None = None,
        cache: CacheName = "none",
        cache_size: str = "4GB",
        seed: int | None = None,
        max_images: int | None = None,
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

    def _by_type(self, split: str) -> bool:
        """Return whether each file of a split is read with the range of its type."""
        return True

    def _check(self, paths: list[Path], split: str) -> list[Path]:
        # A truncated held-out image would be found after the first epoch; decoding all takes less time than that.
        decode = self.on_bad_image == "skip" or split.startswith("test")
        checked = check_images(paths, decode=decode, by_type=self._by_type(split))
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


class Domains(ImageFolders):
    """Base class of two domains: what their images are.

    Args:
        channels_A: channels of domain A: 1 (grey), 2 (grey and alpha), 3 (RGB), 4 (RGB and alpha), or how many bands.
        channels_B: channels of domain B.
        range_A: the values of domain A that networks see as -1 and 1: two numbers, such as `-1000,2000`;
            `percentile:0.5,99.5` of the training images; `window`, that of DICOM files; `type`, for each file the whole
            range of the type of its samples; or `auto`, which is `type` for images of 8 bits and says what it chooses
            for others.
        range_B: that of domain B.
        show_A: the bands of domain A that grids, pages and metrics show as red, green and blue, counted from 1, such as
            `4,3,2`; null: the first three.
        show_B: those of domain B.
        masks_A: a folder with a mask for each training image of domain A, of the same name: a grey image of its size,
            white where `model.lambda_outside` and `model.judge_inside` let translations change it.
        masks_B: that of domain B.
        pairs: the images of A and B that show the same, for `model.lambda_pairs` and evaluation: a CSV file with one of
            each in a line, or `names` for those of equal names.
        options: those of every `ImageFolders`, such as `batch_size`.

    Attributes:
        ranges: lowest and highest value of the domains whose values are no colours; checkpoints store them.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        channels_A: int = 3,
        channels_B: int = 3,
        range_A: RangeName = "auto",
        range_B: RangeName = "auto",
        show_A: str | list[int] | None = None,
        show_B: str | list[int] | None = None,
        masks_A: str | None = None,
        masks_B: str | None = None,
        pairs: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.channels = {"A": channels_A, "B": channels_B}
        self.masks = {domain: Path(folder) for domain, folder in (("A", masks_A), ("B", masks_B)) if folder}
        self.wanted_pairs = pairs
        self._masks: dict[str, list[Path]] = {}  # of the training images, by domain
        self._pairs: dict[str, list[tuple[int, int]]] = {}  # by split
        self.range_names = {"A": range_A, "B": range_B}
        self.ranges: dict[str, list[float]] = {}
        self.shown: dict[str, list[int]] = {}
        for domain, bands in (("A", show_A), ("B", show_B)):
            if self.channels[domain] < 1:
                raise ValueError(f"channels_{domain} must be at least 1, got {self.channels[domain]}")
            given = parse_range(f"range_{domain}", self.range_names[domain])
            if isinstance(given, ValueRange):
                self.ranges[domain] = [given.low, given.high]
            if bands is not None:
                self.shown[domain] = parse_bands(f"show_{domain}", bands, self.channels[domain])

    def domain_images(self, split: str, max_images: int) -> DataLoader[Any]:
        """Return batches `(1, C, H, W)` of the images of one split, without augmentation.

        Args:
            split: `train_A`, `train_B`, `test_A` or `test_B`.
            max_images: if the split has more images, a random subset of this size is used, the same in every call.
        """
        domain = self._domain(split)
        if len(domain.paths) > max_images:
            domain = replace(domain, paths=sorted(random.Random(0).sample(domain.paths, max_images)))
        return DataLoader(SingleDomainSet(domain, self.reader), num_workers=0, generator=torch.Generator())

    def _find_ranges(self) -> None:
        """Find the ranges in the training images, and say what was found."""
        for domain, wanted in self.range_names.items():
            found, line = find_range(f"data.range_{domain}", wanted, self.paths(f"train_{domain}"))
            self.ranges.pop(domain, None)
            if line:
                rank_zero_only(print)(line)
            if self.channels[domain] > 4 or domain in self.shown:
                bands = ", ".join(str(band + 1) for band in self.shown.get(domain, [0, 1, 2]))
                rank_zero_only(print)(f"data.show_{domain}: grids, pages and metrics take the bands {bands} as RGB")
            if found is None:
                continue
            self.ranges[domain] = [found.low, found.high]
            count, files = count_clipped(self.paths(f"test_{domain}"), found) if self._validates else (0, [])
            if count:
                log.warning("test_%s: values outside of the range: %d, in %s", domain, count, name_some(files))

    @abstractmethod
    def _roots(self, split: str) -> list[Path]:
        """Return the folders of a split."""

    def _found_in(self, split: str) -> dict[Path, Path]:
        """The images of a split, with the folder that each was found in."""
        roots = self._roots(split)
        return {path: next(root for root in roots if path.is_relative_to(root)) for path in self.paths(split)}

    def _find_beside(self, stage: str) -> None:
        """Find masks, which training alone uses, and pairs."""
        splits = [*(["train"] if stage == "fit" else []), *(["test"] if stage != "fit" or self._validates else [])]
        if stage == "fit":
            for domain, folder in self.masks.items():
                self._masks[domain] = find_masks(f"data.masks_{domain}", folder, self._found_in(f"train_{domain}"))
        if self.wanted_pairs is None:
            return
        for part in splits:
            found = find_pairs(self.wanted_pairs, self._found_in(f"{part}_A"), self._found_in(f"{part}_B"))
            self._pairs[part] = pairs_of(found, self.paths(f"{part}_A"), self.paths(f"{part}_B"))
        counts = ", ".join(f"{len(self._pairs[part])} to {part} with" for part in splits)
        lost = len(found) - sum(map(len, self._pairs.values()))  # of the lines of a file
        left = f"; {lost} are left out, whose images are not both in one split" if lost > 0 and stage == "fit" else ""
        rank_zero_only(print)(f"data.pairs: {counts}{left}")

    @property
    def training_pairs(self) -> int:
        """Number of pairs to train with."""
        return len(self._pairs.get("train", []))

    def _by_type(self, split: str) -> bool:
        return self.range_names[split[-1]] == "type"

    def _domain(self, split: str) -> Domain:
        """The images of a split, and how they are read."""
        ends = self.ranges.get(split[-1])
        masks = self._masks.get(split[-1], []) if split.startswith("train") else []
        return Domain(
            paths=self.paths(split),
            channels=self.channels[split[-1]],
            range=None if ends is None else ValueRange(*ends),
            masks=masks,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training, and the ranges."""
        return {**super().state_dict(), "ranges": self.ranges}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the position in `state_dict`, with its ranges, but for those that are given as numbers."""
        stored = state_dict.get("ranges", {})
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "ranges"})
        for domain, wanted in self.range_names.items():
            if not isinstance(parse_range(f"range_{domain}", wanted), ValueRange):
                self.ranges.pop(domain, None)
                self.ranges |= {domain: stored[domain]} if domain in stored else {}


class UnpairedImages(Domains):
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
        options: those of `Domains`, which say what the images are, and of every `ImageFolders`, such as `batch_size`.

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
        **options: Any,
    ) -> None:
        prepare = Preparation(resize=resize, load_size=load_size, crop_size=crop_size, flip=flip)
        super().__init__(prepare=prepare, **options)
        self.save_hyperparameters(logger=False)  # into checkpoints
        self.root = root
        self.folders = dict(zip(_SPLITS, (train_A, train_B, test_A, test_B), strict=True))
        self.paired = paired

    def setup(self, stage: str) -> None:
        """Find the images and their ranges, so that what is wrong raises an error before the first step."""
        self._find_splits(stage, *_SPLITS)
        if stage == "fit" and (self.trainer is None or self.trainer.ckpt_path is None):  # else they are loaded
            self._find_ranges()
        self._find_beside(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of randomly augmented training pairs, from the position of the loaded checkpoint."""
        A, B = self._domain("train_A"), self._domain("train_B")
        train_set = UnpairedTrainSet(A, B, self.reader, self._pairs.get("train", []))
        sampler = self._sampler(len(A.paths), len(B.paths), paired=self.paired)
        return self._loader(train_set, collate, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the held-out images, without augmentation, sorted by name."""
        A, B = self._domain("test_A"), self._domain("test_B")
        test_set = UnpairedTestSet(A, B, self.reader, self._pairs.get("test", []))
        return self._loader(test_set, collate)

    def _roots(self, split: str) -> list[Path]:
        named = self.folders[split] or (self.folders[split.replace("test", "train")] if self.root is None else None)
        return [Path(folder) for folder in named] if named else [Path(str(self.root)) / split.replace("_", "")]

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


def domains_of(trainer: pl.Trainer) -> Domains | None:
    """Return the datamodule of a training, if it is one of two domains, whose images can be asked for."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, Domains) else None
