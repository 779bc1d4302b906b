"""`export`: write trained networks in the format of another program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cyclestyle.commands.parser import call
from cyclestyle.errors import CheckpointError
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.official import METHODS, method_of, write_official


def export(
    *,
    ckpt_path: str,
    output: str,
    format: Literal["official"] = "official",
    epoch: str = "latest",
    overwrite: bool = False,
) -> int:
    """Write the networks of a CycleGAN, CUT or DCLGAN in the format of another program.

    `official` is the format of the original implementation: for CycleGAN latest_net_G_A.pth, latest_net_G_B.pth,
    latest_net_D_A.pth and latest_net_D_B.pth; for CUT latest_net_G.pth, latest_net_D.pth and latest_net_F.pth.

    Args:
        ckpt_path: checkpoint of a training run.
        output: folder to write into.
        format: format of the files.
        epoch: what the names begin with.
        overwrite: replace existing files.
    """
    state = read_checkpoint(Path(ckpt_path)).get("state_dict", {})
    folder = Path(output)
    if method_of(state) is None:
        raise CheckpointError(
            f"{ckpt_path} is not a checkpoint of a run of {', '.join(METHODS)}; there is nothing to export"
        )
    present = [path for path in folder.glob(f"{epoch}_net_*.pth") if not overwrite]
    if present:
        raise CheckpointError(f"{present[0]} exists already; add --overwrite, or choose another --output or --epoch")
    for path in write_official(state, folder, epoch):
        print(path)
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `export`."""
    return call(export, name, args)
