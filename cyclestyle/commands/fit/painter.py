"""Runs that begin with a style of a many-styles network."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.painter import as_generator, generator_settings
from cyclestyle.networks.transform import TransformNetwork
from cyclestyle.tasks.base import Task
from cyclestyle.tasks.load import start_with
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.wishes import use_styles
from cyclestyle.weights.foreign import Contents
from cyclestyle.weights.resolve import resolve_checkpoint


def start_from_style(task: Task, name: str, style: str, photos: Iterable[Tensor]) -> None:
    """Let the generator of a task paint in a style from the first step on; see `as_generator`.

    Args:
        task: the task of the new run.
        name: the checkpoint of a many-styles network.
        style: one of its styles, or a mixture such as `wave:0.3,starry_night:0.7`.
        photos: on which the norms are measured, `(1, 3, H, W)` in [-1, 1]; those of other sizes are cropped.

    Raises:
        CycleStyleError: the checkpoint has no such style, or the task another generator.
    """
    painter = open_method(name)
    network = next((part for part in painter.modules() if isinstance(part, TransformNetwork)), None)
    if network is None or not painter.style_names:
        raise CycleStyleError(f"--init_style is for networks of many styles, and {name} is none; leave it out")
    use_styles(painter, [style])
    assert painter.mixture is not None
    shown = list(photos)
    if shown[0].shape[1] != network.in_channels:
        raise CycleStyleError(
            f"--init_style is for photos of {network.in_channels} channels, got {shown[0].shape[1]}; set "
            "data.channels_A and model.channels_A"
        )
    height, width = (min(photo.shape[axis] for photo in shown) // 4 * 4 for axis in (-2, -1))
    batch = torch.cat([photo[..., :height, :width] for photo in shown])
    generator = as_generator(network, painter.mixture.shares, batch)
    settings = generator_settings(network)
    contents = Contents(
        task="GeneratorOnly",
        settings={"generator": settings.pop("name"), **settings},
        weights={f"generator.{key}": value for key, value in generator.state_dict().items()},
    )
    start_with(task, contents, True, Path(resolve_checkpoint(name)))
