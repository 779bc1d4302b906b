"""Optimisation of the pixels of an image (Gatys, Ecker & Bethge 2016; Gatys et al. 2017)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.errors import DivergedError
from cyclestyle.functional.style import Reduction, content_loss, gram_matrix, style_loss, total_variation
from cyclestyle.networks.method import OnEvaluation
from cyclestyle.networks.vgg import VGG, stride
from cyclestyle.tasks.checks import check_choices, check_positive

Optimiser = Literal["lbfgs", "adam"]
Losses = dict[str, Tensor]
MAX_RESTARTS = 3
FIRST_STEP = 0.05  # mean absolute change of the pixels, in [-1, 1], in the first step of L-BFGS


@dataclass(frozen=True, kw_only=True)
class GramWeights:
    """The factors of the loss terms.

    Attributes:
        content: for each content layer, the factor of `content_loss` under `reduction`.
        style: for each style layer, the factor of `style_loss` on Gram matrices with the normalisation `pixels`.
        total_variation: the factor of `total_variation`.
        reduction: the reduction of the content loss.
    """

    content: dict[str, float]
    style: dict[str, float]
    total_variation: float = 0.0
    reduction: Reduction = "mean"


class Tile(NamedTuple):
    """A tile of an image, and its receptive field (`outer_…`), in pixels from the upper left corner."""

    top: int
    bottom: int
    left: int
    right: int
    outer_top: int
    outer_bottom: int
    outer_left: int
    outer_right: int

    def cut(self, images: Tensor) -> Tensor:
        """Crop images `(…, H, W)` to the receptive field."""
        return images[..., self.outer_top : self.outer_bottom, self.outer_left : self.outer_right]

    def core(self, features: Tensor, step: int) -> Tensor:
        """Crop features of the receptive field, with stride `step`, to those of the tile."""
        top, left = (self.top - self.outer_top) // step, (self.left - self.outer_left) // step
        height = None if self.bottom == self.outer_bottom else (self.bottom - self.top) // step
        width = None if self.right == self.outer_right else (self.right - self.left) // step
        rows, columns = slice(top, None if height is None else top + height), slice(left, width and left + width)
        return features[..., rows, columns]


@dataclass
class GramObjective:
    """Computes the loss terms of an image `(1, 3, H, W)` and their gradient, in bounded memory.

    An image larger than `tile` pixels is evaluated in tiles, each with its receptive field. A first pass without
    gradients sums the Gram matrices over the tiles. The gradient of the style loss with respect to these sums is then
    constant, so a second pass backpropagates it through one tile at a time. The result equals that of the whole image,
    at the cost of a second forward pass.
    """

    features: VGG
    weights: GramWeights
    tile: int = 1024
    content: dict[str, Tensor] = field(default_factory=dict)
    """Target features of each content layer."""
    grams: dict[str, Tensor] = field(default_factory=dict)
    """Target Gram matrices `(R, C, C)` of each style layer, for R regions."""
    masks: Tensor | None = None
    """Masks of the regions, `(R, 1, H, W)` in [0, 1]; None for a single region, the whole image."""

    def keep_content(self, photo: Tensor) -> None:
        """Store the content features of a photo `(1, 3, H, W)`."""
        tiles: dict[str, list[list[Tensor]]] = {layer: [] for layer in self.weights.content}
        with torch.no_grad():
            for row in self._rows(photo):
                for rows in tiles.values():
                    rows.append([])
                for tile in row:
                    for layer, features in self.features.activations(tile.cut(photo)):
                        if layer in tiles:
                            tiles[layer][-1].append(tile.core(features, stride(layer)).clone())
        self.content = {layer: torch.cat([torch.cat(row, 3) for row in rows], 2) for layer, rows in tiles.items()}

    def keep_styles(self, styles: Sequence[Tensor], shares: Sequence[float], masks: Tensor | None = None) -> None:
        """Store the Gram matrices of style images `(1, 3, H, W)`.

        They are averaged with the weights `shares`; with `masks`, each style has its own region instead.
        """
        with torch.no_grad():
            style_grams = [self._sums(style, [tile for row in self._rows(style) for tile in row]) for style in styles]
            for layer in self.weights.style:
                stacked = torch.cat([grams[layer] for grams in style_grams])  # (number of styles, C, C)
                mean = (stacked * stacked.new_tensor(shares)[:, None, None]).sum(dim=0, keepdim=True)
                self.grams[layer] = mean if masks is None else stacked
        self.masks = masks

    def __call__(self, image: Tensor) -> Losses:
        """Return the weighted loss terms, and set `image.grad` to the gradient of their sum."""
        image.grad = None
        tiles = [tile for row in self._rows(image) for tile in row]
        variation = self._total_variation(image)
        if len(tiles) == 1:
            content, grams = self._tile_terms(image, tiles[0], image)
            losses = {"content": content, "style": self._style(grams), "total_variation": variation}
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            return {name: loss.detach() for name, loss in losses.items()}
        return self._evaluate_tiles(image, tiles, variation)

    def _evaluate_tiles(self, image: Tensor, tiles: Sequence[Tile], variation: Tensor) -> Losses:
        image.grad = torch.zeros_like(image)
        if variation.requires_grad:
            variation.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            sums = self._sums(image, tiles)
        sums = {layer: total.requires_grad_() for layer, total in sums.items()}
        style = self._style(sums)
        gradients = dict(zip(sums, torch.autograd.grad(style, list(sums.values())), strict=True)) if sums else {}
        content = image.new_zeros(())
        for tile in tiles:
            crop = tile.cut(image).detach().requires_grad_()
            tile_content, products = self._tile_terms(crop, tile, image)
            linear = [(gradient * products[layer]).sum() for layer, gradient in gradients.items()]
            torch.stack([tile_content, *linear]).sum().backward()  # type: ignore[no-untyped-call]
            assert crop.grad is not None
            tile.cut(image.grad).add_(crop.grad)
            content = content + tile_content.detach()
        return {"content": content, "style": style.detach(), "total_variation": variation.detach()}

    def _sums(self, image: Tensor, tiles: Sequence[Tile]) -> dict[str, Tensor]:
        """Return the Gram matrices of an image, summed over its tiles."""
        sums: dict[str, Tensor] = {}
        for tile in tiles:
            for layer, features in self.features.activations(tile.cut(image)):
                if layer in self.weights.style:
                    products = self._products(tile.core(features, stride(layer)), layer, tile, image)
                    sums[layer] = sums[layer] + products if layer in sums else products
        return sums

    def _tile_terms(self, crop: Tensor, tile: Tile, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the contribution of a tile to the content loss and Gram matrices; `crop` is its receptive field."""
        content = self._zero()
        products: dict[str, Tensor] = {}
        for layer, features in self.features.activations(crop):
            core = tile.core(features, stride(layer))
            if layer in self.content:
                content = content + self._content(core, layer, tile)
            if layer in self.weights.style:
                products[layer] = self._products(core, layer, tile, image)
        return content, products

    def _content(self, features: Tensor, layer: str, tile: Tile) -> Tensor:
        """Return the contribution of the features of a tile to the content loss of the image."""
        step, target = stride(layer), self.content[layer]
        top, left = tile.top // step, tile.left // step
        tile_target = target[..., top : top + features.shape[2], left : left + features.shape[3]]
        share = features.numel() / target.numel() if self.weights.reduction == "mean" else 1.0
        return self.weights.content[layer] * share * content_loss(features, tile_target, self.weights.reduction)

    def _products(self, features: Tensor, layer: str, tile: Tile, image: Tensor) -> Tensor:
        """Return the contribution of the features of a tile to the Gram matrices of the image, `(R, C, C)`."""
        step = stride(layer)
        height, width = image.shape[2] // step, image.shape[3] // step
        if self.masks is None:
            return gram_matrix(features, "none") / (height * width)
        masks = F.adaptive_avg_pool2d(self.masks, (height, width))  # (R, 1, h, w)
        sums = masks.square().sum(dim=(1, 2, 3)).clamp(min=1e-6)[:, None, None]
        top, left = tile.top // step, tile.left // step
        tile_masks = masks[..., top : top + features.shape[2], left : left + features.shape[3]]
        return gram_matrix(features * tile_masks, "none") / sums

    def _total_variation(self, image: Tensor) -> Tensor:
        weight = self.weights.total_variation
        return weight * total_variation(image) if weight else self._zero()

    def _zero(self) -> Tensor:
        return self.features.input_transform.weight.new_zeros(())

    def _style(self, grams: dict[str, Tensor]) -> Tensor:
        total = self._zero()
        for layer, weight in self.weights.style.items():
            total = total + weight * style_loss(grams[layer], self.grams[layer]) * len(self.grams[layer])
        return total

    def _rows(self, image: Tensor) -> Iterator[list[Tile]]:
        """Yield the tiles of an image, row by row."""
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
    """Divide a length into intervals of `size`. A remainder shorter than `step` is added to the last interval."""
    starts = [start for start in range(0, length, size) if start == 0 or length - start >= step]
    return list(pairwise([*starts, length]))


