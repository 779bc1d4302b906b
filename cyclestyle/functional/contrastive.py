"""PatchNCE: the contrastive loss of patches.

Park et al. 2020, *Contrastive Learning for Unpaired Image-to-Image Translation*, eqs. 2 and 3.

A patch of the translation (the query) has to be recognised among patches of the input (the keys): the one at the same
place is the positive, those at the other places are the negatives. With n keys a loss of ln n is the level of chance.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Negatives = Literal["image", "batch"]

EPSILON = 1e-7
"""What is added to the norm in `l2_normalise`, as in CUT's code."""


def draw_patches(
    places: int, patches: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Draw places of a feature map without replacement.

    Args:
        places: H · W of the map.
        patches: how many are drawn, at most all of them; 0 for all.
        device: where the result lies, and whose generator draws.
        generator: a generator of the CPU, which draws instead.

    Returns:
        `(min(patches, places),)`, int64: row · W + column of each place.
    """
    if generator is not None:
        return torch.randperm(places, generator=generator)[: patches or places].to(device)
    return torch.randperm(places, device=device)[: patches or places]


def take_patches(features: Tensor, ids: Tensor) -> Tensor:
    """Return the activations of some places, the same ones for every image.

    Shape: `(N, C, H, W)` and `(P,)` → `(N, P, C)`.
    """
    return features.flatten(2).index_select(2, ids).transpose(1, 2)


def l2_normalise(vectors: Tensor) -> Tensor:
    """Divide vectors by their L2 norm plus `EPSILON`, in float32 at least.

    The epsilon is added, as in CUT's code. `torch.nn.functional.normalize` takes a maximum instead, which differs by
    1e-4 at the start of training, when the norms are about 1e-3.

    Shape: `(..., C)` → `(..., C)`.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        norms: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return wide / (norms + EPSILON)


def patch_nce(queries: Tensor, keys: Tensor, *, temperature: float = 0.07, negatives: Negatives = "image") -> Tensor:
    """Compute the cross entropy of recognising each query's key by the dot products with all keys.

    No gradient goes to the keys. In CUT's code, the query's own place appears a second time among the negatives, with
    a similarity of -10; this adds e^(-10 / temperature) to a sum of numbers of about 1, which no float holds.

    Shape: `(N, P, C)` and `(N, P, C)`, normalised → `(N, P)`, in float32 at least.

    Args:
        queries: features of the translation.
        keys: features of the input at the same places.
        temperature: what similarities are divided by (the paper's τ).
        negatives: `image` (the other places of the same image) or `batch` (also all places of the batch's other
            images).
    """
    images, patches, channels = queries.shape
    with torch.autocast(queries.device.type, enabled=False):
        wide = torch.promote_types(queries.dtype, torch.float32)
        queries, keys = queries.to(wide), keys.detach().to(wide)
        if negatives == "batch":
            queries, keys = (one.reshape(1, images * patches, channels) for one in (queries, keys))
        logits = queries @ keys.transpose(1, 2) / temperature  # (N, P, P), or (1, N·P, N·P)
        own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        return F.cross_entropy(logits.flatten(0, 1), own.flatten(), reduction="none").view(images, patches)


def check_negatives(negatives: str) -> None:
    """Check the name of a choice of negatives.

    Raises:
        ValueError: `negatives` is unknown.
    """
    if negatives not in get_args(Negatives):
        raise ValueError(f"nce_negatives must be one of {', '.join(get_args(Negatives))}, got {negatives!r}")
