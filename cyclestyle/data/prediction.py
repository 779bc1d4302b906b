"""The images that `predict` translates: any number, of any sizes, in a tree of any depth."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclestyle.data.folders import find_images
from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import EXTENSIONS, read_image, read_size, to_tensor

MAX_BATCH_PIXELS = 8 * 512 * 512  # what a batch may hold unless it is a single image


@dataclass(frozen=True)
class PredictionPlan:
    """Which images to translate, in batches of one size."""

    batches: list[list[tuple[Path, Path]]]
    """Source and target of each image."""
    kept: int = 0
    """Images whose target was there already."""
    failures: dict[Path, str] = field(default_factory=dict)
    """What is wrong with each file that is no image."""
    root: Path = Path()
    """The folder that sources lie in, at any depth."""


def plan_prediction(source: Path, output: Path, *, batch_size: int, overwrite: bool) -> PredictionPlan:
    """Plan the translation of an image or of a folder tree into `output`, name by name.

    Raises:
        DataError: `source` does not exist or holds no image, `output` is a file, or the two are the same.
    """
    pairs = _pairs(source, output)
    todo = [(path, target) for path, target in pairs if overwrite or not target.exists()]
    failures: dict[Path, str] = {}
    by_size: dict[tuple[int, int], list[tuple[Path, Path]]] = {}
    for path, target in todo:
        try:
            by_size.setdefault(read_size(path), []).append((path, target))
        except ImageError as error:
            failures[path] = str(error)
    batches = []
    for (width, height), group in by_size.items():
        count = max(1, min(batch_size, MAX_BATCH_PIXELS // (width * height)))
        batches += [group[start : start + count] for start in range(0, len(group), count)]
    root = source if source.is_dir() else source.parent
    return PredictionPlan(batches, kept=len(pairs) - len(todo), failures=failures, root=root)


class PredictionImages(pl.LightningDataModule):
    """Batches `{"images": (N, C, H, W), "targets": [...], "failures": {...}}` of a `PredictionPlan`.

    Images that cannot be decoded are missing from `images` and named in `failures`. A batch is one item
    of the data set, so that Lightning's sampler gives each image to exactly one process.

    Args:
        plan: which images.
        channels: of the images.
        workers: processes that load images.
        masks: where R styles belong: each a grey image of the photos' size, white inside, or a folder with one for
            each photo, of its name whatever the ending. A batch then has `masks`, `(N, R, H, W)` in [0, 1].
    """

    def __init__(
        self, plan: PredictionPlan, *, channels: int = 3, workers: int = 0, masks: Sequence[Path] = ()
    ) -> None:
        super().__init__()
        self.plan = plan
        self.channels = channels
        self.workers = workers
        self.masks = masks

    def predict_dataloader(self) -> DataLoader[Any]:
        """One item a batch; where there are fewer batches than processes, the others get an empty one."""
        idle = (self.trainer.world_size if self.trainer else 1) - len(self.plan.batches)
        batches = _Batches([*self.plan.batches, *[[]] * idle], self.channels, self.masks, self.plan.root)
        return DataLoader(batches, batch_size=None, num_workers=self.workers, collate_fn=_as_is)


class _Batches(Dataset[dict[str, Any]]):
    def __init__(
        self, batches: Sequence[list[tuple[Path, Path]]], channels: int, masks: Sequence[Path], root: Path
    ) -> None:
        self.batches = batches
        self.channels = channels
        self.masks = masks
        self.root = root

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tensors, masks, targets, failures = [], [], [], {}
        for path, target in self.batches[index]:
            try:
                image = to_tensor(read_image(path, self.channels))
                masks.append([read_mask(mask, path, image.shape[1:], self.root) for mask in self.masks])
                tensors.append(image)
                targets.append(str(target))
            except ImageError as error:
                failures[str(path)] = str(error)
        images = torch.stack(tensors) if tensors else torch.empty(0, self.channels, 4, 4)
        batch = {"images": images, "targets": targets, "failures": failures}
        return (
            {**batch, "masks": torch.stack([torch.stack(each) for each in masks])} if self.masks and tensors else batch
        )


def read_mask(mask: Path, photo: Path, size: Sequence[int], root: Path) -> Tensor:
    """Read the mask of a photo of `size` (height, width), `(H, W)` in [0, 1], 1 where white.

    In a folder of masks it lies where the photo lies below `root`, or else in the folder itself.

    Raises:
        ImageError: there is none, it is no image, or its size is not the photo's.
    """
    if mask.is_dir():
        folders = (mask / photo.parent.relative_to(root), mask)
        files = (path for folder in folders for path in sorted(folder.glob(f"{glob.escape(photo.stem)}.*")))
        found = [path for path in files if path.suffix.lower() in EXTENSIONS]
        if not found:
            raise ImageError(f"{mask} holds no mask {photo.stem}.png for {photo}")
        mask = found[0]
    image = to_tensor(read_image(mask, 1))[0]
    if image.shape != tuple(size):
        (height, width), (own_height, own_width) = size, image.shape
        raise ImageError(
            f"the mask {mask} is {own_width}×{own_height}, but {photo} is {width}×{height}; make them equal"
        )
    return (image + 1) / 2


def _as_is(item: Any) -> Any:
    return item


def _pairs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; the output must be a folder")
    here = output.resolve()
    if source.is_file():
        if source.resolve().parent == here:
            raise DataError(f"{source} lies in the output folder and would be replaced; choose another folder")
        return [(source, output / source.name)]
    if not source.exists():
        raise DataError(f"input {source} does not exist; expected an image or a folder of images")
    if source.resolve() == here:
        raise DataError(f"input and output are both {source}; choose another folder for the output")
    found = [path for path in find_images(source) if not path.resolve().is_relative_to(here)]
    return [(path, output / path.relative_to(source)) for path in found]
