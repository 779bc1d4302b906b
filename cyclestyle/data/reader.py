"""From an image file to a training crop: decoded, resized, kept for the next epoch, cropped and flipped."""

import hashlib
import random
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import io

from cyclestyle.data.transforms import Preparation, enlarged_too_far, resize, resized_bands
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import atomic_write, cache_folder
from cyclestyle.images import ValueRange, from_levels, read_sample, to_tensor
from cyclestyle.scratch import parse_bytes

Decoder = Literal["pillow", "torchvision"]
CacheName = Literal["none", "memory", "disk"]

_JPEG = b"\xff\xd8\xff"


class ImageCache:
    """Keeps decoded and resized images, up to a number of bytes. Images that no longer fit are not kept.

    Args:
        where: `memory`, which every loader process has for itself; or `disk`, a folder that all processes share.
        limit: bytes of all images.
        folder: for `disk`; None: `images` in the cache folder of the user.
    """

    def __init__(self, where: Literal["memory", "disk"], limit: int, folder: Path | None = None) -> None:
        self.where, self.limit = where, limit
        self.folder = cache_folder() / "images" if folder is None else folder
        self._images: dict[str, Tensor] = {}
        self._bytes = 0
        if where == "disk":
            self._bytes = sum(file.stat().st_size for file in self._oldest_first())

    def get(self, key: str) -> Tensor | None:
        """Return the image that is kept under a key, `(C, H, W)` in uint8, or None."""
        if self.where == "memory":
            return self._images.get(key)
        with suppress(OSError, ValueError, EOFError):  # missing or damaged: it is decoded again
            return torch.from_numpy(np.load(self._path(key), allow_pickle=False))
        return None

    def put(self, key: str, image: Tensor) -> None:
        """Keep an image, if there is room for it."""
        size = image.numel()
        if self._bytes + size > self.limit:
            return
        if self.where == "memory":
            self._images[key] = image
        else:
            with suppress(OSError, CycleStyleError):  # a cache that cannot be written does no harm
                self.folder.mkdir(parents=True, exist_ok=True)
                with atomic_write(self._path(key)) as file:
                    np.save(file, image.numpy())
        self._bytes += size

    def make_room(self) -> None:
        """Remove the images that were written to the disk first, down to half of the limit, if it is nearly full.

        Images of files that have changed go this way too.
        """
        files = self._oldest_first() if self.where == "disk" and self._bytes > 0.9 * self.limit else []
        for file in files:
            if self._bytes <= self.limit // 2:
                break
            with suppress(OSError):
                self._bytes -= file.stat().st_size
                file.unlink()

    def _oldest_first(self) -> list[Path]:
        with suppress(OSError):
            return sorted(self.folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        return []

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"


@dataclass(frozen=True)
class ImageReader:
    """Reads image files for training and for evaluation, as `(C, H, W)` in [-1, 1].

    Args:
        prepare: sizes, crops and flips.
        decoder: `pillow`; or `torchvision`, which decodes and resizes JPEGs several times as fast. Its resized levels
            differ from Pillow's by at most 1. Other files are read by Pillow.
        cache: keeps resized images; None: every epoch decodes all files.

    Raises:
        ValueError: `decoder` is unknown.
    """

    prepare: Preparation
    decoder: Decoder = "pillow"
    cache: ImageCache | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.decoder not in get_args(Decoder):
            raise ValueError(f"decoder must be pillow or torchvision, got {self.decoder!r}")

    def for_training(self, path: Path, channels: int, rng: random.Random, range: ValueRange | None = None) -> Tensor:
        """Return an image with a random crop and a random flip drawn from `rng`; numbers are read as `range` says.

        Raises:
            ImageError: the file does not exist, is not an image, or is another one than `read_sample` reads.
        """
        plain = range is not None or (self.decoder == "pillow" and self.cache is None)
        levels = None if plain else self._resized(path, channels, training=True)
        if levels is None:
            image = read_sample(path, channels, range)
            if not isinstance(image, Tensor):
                return to_tensor(self.prepare.for_training(image, rng))
            size = self.prepare.scaled_size((image.shape[2], image.shape[1]), training=True)
            box, mirrored = self.prepare.training_crop(size, rng)
            bands = resized_bands(image, size, box)
            return bands.flip(2) if mirrored else bands
        (left, top, right, bottom), mirrored = self.prepare.training_crop((levels.shape[2], levels.shape[1]), rng)
        crop = levels[:, top:bottom, left:right]
        return from_levels(crop.flip(2) if mirrored else crop.contiguous())

    def for_evaluation(self, path: Path, channels: int, range: ValueRange | None = None) -> Tensor:
        """Return an image without randomness: resized to the target size, or its centre crop.

        Raises:
            ImageError: the file does not exist, is not an image, or is another one than `read_sample` reads.
        """
        levels = None if range is not None else self._resized(path, channels, training=False)
        if levels is None:
            image = read_sample(path, channels, range)
            if not isinstance(image, Tensor):
                return to_tensor(self.prepare.for_evaluation(image))
            size = self.prepare.scaled_size((image.shape[2], image.shape[1]), training=False)
            return resized_bands(image, size, self.prepare.evaluation_crop(size))
        left, top, right, bottom = self.prepare.evaluation_crop((levels.shape[2], levels.shape[1]))
        return from_levels(levels[:, top:bottom, left:right].contiguous())

    def _resized(self, path: Path, channels: int, *, training: bool) -> Tensor | None:
        """The whole image before the crop, `(C, H, W)` in uint8; None if it would be too large, or has more bits."""
        key = "" if self.cache is None else self._key(path, channels, training=training)
        known = self.cache.get(key) if self.cache is not None and key else None
        if known is not None:
            return known
        native = self._native(path, training=training) if self.decoder == "torchvision" and channels == 3 else None
        levels = self._by_pillow(path, channels, training=training) if native is None else native
        if self.cache is not None and key and levels is not None:
            self.cache.put(key, levels)
        return levels

    def _by_pillow(self, path: Path, channels: int, *, training: bool) -> Tensor | None:
        image = read_sample(path, channels)
        if isinstance(image, Tensor):  # it is not kept in the cache
            return None
        size = self.prepare.scaled_size(image.size, training=training)
        if enlarged_too_far(image.size, size):
            return None
        pixels = np.array(resize(image, size))
        return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)

    def _native(self, path: Path, *, training: bool) -> Tensor | None:
        """The same of a JPEG with one or three channels; None for others, which Pillow reads, or says what is wrong."""
        try:
            content = path.read_bytes()
            if not content.startswith(_JPEG) or not hasattr(io, "decode_jpeg"):  # later versions of torchvision drop it
                return None
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            levels: Tensor = io.decode_jpeg(data, io.ImageReadMode.UNCHANGED, apply_exif_orientation=True)
        except (OSError, RuntimeError):
            return None
        if levels.shape[0] not in (1, 3):
            return None
        width, height = self.prepare.scaled_size((levels.shape[2], levels.shape[1]), training=training)
        if enlarged_too_far((levels.shape[2], levels.shape[1]), (width, height)):
            return None
        if levels.shape[1:] != (height, width):
            levels = F.interpolate(levels[None], (height, width), mode="bicubic", antialias=True)[0]
        return levels.expand(3, -1, -1)

    def _key(self, path: Path, channels: int, *, training: bool) -> str:
        """What a resized image depends on, as a file name; empty if the file does not exist."""
        try:
            status = path.stat()
        except OSError:
            return ""
        load_size = self.prepare.load_size if training else self.prepare.crop_size
        parts = (str(path.resolve()), status.st_mtime_ns, status.st_size, channels, self.decoder)
        return hashlib.sha256(
            repr((*parts, self.prepare.resize, load_size, self.prepare.crop_size)).encode()
        ).hexdigest()


def build_cache(name: CacheName, size: str, workers: int) -> ImageCache | None:
    """Build the cache that the options of a datamodule describe.

    Args:
        name: `none`, `memory` or `disk`.
        size: bytes of all processes together, such as `4GB`.
        workers: loader processes.

    Raises:
        ValueError: `name` is unknown, or `size` is not an amount.
    """
    if name not in get_args(CacheName):
        raise ValueError(f"cache must be none, memory or disk, got {name!r}")
    try:
        limit = parse_bytes(size)
    except ValueError as error:
        raise ValueError(f"cache_size: {error}") from error
    if name == "none":
        return None
    cache = ImageCache(name, limit // max(1, workers) if name == "memory" else limit)
    cache.make_room()
    return cache