# Optimisation


@dataclass(frozen=True, kw_only=True)
class Painting:
    """How the pixels of each image are optimised, at one scale or several.

    Args:
        optimiser: `lbfgs` or `adam`.
        lr: learning rate of Adam.
        history: history size of L-BFGS; each entry needs the memory of two images. 20 and 50 gave no lower losses.
        sizes: for each scale, the square root of the number of pixels; a smaller photo is not enlarged.
        steps: evaluations of the losses at each scale.
        style_scale: size of the style images relative to `sizes`.
        keep_size: enlarge each result to the size of its photo if the last scale is smaller.
        tile: maximum height and width of an image evaluated as a whole; a larger one is evaluated in tiles to bound
            memory.

    Raises:
        ValueError: a value is out of its range.
    """

    optimiser: Optimiser = "lbfgs"
    lr: float = 0.02
    history: int = 10
    sizes: Sequence[int] = (512,)
    steps: Sequence[int] = (500,)
    style_scale: float = 1.0
    keep_size: bool = True
    tile: int = 1024

    def __post_init__(self) -> None:
        check_choices(optimiser=(self.optimiser, get_args(Optimiser)))
        check_positive(style_scale=self.style_scale, lr=self.lr, history=self.history)
        if not self.sizes or len(self.sizes) != len(self.steps) or min(*self.sizes, *self.steps) < 1:
            raise ValueError(f"sizes and steps need an entry above 0 for each scale, got {self.sizes} and {self.steps}")
        if self.tile < 16:
            raise ValueError(f"tile must be at least 16, got {self.tile}")


