"""The LightningDataModule of unpaired images, and what it shares with that of one domain."""

import atexit
import logging
import multiprocessing
import os
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.datasets import UnpairedTestSet, UnpairedTrainSet, WholeSet, collate
from cyclestyle.data.folders import check_images, find_images_in
from cyclestyle.data.sampler import UnpairedSampler
from cyclestyle.data.transforms import Preparation, Resize
from cyclestyle.errors import DataError

log = logging.getLogger(__name__)

OnBadImage = Literal["raise", "skip"]

_SPLITS = ("train_A", "train_B", "test_A", "test_B")


class ImageFolders(pl.LightningDataModule, ABC):
    """Images in folders, found and checked once; a run that is resumed inside an epoch goes on where it stopped.

    Raises:
        ValueError: `batch_size` is below 1.
    """

    def __init__(
        self, *, prepare: Preparation, batch_size: int, workers: int | None, on_bad_image: OnBadImage, seed: int | None
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.prepare = prepare
        self.batch_size = batch_size
        self.workers = min(4, (os.cpu_count() or 1) - 1) if workers is None else workers
        self.on_bad_image = on_bad_image
        self.seed = seed
        self._used = {"epoch": 0, "pairs": 0}  # where training stands; changed by a checkpoint alone
        self._paths: dict[str, list[Path]] = {}

    @abstractmethod
    def _find(self, split: str) -> list[Path]:
        """Return the files of a split.

        Raises:
            DataError: its folder is missing or empty.
        """

    def paths(self, split: str) -> list[Path]:
        """Return the images of a split; found and checked once."""
        if split not in self._paths:
            self._paths[split] = self._checked(self._find(split), split)
        return self._paths[split]

    def test_dataloader(self) -> DataLoader[Any]:
        """The same as `val_dataloader`: the field's layout has one held-out split."""
        return self.val_dataloader()  # type: ignore[no-any-return]  # Lightning allows for several loaders

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many of its pairs all ranks together have used."""
        if self.trainer is None:
            return dict(self._used)
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        processed = total.processed  # type: ignore[attr-defined]  # Lightning declares its base class
        if not processed:
            return dict(self._used)
        epoch, batches = divmod(processed, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "pairs": batches * self.batch_size * self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._used = {"epoch": int(state_dict["epoch"]), "pairs": int(state_dict["pairs"])}

    def _sampler(self, size_A: int, size_B: int, *, paired: bool) -> UnpairedSampler:
        """Draws for this process, from where a checkpoint left off."""
        trainer = self.trainer
        return UnpairedSampler(
            size_A,
            size_B,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed,
            paired=paired,
            rank=trainer.global_rank if trainer else 0,
            num_replicas=trainer.world_size if trainer else 1,
            epoch=self._used["epoch"],
            start=self._used["pairs"],
        )

    def _loader(
        self,
        data: Dataset[Any],
        collate_fn: Callable[[Sequence[Any]], dict[str, Any]],
        sampler: UnpairedSampler | None = None,
    ) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate_fn,
            persistent_workers=self.workers > 0,
            worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # PyTorch would draw the workers' seeds from the task's random numbers
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _checked(self, paths: list[Path], split: str) -> list[Path]:
        bad = check_images(paths, whole=self.on_bad_image == "skip")
        if not bad:
            return paths
        if self.on_bad_image == "raise":
            raise DataError(f"{next(iter(bad.values()))}; remove it, or set data.on_bad_image to skip")
        log.warning("skipped %d of %d files of %s: %s", len(bad), len(paths), split, "; ".join(bad.values()))
        if len(bad) == len(paths):
            raise DataError(f"no file of {split} is an image that can be read")
        return [path for path in paths if path not in bad]


class UnpairedImages(ImageFolders):
    """Images of two domains in folders, recursive, of any sizes and names.

    Batches are `{"A": (N, C, H, W), "B": (N, C, H, W), "paths_A": [...], "paths_B": [...]}` with values in
    [-1, 1]. Training pairs are drawn by `UnpairedSampler`; a run that is resumed in the middle of an epoch
    sees exactly the images that it would have seen.

    Args:
        root: a folder with `trainA`, `trainB`, `testA` and `testB`.
        train_A: folders of domain A to train on, instead of `root/trainA`.
        train_B: folders of domain B to train on, instead of `root/trainB`.
        test_A: held-out folders of domain A, instead of `root/testA`.
        test_B: held-out folders of domain B, instead of `root/testB`.
        resize: how an image reaches its size; see `cyclestyle.data.transforms.Preparation`.
        load_size: pixels before the crop.
        crop_size: pixels after the crop; a multiple of 4.
        flip: mirror every second image left to right.
        paired: draw B in step with A instead of independently.
        channels_A: channels of domain A, 1 (grey) to 4 (RGB and alpha).
        channels_B: channels of domain B.
        batch_size: pairs in a batch, for each process.
        workers: processes that load images; by default one for each core beyond the first, at most 4.
        on_bad_image: `raise` stops at the first file that is no image; `skip` decodes every file once at
            the start, leaves the bad ones out, and says how many and which.
        seed: decides the order, crops and flips; by default the run's `seed_everything`.

    Raises:
        DataError: a folder is missing or empty, or a file is no image.
        ValueError: sizes or channels are out of their range.
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
        seed: int | None = None,
    ) -> None:
        super().__init__(
            prepare=Preparation(resize=resize, load_size=load_size, crop_size=crop_size, flip=flip),
            batch_size=batch_size,
            workers=workers,
            on_bad_image=on_bad_image,
            seed=seed,
        )
        for name, channels in (("channels_A", channels_A), ("channels_B", channels_B)):
            if channels not in (1, 2, 3, 4):
                raise ValueError(f"{name} must be 1 to 4, got {channels}")
        self.root = root
        self.folders = dict(zip(_SPLITS, (train_A, train_B, test_A, test_B), strict=True))
        self.paired = paired
        self.channels = channels_A, channels_B

    def setup(self, stage: str) -> None:
        """Find the images to train on, so that a wrong folder is known before anything is built."""
        if stage == "fit":
            self.paths("train_A")
            self.paths("train_B")

    def train_dataloader(self) -> DataLoader[Any]:
        """Random views of the training images, from where a checkpoint left off."""
        train_set = UnpairedTrainSet(self.paths("train_A"), self.paths("train_B"), self.prepare, self.channels)
        sampler = self._sampler(len(train_set.paths_A), len(train_set.paths_B), paired=self.paired)
        return self._loader(train_set, collate, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """The held-out images, whole, in the order of their names."""
        test_set = UnpairedTestSet(self.paths("test_A"), self.paths("test_B"), self.prepare, self.channels)
        return self._loader(test_set, collate)

    def domain_images(self, split: str, most: int) -> DataLoader[Any]:
        """Batches `(N, C, H, W)` of one domain's images without chance, the same `most` of them every time."""
        paths = self.paths(split)
        if len(paths) > most:
            paths = sorted(random.Random(0).sample(paths, most))
        channels = self.channels[split[-1] == "B"]
        return DataLoader(WholeSet(paths, self.prepare, channels), num_workers=0, generator=torch.Generator())

    def _find(self, split: str) -> list[Path]:
        folders: Sequence[str] | None = self.folders[split]
        if folders:
            return find_images_in([Path(folder) for folder in folders])
        if self.root is None:
            raise DataError(f"no folder for {split}: set data.root, or list folders in data.{split}")
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"data.root {root} does not exist; expected a folder with trainA, trainB, testA, testB")
        name = split.replace("_", "")
        if not (root / name).is_dir() and split.startswith("test"):
            raise DataError(
                f"domain {split[-1]} has no test split: {root / name} does not exist; put held-out images there, "
                "or train without validation by --trainer.limit_val_batches 0"
            )
        return find_images_in([root / name])


def ignore_stop_signals(worker: int) -> None:
    """Let the worker of a loader leave the decision to its parent: a signal to a process group reaches both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def kill_workers() -> None:
    """Kill the workers that are left: at exit multiprocessing sends SIGTERM, which they ignore, and then waits."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


atexit.register(kill_workers)  # runs before the exit function of multiprocessing, which was registered earlier
