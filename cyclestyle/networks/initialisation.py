"""Weight initialisation."""

from typing import Literal

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

InitName = Literal["normal", "xavier", "kaiming", "orthogonal"]


def initialise(network: nn.Module, init: InitName = "normal", gain: float = 0.02) -> None:
    """Initialise the weights of every convolution and linear layer in place and set the biases to 0.

    Layers that have spectral norm already, as those of projected discriminators, keep their weights.

    Args:
        network: its `Conv2d`, `ConvTranspose2d` and `Linear` modules are initialised.
        init: `normal` (from N(0, gain²); CycleGAN uses gain 0.02), `xavier`, `kaiming` or `orthogonal`.
        gain: standard deviation for `normal`, scaling factor for `xavier` and `orthogonal`; unused by `kaiming`.

    Raises:
        ValueError: `init` is unknown.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or is_parametrized(module):
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
