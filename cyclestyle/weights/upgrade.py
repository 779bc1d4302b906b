"""Checkpoints of earlier versions, brought to the names of this one."""

import logging
from typing import Any

log = logging.getLogger(__name__)

RENAMED_TASKS = {"GramStyle": "Gatys", "FastStyle": "Johnson", "AutoencoderStyle": "Autoencoder"}
"""Names of tasks in earlier versions, and the names that they have now."""


def upgrade(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint under the names of this version; a current one, or another program's, is returned as it is.

    A task that has been renamed is reported in one line.
    """
    name = checkpoint.get("cyclestyle_task")
    if name in RENAMED_TASKS:
        log.warning("this checkpoint is of %s, which is called %s now", name, RENAMED_TASKS[name])
        checkpoint = {**checkpoint, "cyclestyle_task": RENAMED_TASKS[name]}
    if "image_pools" in checkpoint:
        pools = [{f"pool_{domain}": pool for domain, pool in rank.items()} for rank in checkpoint["image_pools"]]
        checkpoint = {key: value for key, value in checkpoint.items() if key != "image_pools"} | {"rank_states": pools}
    for part in ("state_dict", "ema"):
        if any(".colours." in key for key in checkpoint.get(part, ())):
            weights = {key.replace(".colours.", ".input_transform."): one for key, one in checkpoint[part].items()}
            checkpoint = {**checkpoint, part: weights}
    return checkpoint
