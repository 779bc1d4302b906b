"""From a network of fast style transfer to a generator without norms, which GAN tasks can train further."""

from typing import Any

import torch
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.generators import ResNetGenerator, build_generator
from cyclestyle.networks.normalisation import ConditionalInstanceNorm2d
from cyclestyle.networks.transform import BLOCKS, NormedConvolution, TransformNetwork


@torch.no_grad()
def as_generator(network: TransformNetwork, shares: Tensor, photos: Tensor) -> ResNetGenerator:
    """Return a generator without norms that paints like one mixture of styles.

    Each norm becomes the scale and shift that it has on average over the photos, and is folded into its convolution.
    So light and colours of a photo, which an instance norm takes away, reach the result, and plain areas are not
    enlarged in contrast. Two things differ and are for the training to mend: the first and the last convolution have
    7×7 instead of 9×9 weights, the outermost of which are left out, and features are enlarged bilinearly.

    Args:
        network: with `styles` above 0 and the output `sigmoid`, and on the device of the photos.
        shares: of the styles, `(1, styles)`.
        photos: `(N, 3, H, W)` in [-1, 1], some dozens.

    Returns:
        That of `build_generator` with the arguments `generator_settings(network)`.

    Raises:
        CycleStyleError: the network has one style, another output, or transposed convolutions.
    """
    if not network.styles or network.output != "sigmoid" or network.upsample != "resize":
        raise CycleStyleError(
            "a generator without norms is made of a network of many styles with output sigmoid and upsample resize"
        )
    generator = build_generator(**generator_settings(network))
    assert isinstance(generator, ResNetGenerator)
    generator.to(photos)
    theirs = [module for module in network.modules() if isinstance(module, NormedConvolution)]
    ours = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    hooks = []
    for source, target in zip(theirs, ours, strict=True):
        cut = (source.conv.kernel_size[0] - target.kernel_size[0]) // 2
        side = source.conv.kernel_size[0] - cut
        target.weight.copy_(source.conv.weight[..., cut:side, cut:side])
        assert target.bias is not None
        assert source.conv.bias is not None
        target.bias.copy_(source.conv.bias)
        hooks.append(target.register_forward_hook(_Folding(source.norm, shares)))
    generator(photos)
    for hook in hooks:
        hook.remove()
    for parameter in (ours[-1].weight, ours[-1].bias):  # 2 sigmoid(x) - 1 = tanh(x / 2)
        assert parameter is not None
        parameter.div_(2)
    return generator


def generator_settings(network: TransformNetwork) -> dict[str, Any]:
    """Return the arguments of `build_generator` for a network of fast style transfer without norms."""
    width = network.first.conv.out_channels
    return {"name": "resnet6", "depth": BLOCKS, "ngf": width, "resample": "resize", "norm": "none"}


class _Folding:
    """A hook that changes a convolution, so that its result has the mean and deviation that the norm gives it."""

    def __init__(self, norm: nn.Module, shares: Tensor) -> None:
        assert isinstance(norm, ConditionalInstanceNorm2d)
        self.scale, self.shift = (table.mT @ shares[0] for table in (norm.weight, norm.bias))

    def __call__(self, convolution: nn.Conv2d, inputs: Any, result: Tensor) -> Tensor:
        """Return the changed result, `(N, C, H, W)`."""
        means, variances = result.mean((0, 2, 3)), result.var((2, 3), correction=0).mean(0)
        scale = self.scale / (variances + 1e-5).sqrt()
        shift = self.shift - means * scale
        assert convolution.bias is not None
        convolution.weight.mul_(scale[:, None, None, None])
        convolution.bias.mul_(scale).add_(shift)
        return result * scale[:, None, None] + shift[:, None, None]
