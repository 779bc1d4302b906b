"""Optimisation of the pixels of an image (Gatys, Ecker & Bethge 2016; Gatys et al. 2017)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import DivergedError
from cyclestyle.functional.style import Reduction, content_loss, gram_matrix, style_loss, total_variation
from cyclestyle.networks.vgg import VGG, stride
from cyclestyle.tasks.base import OnEvaluation

Optimiser = Literal["lbfgs", "adam"]
Losses = dict[str, Tensor]
MAX_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class GramWeights:
    """The factors of the losses.

    Attributes:
        content: for each content layer, the factor of `content_loss` under `reduction`.
        style: for each style layer, the factor of `style_loss` of Gram matrices over `pixels`.
        total_variation: the factor of `total_variation`.
        reduction: of the content loss.
    """

    content: dict[str, float]
    style: dict[str, float]
    total_variation: float = 0.0
    reduction: Reduction = "mean"


class Tile(NamedTuple):
    """A part of the image and the larger part that its features depend on, in pixels from the upper left."""

    top: int
    bottom: int
    left: int
    right: int
    outer_top: int
    outer_bottom: int
    outer_left: int
    outer_right: int

    def cut(self, images: Tensor) -> Tensor:
        """The larger part of `(…, H, W)`."""
        return images[..., self.outer_top : self.outer_bottom, self.outer_left : self.outer_right]

    def core(self, features: Tensor, step: int) -> Tensor:
        """Of the larger part's features, whose stride is `step`, those of the part itself."""
        top, left = (self.top - self.outer_top) // step, (self.left - self.outer_left) // step
        height = None if self.bottom == self.outer_bottom else (self.bottom - self.top) // step
        width = None if self.right == self.outer_right else (self.right - self.left) // step
        rows, columns = slice(top, None if height is None else top + height), slice(left, width and left + width)
        return features[..., rows, columns]


