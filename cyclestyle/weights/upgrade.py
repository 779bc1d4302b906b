"""Conversion of checkpoints of earlier versions."""

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

RENAMED_TASKS = {"GramStyle": "Gatys", "FastStyle": "Johnson", "AutoencoderStyle": "Autoencoder"}
"""Current name of each task that had another name in an earlier version."""
RENAMED_ARGUMENTS = {("CycleGAN", "upsample"): "resample"}
"""Current name of each constructor argument of a task that had another name in an earlier version."""


def upgrade(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Rename the entries of a checkpoint of an earlier version.

    Current checkpoints and those of other programs are returned unchanged. A renamed task is logged as a warning.
    """
    name = checkpoint.get("cyclestyle_task")
    if name in RENAMED_TASKS:
        log.warning("this checkpoint is of %s, which is called %s now", name, RENAMED_TASKS[name])
        checkpoint = {**checkpoint, "cyclestyle_task": RENAMED_TASKS[name]}
    for (task, old), new in RENAMED_ARGUMENTS.items():
        settings = checkpoint.get("hyper_parameters", {})
        if checkpoint.get("cyclestyle_task") == task and old in settings:
            renamed = {new if key == old else key: value for key, value in settings.items()}
            checkpoint = {**checkpoint, "hyper_parameters": renamed}
    settings = checkpoint.get("hyper_parameters", {})
    if checkpoint.get("cyclestyle_task") == "Johnson" and settings and "output" not in settings:
        # Earlier versions had other loss weights, and one kind of output
        checkpoint = {**checkpoint, "hyper_parameters": {**settings, "preset": "reference", "output": "levels"}}
    if settings := checkpoint.get("hyper_parameters", {}):
        settings = current_settings(str(checkpoint.get("cyclestyle_task")), settings)
        checkpoint = {**checkpoint, "hyper_parameters": settings}
    if settings.get("residual") is True:  # the only contrast of earlier versions
        checkpoint = {**checkpoint, "hyper_parameters": {**settings, "residual": 0.99}}
    if "image_pools" in checkpoint:
        pools = [{f"pool_{domain}": pool for domain, pool in rank.items()} for rank in checkpoint["image_pools"]]
        checkpoint = {key: value for key, value in checkpoint.items() if key != "image_pools"} | {"rank_states": pools}
    for part in ("state_dict", "ema"):
        if any(".colours." in key for key in checkpoint.get(part, ())):
            weights = {key.replace(".colours.", ".input_transform."): value for key, value in checkpoint[part].items()}
            checkpoint = {**checkpoint, part: weights}
    return checkpoint


def current_settings(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments of a task without those that are `--tune` now."""
    gone = ("compile", "channels_last") if task in ("CycleGAN", "CUT", "DCLGAN") else ()
    return {key: value for key, value in settings.items() if key not in gone}
