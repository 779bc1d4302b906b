"""The optimiser of a task: parameters in groups, of which each is clipped by itself."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], discriminators: Collection[str], frozen: Collection[str]
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups, each with a name: generators (or networks), and discriminators.

    Args:
        parameters: those of the task, with their names.
        discriminators: names of submodules; without any, the one group is called `networks`.
        frozen: names of parameters that are not trained. They are in the groups, but have no gradients, so that a
            resumed run may train them.
    """
    first = "generators" if discriminators else "networks"
    groups: dict[str, list[nn.Parameter]] = {first: []}
    for name, parameter in parameters:
        group = "discriminators" if name.partition(".")[0] in discriminators else first
        if parameter.requires_grad or name in frozen:
            groups.setdefault(group, []).append(parameter)
    return [{"params": parameters, "name": name} for name, parameters in groups.items()]


def clip_groups(optimizer: torch.optim.Optimizer, bound: float | None, algorithm: str | None) -> None:
    """Clip each group by itself: a norm over both would let one player scale the other."""
    if not bound:
        return
    for group in optimizer.param_groups:
        clip = nn.utils.clip_grad_value_ if algorithm == "value" else nn.utils.clip_grad_norm_
        clip(group["params"], bound)
