"""Weight initialisation."""

from typing import Literal

from torch import nn

InitName = Literal["normal", "xavier", "kaiming", "orthogonal"]


def initialise(network: nn.Module, init: InitName = "normal", gain: float = 0.02) -> None:
    """Draw the weights of every convolution in place and set its biases to 0.

    `normal` draws from N(0, gain²), as CycleGAN does with gain 0.02; `xavier` and `orthogonal` scale by
    `gain`; `kaiming` has no gain.

    Raises:
        ValueError: `init` is not one of the four names.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        match init:
            case "normal":
                nn.init.normal_(module.weight, 0.0, gain)
            case "xavier":
                nn.init.xavier_normal_(module.weight, gain=gain)
            case "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            case "orthogonal":
                nn.init.orthogonal_(module.weight, gain=gain)
            case _:
                raise ValueError(f"init must be normal, xavier, kaiming or orthogonal, got {init!r}")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
