"""The images that `predict` translates: a file or a folder tree, with images of any sizes."""

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
from cyclestyle.data.worker_signals import WorkerSignals
from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import EXTENSIONS, read_image, read_size, to_levels, to_tensor

MAX_BATCH_PIXELS = 8 * 512 * 512  # maximum number of pixels in a batch of more than one image


@dataclass(frozen=True)
class PredictionPlan:
    """The images to translate, in batches of equal size."""

    batches: list[list[tuple[Path, Path]]]
    """Source path and target path of each image."""
    kept: int = 0
    """Number of images that are left out because their target exists."""
    failures: dict[Path, str] = field(default_factory=dict)
    """Error message of each file that is not an image."""
    root: Path = Path()
    """The folder that contains the sources, directly or in subfolders."""


def plan_prediction(source: Path, output: Path, *, batch_size: int, overwrite: bool) -> PredictionPlan:
    """Plan the translation of an image or of a folder tree.

    Args:
        source: an image or a folder.
        output: folder of the results, which get the names and the subfolders of the sources.
        batch_size: maximum number of images in a batch.
        overwrite: translate images whose target exists as well.

    Raises:
        DataError: `source` does not exist or contains no images, `output` is a file, or the two are the same.
    """
    pairs = _pairs(source, output)
    pending = [(path, target) for path, target in pairs if overwrite or not target.exists()]
    failures: dict[Path, str] = {}
    by_size: dict[tuple[int, int], list[tuple[Path, Path]]] = {}
    for path, target in pending:
        try:
            by_size.setdefault(read_size(path), []).append((path, target))
        except ImageError as error:
            failures[path] = str(error)
    batches = []
    for (width, height), group in by_size.items():
        count = max(1, min(batch_size, MAX_BATCH_PIXELS // (width * height)))
        batches += [group[start : start + count] for start in range(0, len(group), count)]
    root = source if source.is_dir() else source.parent
    return PredictionPlan(batches, kept=len(pairs) - len(pending), failures=failures, root=root)


class PredictionImages(pl.LightningDataModule):
    """Batches `{"images": (N, C, H, W), "targets": [...], "failures": {...}}` of a `PredictionPlan`.

    Images are in [-1, 1]; one of more than `MAX_BATCH_PIXELS` pixels is in levels of 0 to 255, in uint8, unless there
    are masks. Images that cannot be decoded are left out of `images`, and `failures` has their error messages. A batch
    is one item of the dataset, so the distributed sampler of Lightning assigns each image to exactly one process.

    Args:
        plan: the images.
        channels: number of channels of the images.
        workers: number of loader processes.
        masks: the regions of R styles. Each is a grey image of the size of the photos, white inside the region, or a
            folder with one such image for each photo, with the same name and any extension. Batches then have `masks`,
            `(N, R, H, W)` in [0, 1].
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
        """Return a loader of whole batches; if there are fewer batches than processes, empty batches are added."""
        missing = (self.trainer.world_size if self.trainer else 1) - len(self.plan.batches)
        batches = _Batches([*self.plan.batches, *[[]] * missing], self.channels, self.masks, self.plan.root)
        return DataLoader(
            batches,
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_identity,
            worker_init_fn=WorkerSignals() if self.workers else None,
        )


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
                pixels = read_image(path, self.channels)
                # A large image, which has a batch for itself, takes a quarter of the memory as levels of 0 to 255.
                large = pixels.width * pixels.height > MAX_BATCH_PIXELS and not self.masks
                image = to_levels(pixels) if large else to_tensor(pixels)
                masks.append([read_mask(mask, path, image.shape[1:], self.root) for mask in self.masks])
                tensors.append(image)
                targets.append(str(target))
            except ImageError as error:
                failures[str(path)] = str(error)
        images = torch.stack(tensors) if tensors else torch.empty(0, self.channels, 4, 4)
        batch = {"images": images, "targets": targets, "failures": failures}
        return (
            {**batch, "masks": torch.stack([torch.stack(regions) for regions in masks])}
            if self.masks and tensors
            else batch
        )


def read_mask(mask: Path, photo: Path, size: Sequence[int], root: Path) -> Tensor:
    """Read the mask of a photo.

    Args:
        mask: an image, or a folder of masks. In a folder, the mask is looked up first in the subfolder that
            corresponds to that of the photo below `root`, then in the folder itself.
        photo: path of the photo.
        size: height and width of the photo.
        root: folder of all photos.

    Returns:
        The mask, `(H, W)` in [0, 1], 1 where the image is white.

    Raises:
        ImageError: there is no mask, it is not an image, or its size is not that of the photo.
    """
    if mask.is_dir():
        folders = (mask / photo.parent.relative_to(root), mask)
        files = (path for folder in folders for path in sorted(folder.glob(f"{glob.escape(photo.stem)}.*")))
        found = [path for path in files if path.suffix.lower() in EXTENSIONS]
        if not found:
            raise ImageError(f"{mask} contains no mask {photo.stem}.png for {photo}")
        mask = found[0]
    image = to_tensor(read_image(mask, 1))[0]
    if image.shape != tuple(size):
        (height, width), (mask_height, mask_width) = size, image.shape
        raise ImageError(
            f"the mask {mask} is {mask_width}×{mask_height}, but {photo} is {width}×{height}; make them equal"
        )
    return (image + 1) / 2


def _identity(item: Any) -> Any:
    return item


def _pairs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; the output must be a folder")
    output_path = output.resolve()
    if source.is_file():
        if source.resolve().parent == output_path:
            raise DataError(f"{source} is in the output folder and would be overwritten; choose another folder")
        return [(source, output / source.name)]
    if not source.exists():
        raise DataError(f"input {source} does not exist; expected an image or a folder of images")
    if source.resolve() == output_path:
        raise DataError(f"input and output are both {source}; choose another folder for the output")
    found = [path for path in find_images(source) if not path.resolve().is_relative_to(output_path)]
    return [(path, output / path.relative_to(source)) for path in found]
