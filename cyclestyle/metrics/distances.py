"""Distances between sets of images, and between an image and its translation."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from cyclestyle.functional.float64 import to_float64
from cyclestyle.functional.style import gram_matrix
from cyclestyle.metrics.features import Extractor

SUBSETS = 50  # random subsets over which the mean and standard deviation of KID are computed
MAX_SUBSET = 1000  # maximum number of images in a subset
RESAMPLES = 1000  # of both sets, for the interval of KID
ENOUGH = 10  # images of each set, below which drawing them anew says little of how others would differ
GRID = 16  # maximum height and width of the feature maps for self-similarity


class SetDistance(NamedTuple):
    """Distances between two sets of images, the extractor of the features, and the sizes of the sets."""

    kid: float
    kid_std: float
    fid: float
    extractor: str
    reals: int
    fakes: int
    subset_size: int


def set_distance(reals: Tensor, fakes: Tensor, extractor: str) -> SetDistance:
    """Compare two sets by their embeddings `(N, C)`.

    KID is the unbiased estimate of the squared maximum mean discrepancy with the kernel (x·y / C + 1)³, given as mean
    and standard deviation over random subsets (Bińkowski et al. 2018, section 4). A value below 0 means that no
    difference was measured. FID is the Fréchet distance between Gaussians fitted to the sets (Heusel et al. 2017,
    eq. 6); it is biased for small sets. The result is deterministic, does not depend on the order of the images, and
    does not change the global random state.

    Raises:
        ValueError: a set has fewer than two images.
    """
    if min(len(reals), len(fakes)) < 2:
        raise ValueError(f"a distance of sets needs two images in each, got {len(reals)} and {len(fakes)}")
    subset_size = min(MAX_SUBSET, max(2, min(len(reals), len(fakes)) // 2))
    precomputed = _Precomputed(reals.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")
        kid = KernelInceptionDistance(precomputed, subsets=SUBSETS, subset_size=subset_size, sync_on_compute=False)
    fid = FrechetInceptionDistance(precomputed, sync_on_compute=False)  # every process has all images
    for features, real in ((_sorted(reals), True), (_sorted(fakes), False)):
        kid.update(features, real=real)
        fid.update(features, real=real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, deviation = kid.compute()
    return SetDistance(
        mean.item(), deviation.item(), fid.compute().item(), extractor, len(reals), len(fakes), subset_size
    )


def kid_interval(reals: Tensor, fakes: Tensor) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the KID between embeddings `(N, C)`.

    Both sets are drawn anew, with replacement, 1,000 times. An image and its own copy are not a pair of different
    images, and do not count. The result is deterministic and does not depend on the order of the images. With fewer
    than 10 images in a set it is NaN.
    """
    if min(len(reals), len(fakes)) < ENOUGH:
        return math.nan, math.nan
    sets = [_sorted(reals).cpu(), _sorted(fakes).cpu()]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(len(one), (RESAMPLES, len(one)), generator=generator) for one in sets]
    counts = [
        torch.zeros(one.shape, dtype=torch.float64).scatter_add_(1, one, torch.ones(one.shape).double())
        for one in drawn
    ]

    def mean_kernel(first: int, second: int) -> Tensor:
        kernel = (sets[first] @ sets[second].T / reals.shape[1] + 1) ** 3
        times = counts[first].sum(dim=1) * counts[second].sum(dim=1)
        if first == second:
            kernel.fill_diagonal_(0)
            times = times - counts[first].square().sum(dim=1)
        return (counts[first] @ kernel * counts[second]).sum(dim=1) / times

    kids = mean_kernel(0, 0) + mean_kernel(1, 1) - 2 * mean_kernel(0, 1)
    low, high = kids.quantile(kids.new_tensor([0.025, 0.975])).tolist()
    return low, high


def content_distance(extractor: Extractor, images: Tensor, translations: Tensor) -> Tensor:
    """Return the distance between the deep features of images and their translations, `(N,)` in [0, 2].

    It is the distance between features normalised to unit length, averaged over positions (Zhang et al. 2018, eq. 1,
    without learnt weights). Identical images have 0.
    """
    first, second = (F.normalize(extractor.maps(batch), dim=1) for batch in (images, translations))
    distance: Tensor = torch.linalg.vector_norm(first - second, dim=1)  # (N, h, w)
    return distance.mean(dim=(1, 2))


def mean_gram(extractor: Extractor, images: Sequence[Tensor]) -> Tensor:
    """Return the mean Gram matrix `(C, C)` of the feature maps of images `(1, 3, H, W)`, divided by the positions."""
    return torch.stack([gram_matrix(extractor.maps(image))[0] for image in images]).mean(dim=0)


def style_distance(extractor: Extractor, images: Tensor, gram: Tensor) -> Tensor:
    """Return the distance between the Gram matrices of `images` and `gram`, relative to the norm of `gram`: `(N,)`.

    Gram matrices are those of Gatys et al. 2016, eq. 3, divided by the number of positions. Equal matrices have 0.
    """
    difference = gram_matrix(extractor.maps(images)) - gram
    distance: Tensor = torch.linalg.matrix_norm(difference) / torch.linalg.matrix_norm(gram)
    return distance


def structure_distance(extractor: Extractor, images: Tensor, translations: Tensor) -> Tensor:
    """Return the difference between the self-similarities of images and of their translations: `(N,)`.

    It is the mean absolute difference of the cosine distances between all pairs of positions (Kolkin et al. 2019,
    section 2.2). Changes of colour or brush stroke that are the same everywhere hardly affect it. Identical images have
    0.
    """
    first, second = (_self_similarity(extractor.maps(batch)) for batch in (images, translations))
    return (first - second).abs().mean(dim=(1, 2))


def _self_similarity(maps: Tensor) -> Tensor:
    """Return the cosine similarity of all pairs of positions: `(N, C, h, w)` → `(N, P, P)`, P at most GRID²."""
    height, width = maps.shape[2:]
    features = F.adaptive_avg_pool2d(maps, (min(GRID, height), min(GRID, width))).flatten(2)  # (N, C, P)
    features = F.normalize(features - features.mean(dim=2, keepdim=True), dim=1)
    return features.mT @ features


class _Precomputed(nn.Module):
    """Replaces the feature extractor of torchmetrics, because the features are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _sorted(features: Tensor) -> Tensor:
    """Return the features in a canonical order, so that random subsets do not depend on the order of the images."""
    features = to_float64(features)
    weights = torch.linspace(1, 2, features.shape[1], dtype=features.dtype, device=features.device).sqrt()
    return features[(features @ weights).argsort()]
