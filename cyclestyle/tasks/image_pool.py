"""The history of generated images that steadies the discriminators."""

import random
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Returns fakes from the history of training as often as new ones (Shrivastava et al. 2017, section 2.3).

    Until `size` images are held, each is stored and returned. From then on each is, with probability ½,
    exchanged for a stored one. A pool of size 0 returns what it is given.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"pool_size must be 0 or more, got {size}")
        self.size = size
        self._images: list[Tensor] = []
        self._random = random.Random(seed)

    def __len__(self) -> int:
        return len(self._images)

    def query(self, images: Tensor) -> Tensor:
        """Return a batch `(N, C, H, W)` of which each image is new or from the history, and remember."""
        if self.size == 0:
            return images
        images = images.detach()
        if self._images and self._images[0].shape != images.shape[1:]:
            self._images.clear()  # images of several sizes cannot share a batch
        return torch.stack([self._exchange(image) for image in images])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())  # the batch it lies in must not stay in memory
            return image
        if self._random.random() < 0.5:
            return image
        index = self._random.randrange(self.size)
        stored, self._images[index] = self._images[index], image.clone()
        return stored

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only, so that `torch.load(weights_only=True)` reads them back."""
        images = torch.stack(self._images).cpu() if self._images else torch.empty(0)
        return {"images": images, "random": self._random.getstate()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue exactly where `state_dict` was taken."""
        self._images = list(state["images"].to(device).unbind())[: self.size]
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
