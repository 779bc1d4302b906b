"""How strongly an image shows the regular patterns that upsampling leaves behind."""

import math

import torch
from torch import Tensor

from cyclestyle.functional.colour import to_grey

MIN_SIZE = 64  # height and width in pixels below which the frequencies are too close to each other
PEAK, RING = 2, 6  # bins from a frequency: what belongs to it, and what it is compared with
FREQUENCIES = tuple((y, x) for y in range(3) for x in range(3) if (y, x) != (0, 0))
"""Vertical and horizontal frequency, in quarters of a cycle per pixel: 1 has a period of 4 pixels, 2 of 2 pixels."""

_ROUNDING = (2 / 255) ** 2 / 12  # variance of the rounding to 8 bits, for images in [-1, 1]


def checkerboard_spectrum(images: Tensor) -> Tensor:
    """Return how far the spectrum of each image sticks out at the frequencies of a checkerboard.

    Layers that double height and width leave patterns with a period of 2 or 4 pixels (Odena et al. 2016,
    *Deconvolution and Checkerboard Artifacts*). The figure of a frequency is log10 of the mean power within 2 bins of
    it, divided by the mean power in the ring around that, out to 6 bins. The spectrum is that of the luminance under a
    Hann window. Natural images have about 0, a pattern with ten times the power of its surroundings has 1.

    A frequency is taken together with its mirror image, so that both diagonals count. The power of the rounding to 8
    bits is added to both sides: flat images have 0, and brightness and contrast hardly matter.

    Shape: `(N, 3, H, W)` in [-1, 1] → `(N, 8)`, in the order of `FREQUENCIES`. Up to 3 pixels at the right and bottom
    are left out, so that each frequency falls on a bin. NaN where H or W is below 64.
    """
    height, width = (size - size % 4 for size in images.shape[-2:])
    if min(height, width) < MIN_SIZE:
        return images.new_full((len(images), len(FREQUENCIES)), math.nan)
    power = _power(images[..., :height, :width].float())
    figures = []
    for y, x in FREQUENCIES:
        mirrored = {(y * height // 4, x * width // 4), (y * height // 4, -x * width // 4)}
        near = torch.stack([_around(power, *centre) for centre in mirrored]).mean(dim=0)  # (N, 13, 13)
        inner = slice(RING - PEAK, RING + PEAK + 1)
        peak = near[:, inner, inner]
        ring = (near.sum(dim=(1, 2)) - peak.sum(dim=(1, 2))) / (near[0].numel() - peak[0].numel())
        figures.append(torch.log10((peak.mean(dim=(1, 2)) + _ROUNDING) / (ring + _ROUNDING)))
    return torch.stack(figures, dim=1)


def checkerboard(images: Tensor) -> Tensor:
    """Return the mean of `checkerboard_spectrum` over the frequencies: `(N, 3, H, W)` in [-1, 1] → `(N,)`.

    Photos and paintings have 0.00 ± 0.05 on average. NaN where the images are too small.
    """
    return checkerboard_spectrum(images).mean(dim=1)


def _power(images: Tensor) -> Tensor:
    """The power spectrum of the luminance, relative to white noise of variance 1: `(N, 3, H, W)` → `(N, H, W)`."""
    luminance = to_grey(images)[:, 0]
    height, width = (torch.hann_window(size, device=images.device) for size in luminance.shape[1:])
    window = torch.outer(height, width)
    spectrum = torch.fft.fft2((luminance - luminance.mean(dim=(1, 2), keepdim=True)) * window)
    power: Tensor = spectrum.abs().square() / window.square().sum()
    return power


def _around(power: Tensor, row: int, column: int) -> Tensor:
    """The bins around one of a spectrum, which repeats itself: `(N, H, W)` → `(N, 13, 13)`."""
    rolled = power.roll((RING - row, RING - column), dims=(1, 2))
    return rolled[:, : 2 * RING + 1, : 2 * RING + 1]