@dataclass
class GramObjective:
    """The losses of an image `(1, 3, H, W)` and their gradient, in bounded memory.

    Above `tile` pixels a side the image is taken in tiles, each with the surroundings that its features depend
    on. A first pass without gradients adds up the Gram matrices; a second one sends the gradient of the style loss,
    which is linear in each tile's products once the matrices are known, through tile after tile. The result is that
    of the whole image, at the price of a second forward pass.
    """

    features: VGG
    weights: GramWeights
    tile: int = 1024
    content: dict[str, Tensor] = field(default_factory=dict)
    """Features of each content layer."""
    grams: dict[str, Tensor] = field(default_factory=dict)
    """Gram matrices `(R, C, C)` of each style layer, for R regions."""
    masks: Tensor | None = None
    """Where the regions are, `(R, 1, H, W)` in [0, 1]; nothing for the whole image."""

    def keep_content(self, photo: Tensor) -> None:
        """Remember the content of a photo `(1, 3, H, W)`."""
        parts: dict[str, list[list[Tensor]]] = {layer: [] for layer in self.weights.content}
        with torch.no_grad():
            for row in self._rows(photo):
                for kept in parts.values():
                    kept.append([])
                for tile in row:
                    for layer, features in self.features.activations(tile.cut(photo)):
                        if layer in parts:
                            parts[layer][-1].append(tile.core(features, stride(layer)).clone())
        self.content = {layer: torch.cat([torch.cat(row, 3) for row in kept], 2) for layer, kept in parts.items()}

    def keep_styles(self, styles: Sequence[Tensor], shares: Sequence[float], masks: Tensor | None = None) -> None:
        """Remember the styles, images `(1, 3, H, W)`: mixed by their shares, or each in its region of `masks`."""
        with torch.no_grad():
            found = [self._sums(style, [tile for row in self._rows(style) for tile in row]) for style in styles]
            for layer in self.weights.style:
                each = torch.cat([grams[layer] for grams in found])  # (number of styles, C, C)
                mixed = (each * each.new_tensor(shares)[:, None, None]).sum(dim=0, keepdim=True)
                self.grams[layer] = mixed if masks is None else each
        self.masks = masks

    def __call__(self, image: Tensor) -> Losses:
        """Return the weighted losses, and set `image.grad` to the gradient of their sum."""
        image.grad = None
        tiles = [tile for row in self._rows(image) for tile in row]
        smooth = self._smoothness(image)
        if len(tiles) == 1:
            content, grams = self._shares(image, tiles[0], image)
            losses = {"content": content, "style": self._style(grams), "total_variation": smooth}
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            return {name: loss.detach() for name, loss in losses.items()}
        return self._in_tiles(image, tiles, smooth)

    def _in_tiles(self, image: Tensor, tiles: Sequence[Tile], smooth: Tensor) -> Losses:
        image.grad = torch.zeros_like(image)
        if smooth.requires_grad:
            smooth.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            sums = self._sums(image, tiles)
        sums = {layer: total.requires_grad_() for layer, total in sums.items()}
        style = self._style(sums)
        gradients = dict(zip(sums, torch.autograd.grad(style, list(sums.values())), strict=True)) if sums else {}
        content = image.new_zeros(())
        for tile in tiles:
            part = tile.cut(image).detach().requires_grad_()
            kept, products = self._shares(part, tile, image)
            linear = [(gradient * products[layer]).sum() for layer, gradient in gradients.items()]
            torch.stack([kept, *linear]).sum().backward()  # type: ignore[no-untyped-call]
            assert part.grad is not None
            tile.cut(image.grad).add_(part.grad)
            content = content + kept.detach()
        return {"content": content, "style": style.detach(), "total_variation": smooth.detach()}

    def _sums(self, image: Tensor, tiles: Sequence[Tile]) -> dict[str, Tensor]:
        """The Gram matrices of an image, added up over its tiles."""
        sums: dict[str, Tensor] = {}
        for tile in tiles:
            for layer, features in self.features.activations(tile.cut(image)):
                if layer in self.weights.style:
                    share = self._products(tile.core(features, stride(layer)), layer, tile, image)
                    sums[layer] = sums[layer] + share if layer in sums else share
        return sums

    def _shares(self, part: Tensor, tile: Tile, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What a tile, whose larger part is given, adds to the image's content loss and Gram matrices."""
        content = self._nothing()
        products: dict[str, Tensor] = {}
        for layer, features in self.features.activations(part):
            found = tile.core(features, stride(layer))
            if layer in self.content:
                content = content + self._content(found, layer, tile)
            if layer in self.weights.style:
                products[layer] = self._products(found, layer, tile, image)
        return content, products

    def _content(self, found: Tensor, layer: str, tile: Tile) -> Tensor:
        """The content loss of a tile's features, as a share of the image's."""
        step, target = stride(layer), self.content[layer]
        top, left = tile.top // step, tile.left // step
        wanted = target[..., top : top + found.shape[2], left : left + found.shape[3]]
        share = found.numel() / target.numel() if self.weights.reduction == "mean" else 1.0
        return self.weights.content[layer] * share * content_loss(found, wanted, self.weights.reduction)

    def _products(self, found: Tensor, layer: str, tile: Tile, image: Tensor) -> Tensor:
        """The Gram matrices of a tile's features for every region, `(R, C, C)`, as a share of the image's."""
        step = stride(layer)
        height, width = image.shape[2] // step, image.shape[3] // step
        if self.masks is None:
            return gram_matrix(found, "none") / (height * width)
        masks = F.adaptive_avg_pool2d(self.masks, (height, width))  # (R, 1, h, w)
        sums = masks.square().sum(dim=(1, 2, 3)).clamp(min=1e-6)[:, None, None]
        top, left = tile.top // step, tile.left // step
        own = masks[..., top : top + found.shape[2], left : left + found.shape[3]]
        return gram_matrix(found * own, "none") / sums

    def _smoothness(self, image: Tensor) -> Tensor:
        weight = self.weights.total_variation
        return weight * total_variation(image) if weight else self._nothing()

    def _nothing(self) -> Tensor:
        return self.features.input_transform.weight.new_zeros(())

    def _style(self, grams: dict[str, Tensor]) -> Tensor:
        total = self._nothing()
        for layer, weight in self.weights.style.items():
            total = total + weight * style_loss(grams[layer], self.grams[layer]) * len(self.grams[layer])
        return total

    def _rows(self, image: Tensor) -> Iterator[list[Tile]]:
        height, width = image.shape[-2:]
        step = stride(self.features.names[-1])
        size = max(step, self.tile // step * step)
        margin = -(-self.features.reach // step) * step
        for top, bottom in _cuts(height, size, step):
            above, below = max(0, top - margin), min(height, bottom + margin)
            yield [
                Tile(top, bottom, left, right, above, below, max(0, left - margin), min(width, right + margin))
                for left, right in _cuts(width, size, step)
            ]


def _cuts(length: int, size: int, step: int) -> list[tuple[int, int]]:
    """Cut a length into pieces of `size`; what would be left below `step` belongs to the last one."""
    starts = [start for start in range(0, length, size) if start == 0 or length - start >= step]
    return list(pairwise([*starts, length]))


# The optimisers, and the state that they keep from one scale to the next


@dataclass
class Painter:
    """Optimises the pixels of an image. Adam keeps its moments from one scale to the next.

    L-BFGS is reset at each scale: its estimate of the curvature close to a minimum is up to 30 times too low for the
    losses of the enlarged image. Reusing it makes the losses explode; rescaling it brings no gain.

    Args:
        optimiser: `lbfgs` (without line search, as Gatys' code) or `adam`.
        lr: Adam's learning rate; L-BFGS takes whole steps.
        history: pairs of steps and gradients that L-BFGS remembers, each of the image's size.
        on_evaluation: called after each evaluation of the losses.
    """

    optimiser: Optimiser = "lbfgs"
    lr: float = 0.02
    history: int = 10
    on_evaluation: OnEvaluation | None = None
    _memory: dict[str, Any] | None = None

    def __call__(self, objective: GramObjective, start: Tensor, evaluations: int) -> Tensor:
        """Return the best image that is found from `start`, `(1, 3, H, W)`, in so many evaluations of the losses.

        If the losses are not finite, the optimiser is reset and continues from the best image so far.

        Raises:
            DivergedError: the losses of `start` itself are not finite.
        """
        search = _Search(objective, start.detach().clone().requires_grad_(), evaluations, self.on_evaluation)
        optimiser = self._new(search.image, self._resized(start.shape), evaluations)
        for _ in range(1 + MAX_RESTARTS):
            try:
                search.run(optimiser)
            except FloatingPointError:
                search.go_back()
            if search.done >= evaluations:
                break
            optimiser = self._new(search.image, None, evaluations - search.done)
        self._memory = optimiser.state.get(search.image)
        return search.best

    def _new(self, image: Tensor, memory: dict[str, Any] | None, evaluations: int) -> torch.optim.Optimizer:
        optimiser: torch.optim.Optimizer
        if self.optimiser == "adam":
            optimiser = torch.optim.Adam([image], lr=self.lr, betas=(0.9, 0.99))
        else:
            optimiser = torch.optim.LBFGS(
                [image],
                max_iter=evaluations,
                max_eval=2 * evaluations + 2,
                tolerance_grad=0,
                tolerance_change=0,
                history_size=self.history,
            )
        if memory:
            optimiser.state[image] = memory
        return optimiser

    def _resized(self, shape: torch.Size) -> dict[str, Any] | None:
        """The moments of Adam, resized to an image of another size."""
        if self.optimiser != "adam" or not self._memory:
            return None
        return {
            name: F.interpolate(value, shape[-2:], mode="bilinear") if value.ndim == 4 else value
            for name, value in self._memory.items()
        }


class _Search:
    """Counts evaluations, and keeps the best image."""

    def __init__(self, objective: GramObjective, image: Tensor, limit: int, report: OnEvaluation | None) -> None:
        self.objective, self.image, self.limit, self.report = objective, image, limit, report
        self.done = 0
        self.lowest = float("inf")
        self.best = image.detach().clone()

    def run(self, optimiser: torch.optim.Optimizer) -> None:
        """Run until all evaluations are used or the optimiser stops."""
        if isinstance(optimiser, torch.optim.LBFGS):
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            return
        while self.done < self.limit:
            self._evaluate()
            optimiser.step()

    def go_back(self) -> None:
        """Restore the best image."""
        if self.lowest == float("inf"):
            raise DivergedError("the losses of the image that painting starts from are not finite")
        with torch.no_grad():
            self.image.copy_(self.best)

    def _evaluate(self) -> float:
        losses = self.objective(self.image)
        self.done += 1
        total = float(torch.stack(list(losses.values())).sum())
        assert self.image.grad is not None
        if not (total < float("inf") and torch.isfinite(self.image.grad).all()):
            raise FloatingPointError
        if total < self.lowest:
            self.lowest = total
            self.best.copy_(self.image.detach())
        if self.report is not None:
            self.report(self.done, self.limit, losses)
        return total
