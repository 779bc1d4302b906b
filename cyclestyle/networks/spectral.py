"""Spectral normalisation of discriminators (Miyato et al. 2018)."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

_ORIGINAL = ".parametrizations.weight.original"


def add_spectral_norm(network: nn.Module) -> None:
    """Divide each weight of two or more dimensions by its largest singular value, in place.

    A convolution's weight is taken as a matrix `(out, in · kh · kw)`. The singular value follows the weights by one
    power iteration in each call in training mode (Miyato et al. 2018, algorithm 1), and is constant in evaluation
    mode. Initialise the network before: afterwards its weights are computed, and `state_dict` has `…original` and two
    vectors for each of them.

    Args:
        network: its convolutions and linear layers are changed, but for those that have spectral norm.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear) and not is_parametrized(module):
            spectral_norm(module)


def without_spectral_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a `state_dict` with the normalised weights themselves, as evaluation mode has them."""
    plain = {}
    for key, value in state_dict.items():
        if key.endswith(_ORIGINAL):
            name = key.removesuffix(_ORIGINAL)
            left, right = (state_dict[f"{name}.parametrizations.weight.0.{vector}"] for vector in ("_u", "_v"))
            plain[f"{name}.weight"] = value / (left @ value.flatten(1) @ right)
        elif ".parametrizations.weight.0._" not in key:
            plain[key] = value
    return plain
