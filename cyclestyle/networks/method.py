"""What translates images: the contract that training and translation share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError
from cyclestyle.images import ValueRange
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.styles import Mixture

Direction = Literal["AtoB", "BtoA"]
DOMAINS: dict[Direction, tuple[str, str]] = {"AtoB": ("A", "B"), "BtoA": ("B", "A")}
"""Source and target domain of each direction."""

OnEvaluation = Callable[[int, int, dict[str, Tensor]], None]
"""Called with the number of the evaluation, how many there will be, and the weighted losses."""


def stored_ranges(ranges: Mapping[str, Sequence[float]] | None) -> dict[str, ValueRange]:
    """Return the ranges of domains from what settings store: the lowest and the highest value of each.

    Raises:
        ValueError: they are no ranges.
    """
    return {domain: ValueRange(*ends) for domain, ends in (ranges or {}).items()}


class Method(nn.Module, ABC):
    """A way to translate images: a network with trained weights, or an optimisation of each image.

    Methods that can be trained are `cyclestyle.tasks.Task`, which are `LightningModule`s. Others, such as a generator
    file or an exported network, are plain modules.

    Attributes:
        directions: the directions of methods with two domains. In training, evaluation measures these.
        style_names: names of the styles that the method has learnt, for `use_styles`; empty for methods of one style.
        mixture: the styles that it translates with; None for methods without `style_names`, or before a choice.
        takes_styles: whether `use_styles` takes style images, without which nothing is translated.
        takes_masks: whether `translate` takes the regions of styles as further channels.
        one_pass: whether `translate` is one pass of networks, which can be streamed.
        in_bfloat16: what gives results in bfloat16 that are as good as in float32: `training`, `translating`.
        ranges: the values of each domain that -1 and 1 stand for; a domain that is missing has levels of colours, of
            which each file has the range of its type.
        strength: share of the style in translations, in [0, 1], which may be changed; None where a method has none.
        on_evaluation: called during `translate` by methods that optimise each image.
        networks: the networks whose memory format matters; empty: all children.
    """

    directions: tuple[Direction, ...] = ()
    style_names: tuple[str, ...] = ()
    mixture: Mixture | None = None
    takes_styles: bool = False
    takes_masks: bool = False
    one_pass: ClassVar[bool] = True
    in_bfloat16: ClassVar[tuple[Literal["training", "translating"], ...]] = ()
    ranges: Mapping[str, ValueRange] = {}  # replaced, never changed
    strength: float | None = None
    on_evaluation: OnEvaluation | None = None
    networks: tuple[nn.Module, ...] = ()  # a tuple does not register its modules a second time

    @abstractmethod
    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate `(N, C, H, W)` in [-1, 1] of any height and width; the result has the same height and width.

        With `takes_masks`, channels after those of the image are regions of the styles, 1 inside and -1 outside.
        """

    def in_channels(self, direction: Direction) -> int:
        """Return the number of channels of the images that `translate` takes."""
        return 3

    def use_styles(self, styles: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        """Take the style from images `(3, H, W)` in [-1, 1], or from names in `style_names`, mixed by their weights.

        Raises:
            CycleStyleError: the method has learnt its style; a name is unknown; or the weights do not fit the styles.
        """
        raise CycleStyleError(f"{self.name} has learnt its style; leave --style out")

    def exported(self, direction: Direction) -> OnePass:
        """Return the translation as one module that other programs can run; by default `translate` itself.

        It is given images of the sizes that its networks require (`multiple` and `min_size`), as `call_at_any_size`
        gives them to these.

        Raises:
            CycleStyleError: the method, with these settings, is no single pass of networks.
        """
        if not self.one_pass:
            raise CycleStyleError(f"{self.name} computes each image in many passes, and cannot be exported")
        return OnePass.around(_Translation(self, direction), self.in_channels(direction))

    @property
    def name(self) -> str:
        """The name of the method in checkpoints and messages."""
        return type(self).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments that a file of its weights needs to name."""
        return {}

    def translating_weights(self) -> dict[str, Tensor]:
        """Return the weights that translating needs."""
        return self.state_dict()

    @property
    def known_directions(self) -> tuple[Direction, ...]:
        """The directions that it translates in; methods that take styles have none of their own."""
        return self.directions if self.directions and not self.takes_styles else ("AtoB",)

    def arrange(self, memory_format: torch.memory_format) -> None:
        """Bring the weights of the networks into a memory format."""
        for network in self.networks or tuple(self.children()):
            network.to(memory_format=memory_format)


class _Translation(nn.Module):
    """`translate` in one direction, as a module."""

    def __init__(self, method: Method, direction: Direction) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(dict(method.named_children()))  # whose weights are exported
        self.translate = partial(method.translate, direction=direction)

    def forward(self, images: Tensor) -> Tensor:
        """Shape: `(N, C, H, W)` → `(N, C', H, W)`, in [-1, 1]."""
        result: Tensor = self.translate(images)
        return result
