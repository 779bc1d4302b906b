"""Statistics of norms that are averaged over the frames of a video, so that its look does not flicker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Statistics = tuple[Tensor, Tensor]


class AveragedStatistics:
    """Exponential moving averages over frames of the mean and the variance that each norm finds.

    An instance norm takes mean and variance of every frame anew. They change with noise, exposure and what enters the
    frame, and with them the colours and the contrast of the whole result. Here the norm of frame t is given

        a_t = decay · a_{t−1} + (1 − decay) · s_t,

    where s_t are the statistics of the frame; at the first frame of a scene a_t = s_t. Norms are told apart by the
    order in which the network calls them, as in `streaming.py`. Every instance norm, group norm with one group for each
    channel, and `torch.var_mean` over height and width is averaged, in any network.

    Args:
        decay: in [0, 1); 0 is no average.

    Raises:
        ValueError: `decay` is out of its range.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self._kept: list[Statistics] = []
        self._new: list[Statistics] = []
        self._starts: Sequence[bool] = ()

    @contextmanager
    def frames(self, starts: Sequence[bool]) -> Iterator[None]:
        """Average the statistics of plain tensors, while consecutive frames are translated as one batch.

        Args:
            starts: for each frame of the batch, whether a scene begins with it.
        """
        with self.numbered(starts), _Norms(self):
            yield

    @contextmanager
    def numbered(self, starts: Sequence[bool]) -> Iterator[None]:
        """Count the norms of one pass, which calls `average`. If it fails, the averages are as they were."""
        self._starts, self._new = starts, []
        yield
        self._kept = self._new

    def average(self, mean: Tensor, variance: Tensor) -> Statistics:
        """Return the averages for the next norm, and keep those of the last frame: `(N, C)` each, or `(C,)`."""
        if mean.ndim == 2 and len(mean) != len(self._starts):
            return mean, variance  # of an image that is no frame, such as the style of AdaIN
        own = torch.stack([mean, variance]).reshape(2, -1, mean.shape[-1])  # (2, N, C)
        index = len(self._new)
        last = torch.stack(self._kept[index]) if index < len(self._kept) else own[:, 0]
        averages = []
        for start, statistics in zip(self._starts, own.unbind(dim=1), strict=True):
            last = statistics if start else torch.lerp(statistics, last.to(statistics), self.decay)
            averages.append(last)
        self._new.append((last[0], last[1]))
        result = torch.stack(averages, dim=1).reshape(2, *mean.shape)
        return result[0], result[1]


class _Norms(TorchFunctionMode):
    """Replaces what norms find by the averages."""

    def __init__(self, averages: AveragedStatistics) -> None:
        super().__init__()
        self.averages = averages

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.instance_norm:
            return self._normalised(*_instance_norm(*args, **kwargs))
        if func is F.group_norm and args[1] == args[0].shape[1]:
            return self._normalised(*_group_norm(*args, **kwargs))
        result = func(*args, **kwargs)
        if func is torch.var_mean and _over_pixels(args[0], *args[1:], **kwargs):
            variance, mean = result
            shape = mean.shape
            mean, variance = self.averages.average(mean.flatten(1), variance.flatten(1))
            return variance.reshape(shape), mean.reshape(shape)
        return result

    def _normalised(self, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        variance, mean = torch.var_mean(features.float(), dim=(2, 3), correction=0)
        mean, variance = self.averages.average(mean, variance)  # (N, C)
        scale = torch.rsqrt(variance + eps) if weight is None else weight * torch.rsqrt(variance + eps)
        shift = -mean * scale if bias is None else bias - mean * scale
        return torch.addcmul(shift[..., None, None], features.float(), scale[..., None, None]).to(features.dtype)


def _instance_norm(
    features: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
    """Take the arguments of `F.instance_norm`."""
    return features, weight, bias, eps


def _group_norm(
    features: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
    """Take the arguments of `F.group_norm`."""
    return features, weight, bias, eps


def _over_pixels(features: Tensor, dim: Any = None, **_: Any) -> bool:
    """Whether `torch.var_mean` is called over height and width."""
    return features.ndim == 4 and isinstance(dim, Sequence) and sorted(axis % 4 for axis in dim) == [2, 3]
