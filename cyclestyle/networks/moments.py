"""Mean and variance of activations that are too large for memory."""

import torch
from torch import Tensor

PART = 2**16
"""Numbers whose sums are computed at a time: their float64 copy fits into the cache of a processor."""


class Moments:
    """Mean and variance of each channel over all rows that are added, in float64 (Chan et al. 1979)."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add rows `(1, C, h, W)`."""
        pixels = rows[0].permute(1, 2, 0).reshape(-1, rows.shape[1])
        for part in torch.split(pixels, max(1, PART // rows.shape[1])):
            wide = part - self.mean  # in float64; near 0 from the second part on, so that its squares lose no digits
            ones = wide.new_ones(1, len(wide))
            offset = (ones @ wide)[0] / len(wide)
            squares = (ones @ wide.square_())[0] - len(wide) * offset.square()
            self._merge(len(wide), self.mean + offset, squares.clamp_(min=0))

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def result(self, correction: float = 0) -> tuple[Tensor, Tensor]:
        """Return mean and variance, `(C,)` each."""
        return self.mean, self.squares / max(self.count - correction, 0) if self.count else self.squares
