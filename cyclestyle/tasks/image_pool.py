"""The history of generated images that stabilises the discriminators."""

import random
from typing import Any

import torch
from torch import Tensor

from cyclestyle.tasks.random_state import RankState


class ImagePool(RankState):
    """Returns generated images from the history of training as often as new ones (Shrivastava et al. 2017, 2.3).

    Until the pool holds `size` images, it stores and returns each one. From then on it exchanges each image, with
    probability ½, for a stored one. A pool of size 0 returns what it is given.

    Raises:
        ValueError: `size` is below 0.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"pool_size must be 0 or more, got {size}")
        self.size = size
        self._images: list[Tensor] = []
        self._random = random.Random(seed)

    def __len__(self) -> int:
        return len(self._images)

    def reseed(self, seed: int) -> None:
        """Empty the pool, and draw from this seed on."""
        self._images = []
        self._random = random.Random(seed)

    def query(self, images: Tensor) -> Tensor:
        """Return a batch `(N, C, H, W)` in which each image is new or from the history, and store new ones.

        Without gradients, as in validation, the batch is returned as it is: held-out images must not enter the history.
        """
        if self.size == 0 or not torch.is_grad_enabled():
            return images
        images = images.detach()
        if self._images and self._images[0].shape != images.shape[1:]:
            self._images.clear()  # images of different sizes cannot share a batch
        return torch.stack([self._exchange(image) for image in images])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())  # a view would keep the whole batch in memory
            return image
        if self._random.random() < 0.5:
            return image
        index = self._random.randrange(self.size)
        stored, self._images[index] = self._images[index], image.clone()
        return stored

    def state_dict(self) -> dict[str, Any]:
        """Return the images and the state of the random numbers, as tensors and plain values."""
        images = torch.stack(self._images).cpu() if self._images else torch.empty(0)
        return {"images": images, "random": self._random.getstate()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue exactly where `state_dict` was called."""
        self._images = list(state["images"].to(device).unbind())[: self.size]
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