@dataclass
class Painter:
    """Optimises the pixels of an image.

    Adam keeps its moments between scales. L-BFGS is reset at each scale: its estimate of the curvature near a minimum
    is up to 30 times too low for the losses of the enlarged image. Reusing it makes the losses diverge; rescaling it
    gives no improvement.

    Args:
        optimiser: `lbfgs` (without line search, as in the code of Gatys et al.) or `adam`.
        lr: learning rate of Adam; that of L-BFGS is 1.
        history: history size of L-BFGS; each entry has a step and a gradient difference of the size of the image.
        on_evaluation: called after each evaluation of the losses.
    """

    optimiser: Optimiser = "lbfgs"
    lr: float = 0.02
    history: int = 10
    on_evaluation: OnEvaluation | None = None
    _state: dict[str, Any] | None = None

    def __call__(self, objective: GramObjective, start: Tensor, evaluations: int) -> Tensor:
        """Return the image with the lowest loss, starting from `start`, `(1, 3, H, W)`.

        `evaluations` is the number of evaluations of the losses. If the losses are not finite, the optimiser is reset
        and continues from the best image so far.

        Raises:
            DivergedError: the losses of `start` are not finite.
        """
        # A power of two, so that the start is not rounded.
        unit = 2.0 ** round(math.log2(FIRST_STEP * start.numel())) if self.optimiser == "lbfgs" else 1.0
        search = _Search(objective, start.detach(), unit, evaluations, self.on_evaluation)
        optimiser = self._build(search.variable, self._resized_state(start.shape), evaluations)
        for _ in range(1 + MAX_RESTARTS):
            try:
                search.run(optimiser)
            except FloatingPointError:
                search.restore_best()
            if search.done >= evaluations:
                break
            optimiser = self._build(search.variable, None, evaluations - search.done)
        self._state = optimiser.state.get(search.variable)
        return search.best

    def _build(self, image: Tensor, state: dict[str, Any] | None, evaluations: int) -> torch.optim.Optimizer:
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
        if state:
            optimiser.state[image] = state
        return optimiser

    def _resized_state(self, shape: torch.Size) -> dict[str, Any] | None:
        """Return the state of Adam, with its moments resized to `shape`; None for L-BFGS."""
        if self.optimiser != "adam" or not self._state:
            return None
        return {
            name: F.interpolate(value, shape[-2:], mode="bilinear") if value.ndim == 4 else value
            for name, value in self._state.items()
        }


class _Search:
    """Counts the evaluations of the losses, and stores the image with the lowest loss.

    The variable of the optimiser is the image in units of `unit`. The first step of L-BFGS has an L1 norm of 1 in these
    units, however large the losses are: in units of pixels it would be lost in the rounding of float32.
    """

    def __init__(
        self, objective: GramObjective, start: Tensor, unit: float, limit: int, report: OnEvaluation | None
    ) -> None:
        self.objective, self.unit, self.limit, self.report = objective, unit, limit, report
        self.variable = (start / unit).requires_grad_()
        self.done = 0
        self.lowest = float("inf")
        self.best = start.clone()

    def run(self, optimiser: torch.optim.Optimizer) -> None:
        """Run the optimiser until it stops or has used all evaluations."""
        if isinstance(optimiser, torch.optim.LBFGS):
            optimiser.step(self._evaluate)  # type: ignore[no-untyped-call]
            return
        while self.done < self.limit:
            self._evaluate()
            optimiser.step()

    def restore_best(self) -> None:
        """Restore the best image."""
        if self.lowest == float("inf"):
            raise DivergedError("the losses of the image that painting starts from are not finite")
        with torch.no_grad():
            self.variable.copy_(self.best / self.unit)

    def _evaluate(self) -> float:
        image = (self.variable.detach() * self.unit).requires_grad_()
        losses = self.objective(image)
        self.done += 1
        assert image.grad is not None
        loss, finite = torch.stack(list(losses.values())).sum(), torch.isfinite(image.grad).all()
        total = float(torch.where(finite, loss, torch.inf))  # read once, because it waits for a GPU
        if not total < float("inf"):
            raise FloatingPointError
        self.variable.grad = (image.grad * self.unit).contiguous()  # which L-BFGS views as a vector
        if total < self.lowest:
            self.lowest = total
            self.best.copy_(image.detach())
        if self.report is not None:
            self.report(self.done, self.limit, losses)
        return total
