"""What CUT and DCLGAN share: PatchNCE over the features of generators, and files of the originals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cyclestyle.errors import DataError
from cyclestyle.functional.contrastive import (
    Negatives,
    check_negatives,
    draw_patches,
    l2_normalise,
    patch_nce,
    take_patches,
)
from cyclestyle.networks import PatchMLP, ResNetGenerator, UNetGenerator
from cyclestyle.tasks.base import Task
from cyclestyle.tasks.checks import check_not_negative, check_positive

Generator = ResNetGenerator | UNetGenerator
Encoder = tuple[Generator, PatchMLP]
"""A generator, whose encoder is used, and the heads that embed its features."""
T = TypeVar("T", bound=Task)


@dataclass(frozen=True, kw_only=True)
class PatchContrast:
    """The multilayer PatchNCE loss of Park et al. 2020, eq. 3, unweighted: the mean over features, images and patches.

    Args:
        features: names of the generators' features.
        patches: places drawn of each feature map; 0 for all.
        temperature: what similarities are divided by.
        negatives: `image` or `batch`.

    Raises:
        ValueError: a value is out of its range, or a feature is named twice.
    """

    features: tuple[str, ...]
    patches: int
    temperature: float
    negatives: Negatives

    def __post_init__(self) -> None:
        check_not_negative(nce_patches=self.patches)
        check_positive(nce_temperature=self.temperature)
        check_negatives(self.negatives)
        if not self.features or len(set(self.features)) < len(self.features):
            raise ValueError(f"nce_features must name at least one feature and none twice, got {list(self.features)}")

    def heads(self, generator: Generator, width: int) -> PatchMLP:
        """Build the heads for the features of a generator.

        Raises:
            ValueError: the generator has no such feature, or `width` is not above 0.
        """
        check_positive(nce_width=width)
        known = generator.feature_channels
        if unknown := [name for name in self.features if name not in known]:
            raise ValueError(f"nce_features must be among {', '.join(known)} for this generator, got {unknown[0]!r}")
        return PatchMLP([known[name] for name in self.features], width)

    def __call__(
        self,
        source: Tensor,
        translation: Tensor,
        *,
        keys_by: Encoder,
        queries_by: Encoder,
        ids: Sequence[Tensor] | None = None,
        mirrored: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss, a scalar.

        Args:
            source: `(N, C, H, W)`, embedded as keys, without a gradient.
            translation: its translation, embedded as queries.
            keys_by: what embeds the source.
            queries_by: what embeds the translation.
            ids: the places of each feature map, instead of a draw: one `(P,)` for each feature.
            mirrored: whether the translation is that of the mirrored source.
            generator: what draws the places; by default the global generator.

        Raises:
            DataError: `ids` has another number of tensors than there are features.
        """
        if ids is not None and len(ids) != len(self.features):
            raise DataError(f"patch_ids have {len(ids)} tensors for {len(self.features)} features")
        with torch.no_grad():
            maps = keys_by[0].features(source, self.features)
            if ids is None:
                ids = [draw_patches(one[0, 0].numel(), self.patches, one.device, generator) for one in maps]
            keys = _embedded(keys_by[1], maps, ids)
        maps = queries_by[0].features(translation, self.features)
        if mirrored:
            maps = [one.flip(-1) for one in maps]
        queries = _embedded(queries_by[1], maps, ids)
        losses = [
            patch_nce(query, key, temperature=self.temperature, negatives=self.negatives).mean()
            for query, key in zip(queries, keys, strict=True)
        ]
        return torch.stack(losses).mean()


def _embedded(heads: PatchMLP, maps: Sequence[Tensor], ids: Sequence[Tensor]) -> list[Tensor]:
    """Return the normalised embeddings of some places: `(N, P, width)` for each map."""
    patches = [take_patches(one, places) for one, places in zip(maps, ids, strict=True)]
    return [l2_normalise(vectors) for vectors in heads(patches)]
