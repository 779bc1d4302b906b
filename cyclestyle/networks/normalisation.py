"""Instance normalisation with a correct gradient in every memory format."""

import torch.nn.functional as F
from torch import Tensor, nn


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
