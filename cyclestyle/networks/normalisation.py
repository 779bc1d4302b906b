"""Instance normalisation with a correct gradient in every memory format."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["instance", "none"]


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation (Ulyanov et al. 2016) without running statistics.

    On the CPU it is computed as a group norm with one group per channel, which is the same function. The reason is a
    bug in PyTorch (2.9 to 2.15): `F.instance_norm` on the CPU silently returns a wrong gradient if the batch size
    is 1 and `grad_output` is channels_last (relative error above 1). The group norm is also faster. On other devices
    `F.instance_norm` is used, because autocast runs group norms in float32.

    Shape: `(N, C, H, W)` → `(N, C, H, W)`.

    Args:
        channels: C.
        affine: learn a scale and a shift for each channel.
    """

    def __init__(self, channels: int, *, affine: bool = False) -> None:
        super().__init__(channels, affine=affine)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise the features."""
        if features.device.type == "cpu":
            return F.group_norm(features, features.shape[1], self.weight, self.bias, self.eps)
        return super().forward(features)


def remove_norms(network: nn.Module) -> None:
    """Replace the instance norms of a network by identities, which leaves the keys of its state_dict as they are."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm2d):
                setattr(module, name, nn.Identity())


class ConditionalInstanceNorm2d(nn.Module):
    """Instance normalisation with a scale γ and a shift β for each style (Dumoulin et al. 2017, eq. 5).

    z = γ (x − μ) / σ + β. γ and β are the sums of those of the styles, weighted by their shares, for each image or for
    each pixel.

    Shape: features `(N, C, H, W)` and shares `(N, S, 1, 1)` or `(N, S, H, W)` → `(N, C, H, W)`. The first axis of the
    shares may be 1.

    Args:
        channels: C.
        styles: S.

    Attributes:
        weight: γ of each style, `(S, C)`, 1 at the start.
        bias: β of each style, `(S, C)`, 0 at the start.
    """

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))
        self.norm = InstanceNorm2d(channels)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """Normalise the features, and scale and shift them by their styles."""
        scale, shift = (_mixed(table, styles) for table in (self.weight, self.bias))
        if scale.numel() == features.shape[1]:  # one style for all images: a norm with a scale and a shift
            return F.group_norm(features, features.shape[1], scale.flatten(), shift.flatten(), self.norm.eps)
        normalised = self.norm(features)
        return torch.addcmul(shift.to(normalised.dtype), normalised, scale.to(normalised.dtype))


def _mixed(table: Tensor, shares: Tensor) -> Tensor:
    """The sum of the rows of a table `(S, C)`, weighted by shares: `(N, C, 1, 1)` or `(N, C, H, W)`."""
    if shares.shape[-2:] == (1, 1):  # products of elements, which autocast leaves in the precision of the table
        return (table[:, :, None, None] * shares.to(table.dtype)[:, :, None]).sum(1)
    return F.conv2d(shares.to(table.dtype), table.mT[:, :, None, None])
